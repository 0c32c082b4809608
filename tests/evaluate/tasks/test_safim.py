"""SAFIM: its format, its three ways of shortening an answer, and its scorer with and without the faults."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.tasks.data_files import place

from inlay.config import BadInput
from inlay.evaluate.safim_rules import (
    MOST_CHARACTERS,
    MOST_LINES,
    calls_match,
    calls_match_original,
    shortened_block,
    shortened_call,
    shortened_control,
)
from inlay.evaluate.sandbox.program import Case
from inlay.evaluate.task import Place
from inlay.evaluate.tasks.safim import SafimConfig

TASK = SafimConfig()
TESTS = [{"input": "3\n", "output": ["6\n"]}, {"input": "0\n", "output": ["0\n", "0"]}]


def row(**changes: Any) -> dict[str, Any]:
    start = {
        "task_id": "block_completion_000007",
        "lang": "python",
        "prompt": "Doubles n.\n\nn = int(input())\nif n:\n    # TODO: Your code here\nprint(n)\n",
        "eval_prompt": "n = int(input())\nif n:\n    {{completion}}\nprint(n)\n",
        "ground_truth": "n *= 2",
        "unit_tests": json.dumps(TESTS),
    }
    return start | changes


def test_an_example_of_the_published_format(tmp_path: Path) -> None:
    (one,) = TASK.examples(place(tmp_path, row())).items
    assert (one.id, one.category, one.language) == ("block_completion_000007", "block", "python")
    assert one.prefix == "Doubles n.\n\nn = int(input())\nif n:\n    "
    assert (one.middle, one.suffix) == ("n *= 2", "\nprint(n)\n")
    program = TASK.program(one, "n += n")
    assert program is not None
    assert program.source == "n = int(input())\nif n:\n    n += n\nprint(n)\n"
    assert program.cases == (Case("3\n", "6\n"), Case("0\n", "0\n"))
    assert TASK.measures(one, "n *= 2") == {"matched": None, "matched_raw": None, "matched_original": None}


def test_tests_may_be_a_list_already(tmp_path: Path) -> None:
    (one,) = TASK.examples(place(tmp_path, row(unit_tests=TESTS))).items
    assert TASK.program(one, "") is not None


def test_several_right_outputs_are_not_measured(tmp_path: Path) -> None:
    (one,) = TASK.examples(place(tmp_path, row(unit_tests=[{"input": "", "output": ["1", "2"]}]))).items
    assert TASK.program(one, "") is None


def test_the_mode_comes_from_the_file_or_the_id_or_the_option(tmp_path: Path) -> None:
    plain = row(task_id="7")
    (one,) = TASK.examples(place(tmp_path, row(), name="block_completion_v2.jsonl")).items
    assert one.category == "block_v2"
    with pytest.raises(BadInput, match="does not tell the mode"):
        TASK.examples(place(tmp_path, plain))
    assert SafimConfig(mode="control").examples(place(tmp_path, plain)).items[0].category == "control"
    with pytest.raises(BadInput, match="no rows of mode=api: it has 1 of block"):
        SafimConfig(mode="api").examples(place(tmp_path, row()))


def test_gaps_of_one_program_are_one_group(tmp_path: Path) -> None:
    other = row(
        task_id="control_completion_000001",
        prompt="n = int(input())\nif # TODO: Your code here\n    n *= 2\nprint(n)\n",
        eval_prompt="n = int(input())\nif {{completion}}\n    n *= 2\nprint(n)\n",
        ground_truth="n:",
    )
    listed = TASK.examples(place(tmp_path, row(), other)).items
    assert len({one.group for one in listed}) == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"lang": "go"}, "field 'lang' = 'go' is none of python, java, cpp, csharp"),
    ({"prompt": "n = 1\n"}, "field 'prompt' has 0 times '# TODO: Your code here'"),
    ({"eval_prompt": "{{completion}} {{completion}}"}, "field 'eval_prompt' has 2 times"),
    ({"unit_tests": "[]"}, "field 'unit_tests' has no tests"),
    ({"unit_tests": "[{"}, "field 'unit_tests' holds broken JSON"),
    ({"unit_tests": '[{"input": ""}]'}, r"'unit_tests\[0\]': field 'output' is missing"),
    ({"unit_tests": '[{"input": "", "output": []}]'}, "field 'output' is an empty list"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_one_line_for_a_wrong_row(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=expected) as error:
        TASK.examples(place(tmp_path, row(**changes)))
    assert "\n" not in str(error.value)


PYTHON = ("while n != 1:\n    ", "\nprint(n)\n")
JAVA = ("class A { void f(int n) { while (n > 0) {\n", "\n} } }\n")

BLOCKS: list[tuple[str, tuple[str, str], str, str]] = [
    # What stays whole.
    ("python", PYTHON, "n -= 1", "n -= 1"),
    ("python", PYTHON, "if n % 2:\n        n += 1\n    n //= 2", "if n % 2:\n        n += 1\n    n //= 2"),
    ("java", JAVA, "n--;", "n--;"),
    ("java", JAVA, "if (n > 3) { n = 1; }\nn--;\n", "if (n > 3) { n = 1; }\nn--;\n"),
    # Lines after the block go: what leaves the loop changes the tree around it.
    ("python", PYTHON, "n -= 1\nprint(n)\n", "n -= 1\n"),
    ("python", PYTHON, "n -= 1\n    print(n)\nfor i in n:\n    x = 1", "n -= 1\n    print(n)\n"),
    ("java", JAVA, "n--;\n}\n", "n--;\n"),
    ("java", JAVA, "n--;\n}\nn++;\nif (n > 2) {\nn = 1;", "n--;\n"),
    # The rule's blind spot: a second statement of the same shape goes unseen.
    ("java", JAVA, "n--;\n} while (n < 9) {\nn++;\n", "n--;\n} while (n < 9) {\nn++;\n"),
    # A line that does not parse goes, and all after it.
    ("python", PYTHON, "n -= 1\n    x = = 2\n    n = 2", "n -= 1\n"),
    ("java", JAVA, "n--;\nint x = ;\nn++;\n", "n--;\n"),
    ("java", JAVA, "int x = (((", ""),
    # An error that is a lone semicolon is let pass.
    ("java", JAVA, "f(1;);\n", "f(1;);\n"),
    ("python", PYTHON, "n -= 1;;\n", "n -= 1;;\n"),
    ("python", PYTHON, "", ""),
]


@pytest.mark.parametrize(("language", "around", "text", "expected"), BLOCKS)
def test_a_block_is_shortened(language: str, around: tuple[str, str], text: str, expected: str) -> None:
    assert shortened_block(language, *around, text) == expected


def test_a_block_in_a_program_that_does_not_parse_is_only_asked_to_parse() -> None:
    # With an empty gap `x = ` is no Java, so there is no tree to compare with.
    around = ("class A { int x = ", "; }")
    assert shortened_block("java", *around, "1\n+ 2\n)\n") == "1\n+ 2\n"


def test_an_endless_answer_is_cut_before_it_is_parsed() -> None:
    assert shortened_block("java", *JAVA, "n--;\n" * 100_000) == "n--;\n" * MOST_LINES
    assert shortened_block("java", *JAVA, "n--;" * 100_000) == ("n--;" * 100_000)[:MOST_CHARACTERS]
    assert not calls_match("python", "f(" + "x," * 300_000 + ")", "f(x)")
    assert not calls_match_original("python", "f(" + "x," * 300_000 + ")", "f(x)")


def test_control_flow_is_shortened() -> None:
    assert shortened_control("python", "\n  \n  x in y:\n    z = 1\n") == "  x in y:"
    assert shortened_control("python", "") == ""
    assert shortened_control("java", "f(a) && (b)) { x(); }") == "f(a) && (b)"
    assert shortened_control("cpp", "int i = 0; i < f(n); i++") == "int i = 0; i < f(n); i++"
    assert shortened_control("csharp", ") {") == ""


def test_calls_are_shortened() -> None:
    assert shortened_call("np.ones((n, n)).sum()\nprint(1)") == "np.ones((n, n))"
    assert shortened_call(") x") == ")"
    assert shortened_call("f(a, (b)") == "f(a, (b)"


@given(st.text(alphabet="a()\n; ", max_size=40), st.sampled_from(["java", "cpp", "csharp"]))
def test_shortening_gives_a_beginning_and_shortens_no_more_the_second_time(text: str, language: str) -> None:
    for rule in (lambda one: shortened_control(language, one), shortened_call):
        short = rule(text)
        assert text.startswith(short)
        assert rule(short) == short
    short = shortened_block(language, "void f() {", "}", text)
    assert text.startswith(short)
    assert shortened_block(language, "void f() {", "}", short) == short


MATCHES: list[tuple[str, str, str, bool, bool]] = [
    # language, answer, gold, the scorer without its faults, the published one
    ("python", "np.zeros((n, n))", "np.ones((n, n))", False, True),
    ("python", "f('a b')", "f('ab')", False, True),
    ("python", "f(not x)", "f(notx)", False, True),
    ("python", "np.ones( (n,n) )", "np.ones((n, n))", True, True),
    ("python", "f(b=1, a=2)", "f(a=2, b=1)", True, True),
    ("python", "f(1, 2)", "f(2, 1)", False, False),
    ("python", "f(**a, b=1)", "f(b=1, **a)", False, True),
    ("python", "f(x", "f( x", True, True),
    ("python", "f(x", "g(x", False, False),
    ("java", "new A( b )", "new A(b)", True, True),
    ("java", "newA(b)", "new A(b)", False, True),
    ("java", 'f("a  b")', 'f("a b")', False, True),
    ("java", 'f("a \\" b" )', 'f("a \\" b")', True, True),
    ("cpp", "std::max(a, b)", "std :: max(a,b)", True, True),
    ("cpp", "f(a ++b)", "f(a + +b)", False, True),
    ("csharp", "F(a)", "G(a)", False, False),
]


@pytest.mark.parametrize(("language", "text", "gold", "fixed", "original"), MATCHES)
def test_the_scorer_with_and_without_its_faults(
    language: str, text: str, gold: str, fixed: bool, original: bool
) -> None:
    assert calls_match(language, text, gold) is fixed
    assert calls_match_original(language, text, gold) is original
    assert calls_match(language, gold, text) is fixed
    assert calls_match(language, gold, gold)


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["python", "java"]))
def test_no_text_is_too_strange_for_the_scorer(text: str, gold: str, language: str) -> None:
    assert calls_match(language, text, text)
    assert calls_match_original(language, text, text)
    calls_match(language, text, gold)


@pytest.mark.parametrize("text", ["(" * 5000, "f(" * 2000 + ")" * 2000, "\0", "\ud800", "f(\n" * 40])
def test_hostile_texts_are_only_wrong(text: str) -> None:
    one = next(one for one in TASK.examples(Place()).items if one.category == "api" and one.language == "python")
    assert TASK.measures(one, text) == {
        "matched": (0.0, 1.0), "matched_raw": (0.0, 1.0), "matched_original": (0.0, 1.0),
    }  # fmt: skip
    for example in TASK.examples(Place()).items:
        assert isinstance(TASK.postprocess(example, text), str)


def test_measures_tell_raw_from_post() -> None:
    one = next(one for one in TASK.examples(Place()).items if one.category == "api" and one.language == "java")
    measured = TASK.measures(one, one.middle + ";\n        int more = 1;")
    assert measured == {"matched": (1.0, 1.0), "matched_raw": (0.0, 1.0), "matched_original": (1.0, 1.0)}


def test_the_sample_has_every_mode_and_language() -> None:
    listed = TASK.examples(Place()).items
    assert {one.category for one in listed} == {"block", "block_v2", "control", "api"}
    for mode in ("block", "control", "api"):
        assert {one.language for one in listed if one.category == mode} == {"python", "java", "cpp", "csharp"}
