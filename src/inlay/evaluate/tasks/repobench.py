"""The task `repobench`: the next line of a file, with snippets of other files of its repository (RepoBench v1.1).

It decides how a row becomes a gap. As published the benchmark asks for the line left to right, and so does the default:
the suffix is empty, and numbers compare with published ones. With `suffix: rest` the line is searched in the whole
file (`all_code`) and what follows it is the suffix, which is what a model for infilling is made for; rows whose file
does not show the place are left out and counted in the source. It refuses languages other than Python and Java.
"""

import re
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from inlay.config import BadInput
from inlay.evaluate.cross_file_rules import first_code_line, indel_similarity
from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.rows import Row, read_rows
from inlay.evaluate.task import ContextFile, Example, Examples, Place, TaskConfig, tasks
from inlay.text.document import language_of

SETTINGS = ("cross_file_first", "cross_file_random", "in_file")
"""Of the benchmark, one file each: the first use of a module of another file, a later one, a line that needs none."""
_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n)*")


class _Line(NamedTuple):
    line: str
    rest: str


@tasks.register
class RepoBenchConfig(TaskConfig):
    """RepoBench v1.1: next-line completion in a repository; Python and Java."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("rb_exact", "RB EM", "words equal after its cut (Leolty/repobench)", "high", gold=1.0),
        Metric(
            "rb_edit", "RB ES", "similarity by insertions and deletions, after its cut (Leolty/repobench)", "high",
            gold=1.0,
        ),
    )  # fmt: skip
    POST: ClassVar[str] = "the first line that is neither blank nor a comment (Leolty/repobench run.py)"
    CITATION: ClassVar[str] = "Liu et al. 2023, RepoBench, arXiv 2306.03091"

    kind: Literal["repobench"] = "repobench"
    max_tokens: int = Field(128, ge=1, le=1 << 24)
    suffix: Literal["none", "rest"] = "none"
    """What stands behind the gap: nothing, as published, or the rest of the file."""
    levels: tuple[str, ...] = ()
    """Only these prompt lengths, such as "2k" and "4k"; none takes all."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """The rows in file order; ids are setting and row. Raises BadInput when no row is left."""
        rows = read_rows(place, "repobench", None)
        items: list[Example] = []
        lost = 0
        counts: dict[str, int] = {}
        for row in rows.rows:
            setting = _setting(row)
            number = counts[setting] = counts.get(setting, -1) + 1
            if self.levels and row.text("level") not in self.levels:
                continue
            example = self._example(row, setting, number)
            if example is None:
                lost += 1
            else:
                items.append(example)
        if not items:
            why = "whose all_code shows the place of the line" if lost else f"of level {', '.join(self.levels)}"
            raise BadInput(f"{rows.source}: none of {len(rows.rows)} rows is one {why}")
        source = rows.source + (f" ({lost} rows left out: all_code does not show their place)" if lost else "")
        return Examples(items[:limit], len(items), source, rows.hash, rows.sample)

    def postprocess(self, example: Example, text: str) -> str:
        return first_code_line(text, example.language or "python")

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        answer = self.postprocess(example, text)
        return {
            "rb_exact": share(answer.split() == example.middle.split()),
            "rb_edit": (indel_similarity(answer, example.middle), 1.0),
        }

    def _example(self, row: Row, setting: str, number: int) -> Example | None:
        path = row.filled("file_path")
        language = language_of(path)
        if language not in ("python", "java"):
            raise BadInput(f"{row.where}: '{path}' is neither Python nor Java, the languages of the benchmark")
        line, rest = _Line(row.text("next_line"), "")
        if not line.strip():
            row.refuse("next_line", "is empty")
        code = row.text("cropped_code").rstrip()
        if self.suffix == "rest":
            found = _find(row.text("all_code"), code, line.strip())
            if found is None:
                return None
            line, rest = found
        repo = row.filled("repo_name")
        return Example(
            id=f"{setting}/{number}",
            group=repo,
            category=setting,
            # As the benchmark's own prompt has it, without the comments that name the files.
            prefix=f"{row.text_or('import_statement', '')}\n{code}\n",
            middle=line,
            suffix=rest,
            path=path,
            language=language,
            context=tuple(ContextFile(one.text("path"), one.text("snippet")) for one in row.rows("context")),
            repo=repo,
            details={"level": row.text_or("level", "")},
        )


def _setting(row: Row) -> str:
    """The setting that a row's file is named after."""
    return next((setting for setting in SETTINGS if setting in row.where), "line")


def _find(whole: str, code: str, line: str) -> _Line | None:
    """The line as the file has it, with its indentation, and what follows it; None unless `code` and then `line` stand
    in the file."""
    start = whole.find(code)
    while start >= 0:
        blank = _BLANK_LINES.match(whole, start + len(code))
        if blank is not None:
            end = whole.find("\n", blank.end())
            end = len(whole) if end < 0 else end
            if whole[blank.end() : end].strip() == line:
                return _Line(whole[blank.end() : end], whole[end:])
        start = whole.find(code, start + 1)
    return None
