"""The task `humaneval_infilling`: HumanEval's solutions with a line, some lines or a random span taken out, and run.

It decides which split a row belongs to by the row's id, and the one token budget of the list by the splits in it; an
answer is judged by the tests of its problem. All gaps of a problem are one group: the thousands of items come from 164
problems. It refuses rows whose id names no HumanEval problem.
"""

import re
from collections import Counter
from typing import Literal

from pydantic import Field

from inlay.config import BadInput
from inlay.evaluate.rows import Row, mixed, read_rows, unique
from inlay.evaluate.sandbox.program import Limits, Program
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks

Split = Literal["single-line", "multi-line", "random-span", "random-span-light"]

_SPLITS: dict[str, Split] = {
    "SingleLineInfilling": "single-line",
    "MultiLineInfilling": "multi-line",
    "RandomSpanInfilling": "random-span",
    "RandomSpanInfillingLight": "random-span-light",
}
"""By the beginning of a task id in the published files."""

_PROBLEM = re.compile(r"(?:^|/)(HumanEval/(\d{1,4}))(?:/|$)")


@tasks.register
class HumanEvalInfillingConfig(TaskConfig):
    """HumanEval-Infilling: gaps in HumanEval's Python solutions, judged by its tests."""

    EXECUTES = True
    POST = "none: its harness runs the raw text (openai/human-eval-infilling)"
    SPLITS = True
    CITATION = "Bavarian et al. 2022, Efficient Training of Language Models to Fill in the Middle, arXiv 2207.14255"

    kind: Literal["humaneval_infilling"] = "humaneval_infilling"
    split: Split | None = None
    """Takes this split alone; null takes every row, and each says by its id which split it is of."""
    max_tokens: int = Field(128, ge=1, le=1 << 24)
    """Token budget of the single-line and random-span splits."""
    multi_line_max_tokens: int = Field(512, ge=1, le=1 << 24)
    """Token budget of a list that has multi-line gaps, whose gold answers are longer than 128 tokens."""
    seconds: float = Field(3.0, gt=0, le=3600.0)
    """Time limit of one answer's tests; 3 is the published harness's."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        rows = read_rows(place, "humaneval_infilling")
        placed = [(self._split_of(row), row) for row in rows.rows]
        taken = [(split, row) for split, row in placed if self.split in (None, split)]
        if not taken:
            found = ", ".join(f"{count} of {split}" for split, count in Counter(split for split, _ in placed).items())
            raise BadInput(f"{rows.source} has no rows of split={self.split}: it has {found}")
        unique((row.filled("task_id"), row) for _, row in taken)
        items = mixed([_example(split, row) for split, row in taken])
        return Examples(items[:limit], len(items), rows.source, rows.hash, rows.sample)

    def fitted(self, examples: Examples) -> "HumanEvalInfillingConfig":
        """These options with the one token budget of `examples`: the larger where multi-line gaps are among them."""
        multi = any(example.category == "multi-line" for example in examples.items)
        budget = max(self.max_tokens, self.multi_line_max_tokens) if multi else self.max_tokens
        return self.model_copy(update={"max_tokens": budget})

    def program(self, example: Example, middle: str) -> Program | None:
        test, entry_point = example.details["test"], example.details["entry_point"]
        source = f"{example.prefix}{middle}{example.suffix}\n{test}\ncheck({entry_point})\n"
        return Program("python", source, limits=Limits(seconds=self.seconds))

    def _split_of(self, row: Row) -> Split:
        name = row.filled("task_id").partition("/")[0]
        split = _SPLITS.get(name, self.split)
        if split is None:
            row.refuse("task_id", f"begins with '{name}', which names no split ({', '.join(_SPLITS)}): add split=NAME")
        return split


def _example(split: Split, row: Row) -> Example:
    name = row.text("task_id")
    problem = _PROBLEM.search(name)
    if problem is None:
        row.refuse("task_id", f"= '{name}' names no problem such as HumanEval/0")
    entry_point = row.filled("entry_point")
    if not entry_point.isidentifier():
        row.refuse("entry_point", "is no name of a Python function")
    return Example(
        id=name,
        group=problem[1],
        category=split,
        prefix=row.text("prompt"),
        middle=row.text("canonical_solution"),
        suffix=row.text("suffix"),
        path=f"humaneval_{problem[2]}.py",
        language="python",
        details={"test": row.filled("test"), "entry_point": entry_point},
    )
