"""One model's outputs under the definitions of public harnesses: what each keeps of an answer and when it is right.

The rules are written from the published harnesses' behaviour, in our own code; prompts are not reproduced, so what
differs between rows is the scoring alone. Beside each score stands what the rule does to the gold: a harness that
breaks gold answers measures its own editing. Nothing is run here: `edits` gives the texts, and whoever has a sandbox
runs them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.metrics.match import bigcode_equal, qwen_equal, qwen_line
from inlay.evaluate.safim_rules import shortened_block, shortened_call, shortened_control
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.summary import summarise
from inlay.evaluate.task import Example, TaskConfig
from inlay.evaluate.validity import Question, Validity, compile_rule, grammar_rule
from inlay.evaluate.validity_worker import UNBROKEN

Pair = tuple[Example, str]
Edit = Callable[[Sequence[Pair], Validity], list[str]]
SAFIM_LANGUAGES = frozenset(("python", "java", "cpp", "csharp"))
BRACKET_LANGUAGES = frozenset(("java", "csharp", "typescript"))


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
    edit: Edit
    """What it keeps of each answer: the texts after its editing, in the same order."""
    equal: Callable[[str, str], bool] = lambda text, gold: text == gold
    """Whether the raw answer's edited text and the raw gold are equal to it."""


def edits(pairs: Sequence[Pair], task: TaskConfig, validity: Validity) -> dict[str, list[str]]:
    """The texts that each harness would insert or compare, by its name."""
    return {harness.name: harness.edit(pairs, validity) for harness in harnesses(task)}


def compare(
    items: Sequence[Answered],
    task: TaskConfig,
    passed: Mapping[str, Sequence[bool | None]] | None = None,
    workers: int = 2,
) -> list[dict[str, Any]]:
    """A row a harness: `name`, `title`, `rule`, `source`, `runs`, and scores (value, low, high, n): `exact`, its own
    equality (that of the edited text with the gold where it runs tests); `valid`, the edited answer parses in its place
    (Python: compiles), where the gold does; `gold_exact` and `gold_valid`, the same of the gold's text; `passed`.

    `passed`: by harness, what running `edits` of the items said. Intervals are bootstrapped over groups.
    """
    with Validity(workers) as validity:
        answers = [(item.example, item.answer.text) for item in items]
        golds = [(item.example, item.example.middle) for item in items]
        clean = _valid(golds, validity)
        rows = []
        for harness in harnesses(task):
            sides = {"": harness.edit(answers, validity), "gold_": harness.edit(golds, validity)}
            facts: dict[str, list[bool | None]] = {}
            for side, texts in sides.items():
                facts[f"{side}exact"] = [
                    harness.equal(text, item.example.middle) for text, item in zip(texts, items, strict=True)
                ]
                placed = _valid([(item.example, text) for text, item in zip(texts, items, strict=True)], validity)
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
        _each(task.postprocess),
    )
    return (RAW, own, *PUBLIC)


def _each(edit: Callable[[Example, str], str]) -> Edit:
    return lambda pairs, _: [edit(example, text) for example, text in pairs]


def _scores(items: Sequence[Answered], facts: Mapping[str, Sequence[bool | None]]) -> dict[str, Any]:
    names = list(facts)
    columns: list[dict[str, Measure | None]] = [
        {name: share(facts[name][at]) for name in names} for at in range(len(items))
    ]
    scored = [Scored(item, measures) for item, measures in zip(items, columns, strict=True)]
    return dict(summarise(scored, [Metric(name, name, name, "high") for name in names]))


def _valid(pairs: Sequence[Pair], validity: Validity) -> list[bool | None]:
    rules = [compile_rule(one.language, one.path) or grammar_rule(one.language, one.path) for one, _ in pairs]
    asked = [at for at, rule in enumerate(rules) if rule is not None]
    questions = [Question(str(rules[at]), pairs[at][0].prefix + pairs[at][1] + pairs[at][0].suffix) for at in asked]
    found: list[bool | None] = [None] * len(pairs)
    for at, valid in zip(asked, validity.ask(questions), strict=True):
        found[at] = valid
    return found


def _first_line(example: Example, text: str) -> str:
    return text.split("\n")[0]


def _safim_block(example: Example, text: str) -> str:
    if example.language not in SAFIM_LANGUAGES:
        return text
    return shortened_block(example.language, example.prefix, example.suffix, text)


def _statement(pairs: Sequence[Pair], validity: Validity) -> list[str]:
    """CrossCodeEval's cut. Python: the first line end (but for one at the very beginning) up to which prefix and
    answer parse; Java, C# and TypeScript: the first `;`, `{` or `}` (but for one at the very beginning)."""
    kept = [text for _, text in pairs]
    ends: dict[int, list[int]] = {}
    for at, (example, text) in enumerate(pairs):
        if example.language == "python":
            ends[at] = [place for place in range(len(text) - 1, 0, -1) if text[place] == "\n"]
        elif example.language in BRACKET_LANGUAGES:
            found = re.search(r"[;{}]", text)
            kept[at] = text[: found.end()] if found is not None and found.start() else text
    # A round asks for the next line end of each answer that has none yet: most end at their first.
    while ends := {at: places for at, places in ends.items() if places}:
        tried = {at: pairs[at][1][: places.pop()] for at, places in ends.items()}
        asked = [Question(UNBROKEN + "python", pairs[at][0].prefix + piece) for at, piece in tried.items()]
        for (at, piece), whole in zip(tried.items(), validity.ask(asked), strict=True):
            if whole:
                kept[at] = piece.rstrip()
                del ends[at]
    return kept


def _statement_equal(text: str, gold: str) -> bool:
    """Lines without comments and white space at their ends, blank ones left out; anything behind `#` or `//` counts as
    a comment, in strings and in every language."""

    def lines(code: str) -> list[str]:
        bare = re.sub(r"//.*", "", re.sub(r"#.*", "", code))
        return [line.strip() for line in bare.split("\n") if line.strip()]

    return lines(text) == lines(gold)


RAW = Harness(
    "raw",
    "ours, raw",
    "the text up to the terminator or the budget, untouched",
    "this project",
    True,
    _each(lambda _, text: text),
)
PUBLIC = (
    Harness(
        "human_eval_infilling",
        "HumanEval-Infilling",
        "runs the raw text",
        "openai/human-eval-infilling",
        True,
        _each(lambda _, text: text),
    ),
    Harness(
        "lm_eval",
        "lm-eval, single line",
        "stops before the first newline, and runs what is left",
        "EleutherAI/lm-evaluation-harness, humaneval_single_line_infilling",
        True,
        _each(_first_line),
    ),
    Harness(
        "bigcode",
        "bigcode",
        "both sides stripped; no line is cut",
        "bigcode-project/bigcode-evaluation-harness, santacoder_fim",
        False,
        _each(lambda _, text: text.strip()),
        bigcode_equal,
    ),
    Harness(
        "qwen",
        "Qwen fim-bench",
        "the first line (the second after an empty one), stripped; the gold stripped",
        "QwenLM/Qwen2.5-Coder, fim-bench/hm_fim",
        False,
        _each(lambda _, text: qwen_line(text)),
        lambda text, gold: text == gold.strip(),
    ),
    Harness(
        "safim_block",
        "SAFIM, block",
        "drops last lines until the program parses and the tree around the gap is unchanged, and runs it",
        "gonglinyuan/safim, truncate_line_until_block",
        True,
        _each(_safim_block),
    ),
    Harness(
        "safim_control",
        "SAFIM, control",
        "Python: the first line that is not blank; else up to the bracket that closes the one around the gap; and runs "
        "it",
        "gonglinyuan/safim, truncate_control",
        True,
        _each(lambda example, text: shortened_control(example.language or "", text)),
    ),
    Harness(
        "safim_api",
        "SAFIM, API",
        "up to the end of the first call, compared as text",
        "gonglinyuan/safim, truncate_api_call",
        False,
        _each(lambda _, text: shortened_call(text)),
        lambda text, gold: re.sub(r"\s+", "", text) == re.sub(r"\s+", "", gold),
    ),
    Harness(
        "cross_code_eval",
        "CrossCodeEval",
        "the first complete statement; comments, blank lines and white space at line ends left out on both sides",
        "amazon-science/cceval, eval_metric",
        False,
        _statement,
        _statement_equal,
    ),
)
"""Public harnesses, as their repositories had it in 2024 to 2026."""
