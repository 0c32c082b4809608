"""SantaCoder's single lines: its exact match, the line ends that its data has lost, and the tests put together."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.tasks.data_files import place, runs

from inlay.config import BadInput
from inlay.evaluate.task import Example
from inlay.evaluate.tasks.santacoder_fim import SantacoderFimConfig

TASK = SantacoderFimConfig()
RESTORED = SantacoderFimConfig(newlines="restored")
BODY = ["    if n < 2:", "        return n", "    return fib(n - 1) + fib(n - 2)", ""]
TESTS = "def check(candidate):\n    assert candidate(7) == 13\n\n\ncheck(fib)\n"


def built(line: int, language: str = "py") -> dict[str, Any]:
    """A row as the published builder makes it: lines joined before and after the gap, without the line ends around."""
    return {
        "name": f"humaneval-HumanEval_55_fib.json-L{line + 2}",
        "language": language,
        "prompt": "def fib(n):\n" + "\n".join(BODY[:line]),
        "suffix": "\n".join(BODY[line + 1 :]),
        "canonical_solution": BODY[line],
        "tests": TESTS,
    }


def passes(task: SantacoderFimConfig, example: Example, middle: str) -> bool:
    return runs(task.program(example, middle))


def test_an_example_of_the_published_format(tmp_path: Path) -> None:
    one = TASK.examples(place(tmp_path, built(1))).items[0]
    assert one.id == "py/humaneval-HumanEval_55_fib.json-L3"
    assert one.group == "humaneval-HumanEval_55_fib.json"
    assert (one.prefix, one.middle, one.language) == ("def fib(n):\n    if n < 2:", "        return n", "python")


def test_the_gold_passes_although_the_data_has_lost_line_ends(tmp_path: Path) -> None:
    data = place(tmp_path, *(built(line) for line in range(3)))
    for task in (TASK, RESTORED):
        for one in task.examples(data).items:
            assert passes(task, one, one.middle)
            assert not passes(task, one, "    return 0")
    # As published, the three texts one after the other are no program but where the gap is the first line; restored,
    # they are.
    assert [_compiles(one.document) for one in TASK.examples(data).items] == [True, False, False]
    assert [_compiles(one.document) for one in RESTORED.examples(data).items] == [True, True, True]


def _compiles(text: str) -> bool:
    try:
        compile(text, "x.py", "exec")
    except SyntaxError:
        return False
    return True


def test_an_answer_with_or_without_the_line_ends_is_the_same_program(tmp_path: Path) -> None:
    one = TASK.examples(place(tmp_path, built(1))).items[0]
    forms = ["        return n", "\n        return n", "        return n\n", "\n        return n\n"]
    assert all(passes(TASK, one, form) for form in forms)
    assert [TASK.measures(one, form)["matched"] for form in forms] == [(1.0, 1.0)] * 4


@given(st.text(), st.text(max_size=5), st.text(max_size=5))
def test_matched_is_the_harness_s_definition(gold: str, before: str, after: str) -> None:
    one = Example("i", "g", "line", "", gold, "", language="python", details={"tests": "x"})
    text = before + gold + after
    assert TASK.measures(one, text)["matched"] == (float(text.strip() == gold.strip()), 1.0)


def test_stop_words_are_cut() -> None:
    one = Example("i", "g", "line", "", "x = 1", "", language="python", details={"tests": "x"})
    assert TASK.postprocess(one, "x = 1<|endoftext|>y<|filename|>") == "x = 1"
    assert TASK.postprocess(one, "x = 1<file_sep>y<|endoftext|>") == "x = 1"
    assert TASK.measures(one, "x = 1\n<|endoftext|>")["matched"] == (1.0, 1.0)
    assert TASK.measures(one, "x = 2<|endoftext|>")["matched"] == (0.0, 1.0)


JAVA = {
    "name": "humaneval-HumanEval_55_fib.json-L12",
    "language": "java",
    "prompt": "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n    public static long f(long n) {",
    "canonical_solution": "        return n;",
    "suffix": "    }\n}",
    "tests": "    }\n    public static void main(String[] args) {\n    assert(f(1l) == 1l);\n    }\n\n}\n",
}


def test_java_s_main_comes_into_the_class(tmp_path: Path) -> None:
    one = TASK.examples(place(tmp_path, JAVA)).items[0]
    program = TASK.program(one, one.middle)
    assert program is not None
    assert program.file == "Problem.java"
    assert "".join(program.source.split()) == (
        "importjava.util.*;classProblem{publicstaticlongf(longn){returnn;}"
        "publicstaticvoidmain(String[]args){assert(f(1l)==1l);}}"
    )
    # A gap at the class's end still decides whether the file is one.
    end = TASK.examples(place(tmp_path, JAVA | {"suffix": "    }", "canonical_solution": "}"})).items[0]
    broken = TASK.program(end, "")
    assert broken is not None
    assert broken.source.count("{") != broken.source.count("}")


def test_java_that_needs_a_library_is_not_measured(tmp_path: Path) -> None:
    one = TASK.examples(place(tmp_path, JAVA | {"tests": JAVA["tests"].replace("1l)", "Pair.with(1l)")})).items[0]
    assert TASK.program(one, one.middle) is None


def test_names_repeat_between_languages_only(tmp_path: Path) -> None:
    rows = [built(0), built(0, "js")]
    assert [one.id[:3] for one in TASK.examples(place(tmp_path, *rows)).items] == ["py/", "js/"]
    assert len({one.group for one in TASK.examples(place(tmp_path, *rows)).items}) == 1
    with pytest.raises(BadInput, match="comes twice"):
        TASK.examples(place(tmp_path, built(0), built(0)))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"language": "rs"}, r"rows\.jsonl, line 1: field 'language' = 'rs' is none of py, java, js"),
    ({"tests": " "}, "field 'tests' is empty"),
    ({"suffix": 3}, "field 'suffix' is a number, not a text"),
    ({"name": ""}, "field 'name' is empty"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_one_line_for_a_wrong_row(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=expected):
        TASK.examples(place(tmp_path, built(0) | changes))
