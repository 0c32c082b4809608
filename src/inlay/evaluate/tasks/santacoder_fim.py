"""The task `santacoder_fim`: single lines taken out of MultiPL-E solutions in Python, Java and JavaScript.

It decides two scores: the published one (equal after both texts are stripped) and the tests that come with the data,
which its harness never runs. The data has lost the line ends around the gap (its builder joins the lines before and
after it without them): `newlines` chooses between the texts as published and the program as it was, and tests are run
on the program either way. It refuses languages other than these three.
"""

import re
from typing import Literal

from pydantic import Field

from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.rows import Row, mixed, read_rows, unique
from inlay.evaluate.sandbox.program import Limits, Program
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks

_LANGUAGES = {"py": ("python", ".py"), "java": ("java", ".java"), "js": ("javascript", ".js")}
"""The data's name of a language, ours, and the ending of a file."""
_STOP_WORDS = ("<|endoftext|>", "<|filename|>", "<file_sep>")
_LINE = re.compile(r"-L\d+$")
_TUPLES = re.compile(r"\b(?:Unit|Pair|Triplet|Quartet|Quintet)\b")
_TUPLES_IMPORT = "import org.javatuples.*;"


@tasks.register
class SantacoderFimConfig(TaskConfig):
    """SantaCoder's single-line infilling: exact match, and the tests that its harness leaves unused."""

    EXECUTES = True
    POST = "cut at the first of the harness's stop words, if they come as text (bigcode-evaluation-harness)"
    CITATION = "Ben Allal et al. 2023, SantaCoder: don't reach for the stars!, arXiv 2301.03988"
    METRICS = (
        Metric(
            "matched",
            "EM stripped",
            "after post-processing, equal to the gold once both are stripped (bigcode-evaluation-harness)",
            "high",
            gold=1.0,
        ),
    )

    kind: Literal["santacoder_fim"] = "santacoder_fim"
    max_tokens: int = Field(128, ge=1, le=1 << 24)
    newlines: Literal["published", "restored"] = "published"
    """Whether the model sees the texts as published, without the line ends before and after the gap, or with them."""
    seconds: float = Field(10.0, gt=0, le=3600.0)
    """Time limit of one answer's tests, start of the Java machine included."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        rows = read_rows(place, "santacoder_fim")
        items = [self._example(row) for row in rows.rows]
        unique(zip((example.id for example in items), rows.rows, strict=True))
        items = mixed(items)
        return Examples(items[:limit], len(items), rows.source, rows.hash, rows.sample)

    def postprocess(self, example: Example, text: str) -> str:
        return text[: min((at for word in _STOP_WORDS if (at := text.find(word)) >= 0), default=len(text))]

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        return {"matched": share(self.postprocess(example, text).strip() == example.middle.strip())}

    def program(self, example: Example, middle: str) -> Program | None:
        tests = example.details["tests"]
        source = _as_lines(example.prefix, middle, example.suffix)
        file = None
        if example.language == "java":
            if _TUPLES.search(example.document) or _TUPLES.search(tests):
                # The library that these need is not part of Java: "not measured", never "failed".
                return None
            source = _with_main(source.replace(_TUPLES_IMPORT, ""), tests)
            file = "Problem.java"
        else:
            source = f"{source}\n{tests}\n"
        return Program(str(example.language), source, limits=Limits(seconds=self.seconds), file=file)

    def _example(self, row: Row) -> Example:
        name, short = row.filled("name"), row.filled("language")
        if short not in _LANGUAGES:
            row.refuse("language", f"= '{short}' is none of {', '.join(_LANGUAGES)}")
        language, ending = _LANGUAGES[short]
        prefix, middle, suffix = row.text("prompt"), row.text("canonical_solution"), row.text("suffix")
        if self.newlines == "restored":
            prefix = prefix if _ended(prefix) else prefix + "\n"
            suffix = suffix if _ended(middle) or not suffix else "\n" + suffix
        problem = _LINE.sub("", name)
        return Example(
            # A problem's line has the same name in every language.
            id=f"{short}/{name}",
            group=problem,
            category="line",
            prefix=prefix,
            middle=middle,
            suffix=suffix,
            path="Problem.java" if short == "java" else f"problem{ending}",
            language=language,
            details={"tests": row.filled("tests")},
        )


def _ended(text: str) -> bool:
    return not text or text.endswith("\n")


def _as_lines(prefix: str, middle: str, suffix: str) -> str:
    """The program, with the line ends around the gap that the data has lost."""
    before = "" if _ended(prefix) or middle.startswith("\n") else "\n"
    after = "" if _ended(middle) or suffix.startswith("\n") or not suffix else "\n"
    return f"{prefix}{before}{middle}{after}{suffix}"


def _with_main(source: str, tests: str) -> str:
    """A Java class with the tests' `main` in it.

    The tests were written to follow a method whose last bracket is theirs, and close the class; the data's programs are
    whole classes, so both brackets go and `main` stands before the class's last.
    """
    main = tests.strip()
    main = main[1:] if main.startswith("}") else main
    if main.count("}") > main.count("{"):
        main = main[: main.rindex("}")]
    end = source.rfind("}")
    return f"{source}\n{main}" if end < 0 else f"{source[:end]}\n{main}\n{source[end:]}"
