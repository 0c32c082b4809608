"""The task `safim`: blocks, control-flow expressions and API calls taken out of programs in four languages.

It decides what the published harness decides, with its faults corrected and shown: blocks and control flow are judged
by running the program on given inputs, API calls by comparing texts. The harness takes an answer equal to the gold as
passed without running it, and where an answer is missing it scores the one before; here every answer is run, and a
missing one is missing. It refuses rows without exactly one gap, or whose mode nothing tells.
"""

from collections import Counter
from typing import Literal

import xxhash
from pydantic import Field

from inlay.config import BadInput
from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.rows import Row, mixed, read_rows, unique
from inlay.evaluate.safim_rules import (
    calls_match,
    calls_match_original,
    shortened_block,
    shortened_call,
    shortened_control,
)
from inlay.evaluate.sandbox.program import Case, Limits, Program
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks

Mode = Literal["block", "block_v2", "control", "api"]

_FILES: tuple[tuple[str, Mode], ...] = (
    ("block_completion_v2", "block_v2"),
    ("block_completion", "block"),
    ("control_completion", "control"),
    ("api_completion", "api"),
)
"""How the published files are called, and the ids in them begin."""

_GAP = "{{completion}}"
_LANGUAGES = {
    "python": ("# TODO: Your code here", ".py"),
    "java": ("/* TODO: Your code here */", ".java"),
    "cpp": ("/* TODO: Your code here */", ".cpp"),
    "csharp": ("/* TODO: Your code here */", ".cs"),
}
"""The mark of the gap in a prompt, and the ending of a file."""


@tasks.register
class SafimConfig(TaskConfig):
    """SAFIM: syntax-aware gaps in competition programs and API calls; Python, Java, C++ and C#."""

    EXECUTES = True
    POST = (
        "its harness's rule of each mode (gonglinyuan/safim): block, last lines dropped until the program parses and"
        " the tree around the gap is unchanged; control, Python's first line that is not blank, elsewhere up to the"
        " bracket that closes the gap's; api, up to the end of the first call"
    )
    SPLITS = True
    CITATION = "Gong et al. 2024, Evaluation of LLMs on Syntax-Aware Code Fill-in-the-Middle Tasks, arXiv 2403.04814"
    METRICS = (
        Metric(
            "matched",
            "API match",
            "api, after post-processing: the same call as the gold but for white space between tokens",
            "high",
            gold=1.0,
        ),
        Metric("matched_raw", "API match raw", "api: the same of the raw text", "high", gold=1.0),
        Metric(
            "matched_original",
            "API original",
            "api, after post-processing, by the published scorer (gonglinyuan/safim evaluate.py), which ignores the"
            " name of a Python function and all white space, in strings too",
            "high",
            gold=1.0,
        ),
    )

    kind: Literal["safim"] = "safim"
    mode: Mode | None = None
    """Takes this mode alone; null takes every row, and its file's name or its id says which mode it is of."""
    max_tokens: int = Field(128, ge=1, le=1 << 24)
    seconds: float = Field(5.0, gt=0, le=3600.0)
    """Time limit of one run of a program; the harness leaves it to its execution service."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        rows = read_rows(place, "safim")
        placed = [(self._mode_of(row), row) for row in rows.rows]
        taken = [(mode, row) for mode, row in placed if self.mode in (None, mode)]
        if not taken:
            found = ", ".join(f"{count} of {mode}" for mode, count in Counter(mode for mode, _ in placed).items())
            raise BadInput(f"{rows.source} has no rows of mode={self.mode}: it has {found}")
        unique((row.filled("task_id"), row) for _, row in taken)
        items = mixed([_example(mode, row) for mode, row in taken])
        return Examples(items[:limit], len(items), rows.source, rows.hash, rows.sample)

    def postprocess(self, example: Example, text: str) -> str:
        if example.category == "api":
            return shortened_call(text)
        if example.category == "control":
            return shortened_control(str(example.language), text)
        return shortened_block(str(example.language), example.details["before"], example.details["after"], text)

    def program(self, example: Example, middle: str) -> Program | None:
        cases = example.details["cases"]
        if not cases or any(expected is None for _, expected in cases):
            # A text match, or a problem with several right outputs: "not measured" beats "failed".
            return None
        return Program(
            str(example.language),
            example.details["before"] + middle + example.details["after"],
            cases=tuple(Case(stdin, expected) for stdin, expected in cases),
            limits=Limits(seconds=self.seconds),
        )

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        if example.category != "api":
            return {metric.name: None for metric in self.METRICS}
        language, post = str(example.language), self.postprocess(example, text)
        return {
            "matched": share(calls_match(language, post, example.middle)),
            "matched_raw": share(calls_match(language, text, example.middle)),
            "matched_original": share(calls_match_original(language, post, example.middle)),
        }

    def _mode_of(self, row: Row) -> Mode:
        file = row.where.rpartition(",")[0].rpartition("/")[2]
        for text in (file, row.filled("task_id")):
            for beginning, mode in _FILES:
                if text.startswith(beginning):
                    return mode
        if self.mode is None:
            modes = ", ".join(mode for _, mode in _FILES)
            row.refuse("task_id", f"does not tell the mode, nor does the file's name: add mode= one of {modes}")
        return self.mode


def _example(mode: Mode, row: Row) -> Example:
    language = row.filled("lang")
    if language not in _LANGUAGES:
        row.refuse("lang", f"= '{language}' is none of {', '.join(_LANGUAGES)}")
    mark, ending = _LANGUAGES[language]
    prefix, suffix = _halves(row, "prompt", mark)
    before, after = _halves(row, "eval_prompt", _GAP)
    middle = row.text("ground_truth")
    # Gaps of one program are one group, whatever their mode.
    program = "".join((before + middle + after).split())
    return Example(
        id=row.text("task_id"),
        group=f"safim-{xxhash.xxh3_64_hexdigest(program.encode())}",
        category=mode,
        prefix=prefix,
        middle=middle,
        suffix=suffix,
        path=f"{row.text('task_id').replace('/', '_')}{ending}",
        language=language,
        details={"before": before, "after": after, "cases": () if mode == "api" else _cases(row)},
    )


def _halves(row: Row, key: str, mark: str) -> tuple[str, str]:
    parts = row.text(key).split(mark)
    if len(parts) != 2:
        row.refuse(key, f"has {len(parts) - 1} times '{mark}', which marks the gap: it must have it once")
    return parts[0], parts[1]


def _cases(row: Row) -> tuple[tuple[str, str | None], ...]:
    """Inputs and the outputs they must give, None where several are right. Raises BadInput where there are none."""
    cases: list[tuple[str, str | None]] = []
    for test in row.unpacked("unit_tests").rows("unit_tests"):
        listed = isinstance(test.data.get("output"), list)
        outputs = test.texts("output") if listed else [test.text("output")]
        if not outputs:
            test.refuse("output", "is an empty list: a test needs the output that is right")
        same = len({" ".join(one.split()) for one in outputs}) == 1
        cases.append((test.text("input"), outputs[0] if same else None))
    if not cases:
        row.refuse("unit_tests", "has no tests")
    return tuple(cases)
