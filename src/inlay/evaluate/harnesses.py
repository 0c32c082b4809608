"""One model's outputs under the definitions of public harnesses: what each keeps of an answer and when it is right.

The rules are written from the published harnesses' behaviour, in our own code; prompts are not reproduced, so what
differs between rows is the scoring alone. Beside each score stands what the rule does to the gold: a harness that
breaks gold answers measures its own editing. Nothing is run here: who has a sandbox runs what `Harness.post` keeps.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inlay.evaluate.cross_file_rules import (
    STATEMENT_LANGUAGES,
    first_statement,
    same_lines,
    without_comments,
)
from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.metrics.match import bigcode_equal, qwen_line
from inlay.evaluate.safim_rules import shortened_block, shortened_call, shortened_control
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.summary import summarise
from inlay.evaluate.task import Example, TaskConfig
from inlay.evaluate.validity import Question, Validity, compile_rule, grammar_rule

SAFIM_LANGUAGES = frozenset(("python", "java", "cpp", "csharp"))


@dataclass(frozen=True)
class Harness:
    """One definition of a right answer."""

    name: str
    title: str
    rule: str
    """What it does, in a sentence."""
    source: str
    runs: bool
    """Whether its own score is tests passed; otherwise it compares texts."""
    post: Callable[[Example, str], str]
    """What it keeps of an answer."""
    equal: Callable[[str, str], bool] = lambda text, gold: text == gold
    """Whether the raw answer's edited text and the raw gold are equal to it."""


def compare(
    items: Sequence[Answered],
    task: TaskConfig,
    passed: Mapping[str, Sequence[bool | None]] | None = None,
    workers: int = 2,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """A row a harness: `name`, `title`, `rule`, `source`, `runs`, and scores (value, low, high, n): `exact`, its own
    equality (that of the edited text with the gold where it runs tests); `valid`, the edited answer parses in its place
    (Python: compiles), where the gold does; `gold_exact` and `gold_valid`, the same of the gold's text; `passed`.

    `passed`: by harness, what running each answer after its `post` said; `kept`: by harness, what `post` kept of each
    answer, where that is known already (some rules parse for it). Intervals are bootstrapped over groups.
    """
    with Validity(workers) as validity:
        golds = [item.example.middle for item in items]
        clean = _valid(items, golds, validity)
        rows = []
        for harness in harnesses(task):
            known = (kept or {}).get(harness.name)
            sides = {
                "": list(known) if known else [harness.post(item.example, item.answer.text) for item in items],
                "gold_": [harness.post(item.example, gold) for item, gold in zip(items, golds, strict=True)],
            }
            facts: dict[str, list[bool | None]] = {}
            for side, texts in sides.items():
                facts[f"{side}exact"] = [harness.equal(text, gold) for text, gold in zip(texts, golds, strict=True)]
                placed = _valid(items, texts, validity)
                facts[f"{side}valid"] = [fine if whole else None for fine, whole in zip(placed, clean, strict=True)]
            facts["passed"] = list((passed or {}).get(harness.name, [None] * len(items)))
            rows.append(
                {
                    "name": harness.name,
                    "title": harness.title,
                    "rule": harness.rule,
                    "source": harness.source,
                    "runs": harness.runs,
                    **_scores(items, facts),
                }
            )
    return rows


def harnesses(task: TaskConfig) -> tuple[Harness, ...]:
    """Ours raw and with the task's own rule, then the public ones."""
    own = Harness(
        "post",
        "ours, post-processed",
        task.POST,
        task.CITATION,
        task.EXECUTES,
        task.postprocess,
    )
    return (RAW, own, *PUBLIC)


def _scores(items: Sequence[Answered], facts: Mapping[str, Sequence[bool | None]]) -> dict[str, Any]:
    names = list(facts)
    columns: list[dict[str, Measure | None]] = [
        {name: share(facts[name][at]) for name in names} for at in range(len(items))
    ]
    scored = [Scored(item, measures) for item, measures in zip(items, columns, strict=True)]
    return dict(summarise(scored, [Metric(name, name, name, "high") for name in names]))


def _valid(items: Sequence[Answered], texts: Sequence[str], validity: Validity) -> list[bool | None]:
    """Whether each text is right in its example's place; None where nothing can tell."""
    found: list[bool | None] = [None] * len(items)
    asked: dict[int, Question] = {}
    for at, (item, text) in enumerate(zip(items, texts, strict=True)):
        example = item.example
        rule = compile_rule(example.language, example.path) or grammar_rule(example.language, example.path)
        if rule is not None:
            asked[at] = Question(rule, example.prefix + text + example.suffix)
    for at, valid in zip(asked, validity.ask(list(asked.values())), strict=True):
        found[at] = valid
    return found


def _first_line(example: Example, text: str) -> str:
    return text.split("\n")[0]


def _safim_block(example: Example, text: str) -> str:
    if example.language not in SAFIM_LANGUAGES:
        return text
    return shortened_block(example.language, example.prefix, example.suffix, text)


def _cross_code_eval(example: Example, text: str) -> str:
    language = "typescript" if example.language == "tsx" else example.language
    return first_statement(example.prefix, text, language) if language in STATEMENT_LANGUAGES else text


def _as_it_is(example: Example, text: str) -> str:
    return text


RAW = Harness(
    "raw",
    "ours, raw",
    "the text up to the terminator or the budget, untouched",
    "this project",
    True,
    _as_it_is,
)
PUBLIC = (
    Harness(
        "human_eval_infilling",
        "HumanEval-Infilling",
        "runs the raw text",
        "openai/human-eval-infilling",
        True,
        _as_it_is,
    ),
    Harness(
        "lm_eval",
        "lm-eval, single line",
        "stops before the first newline, and runs what is left",
        "EleutherAI/lm-evaluation-harness, humaneval_single_line_infilling",
        True,
        _first_line,
    ),
    Harness(
        "bigcode",
        "bigcode",
        "both sides stripped; no line is cut",
        "bigcode-project/bigcode-evaluation-harness, santacoder_fim",
        False,
        lambda _, text: text.strip(),
        bigcode_equal,
    ),
    Harness(
        "qwen",
        "Qwen fim-bench",
        "the first line (the second after an empty one), stripped; the gold stripped",
        "QwenLM/Qwen2.5-Coder, fim-bench/hm_fim",
        False,
        lambda _, text: qwen_line(text),
        lambda text, gold: text == gold.strip(),
    ),
    Harness(
        "safim_block",
        "SAFIM, block",
        "drops last lines until the program parses and the tree around the gap is unchanged, and runs it",
        "gonglinyuan/safim, truncate_line_until_block",
        True,
        _safim_block,
    ),
    Harness(
        "safim_control",
        "SAFIM, control",
        "Python: the first line that is not blank; else up to the bracket that closes the one around the gap; and runs "
        "it",
        "gonglinyuan/safim, truncate_control",
        True,
        lambda example, text: shortened_control(example.language or "", text),
    ),
    Harness(
        "safim_api",
        "SAFIM, API",
        "up to the end of the first call, compared as text",
        "gonglinyuan/safim, truncate_api_call",
        False,
        lambda _, text: shortened_call(text),
        lambda text, gold: re.sub(r"\s+", "", text) == re.sub(r"\s+", "", gold),
    ),
    Harness(
        "cross_code_eval",
        "CrossCodeEval",
        "the first complete statement; comments, blank lines and white space at line ends left out on both sides",
        "amazon-science/cceval, eval_metric",
        False,
        _cross_code_eval,
        lambda text, gold: same_lines(without_comments(text), without_comments(gold)),
    ),
)
"""Public harnesses, as their repositories had it in 2024 to 2026."""
