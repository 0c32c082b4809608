"""Equality, loops, copies and indentation: cases whose answer is plain, and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.metrics_stub import answered, example, measured

from inlay.evaluate.metrics.indentation import indented_as_gold, indents
from inlay.evaluate.metrics.match import bigcode_equal, first_line, matches, qwen_line
from inlay.evaluate.metrics.stopping import copies_suffix, loops

CODE = st.text(alphabet="ab \t\n\r(", max_size=24)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a = 1\nb = 2", "a = 1"),
        ("  a = 1  \n", "a = 1"),
        ("\na = 1\nb", "a = 1"),
        (" \n  a\nb", "a"),
        ("  \na", ""),
        ("\n\na", ""),
        ("\r\na", ""),
        ("", ""),
        ("\n", ""),
    ],
)
def test_the_line_that_qwen_keeps(text: str, kept: str) -> None:
    # Witness: its rule, read branch by branch.
    lines = text.split("\n")
    if text.startswith(("\n", " \n")):
        assert lines[1].strip() == kept
    else:
        assert lines[0].strip() == kept
    assert qwen_line(text) == kept


def test_qwen_is_measured_where_gold_passes() -> None:
    several = example("x = 1\ny = 2\n", "x = 1\ny = 2\n")
    assert measured(answered("x = 1\ny = 2\n", several))["exact_qwen"] is None
    single = example("x = 1\n", "x = 1\ny = 2\n")
    assert measured(answered("\nx = 1\nmore", single))["exact_qwen"] == 1
    assert measured(answered("\nx = 1\nmore", single))["exact_bigcode"] == 0
    assert measured(answered("x = 2", single))["exact_qwen"] == 0


def test_a_rule_that_leaves_nothing_of_gold_makes_nobody_right() -> None:
    assert matches("wrong", "gold", "", "")["exact_post"] == (0.0, 1.0)
    assert matches("gold", "gold", "gold", "")["exact_post"] == (1.0, 1.0)
    assert matches("", "", "", "")["exact_post"] == (1.0, 1.0)
    assert matches("wrong", "gold", "g", "g")["exact_post"] == (1.0, 1.0)
    assert matches("wrong", "gold", "g", "gg")["edit_similarity_post"] == (0.5, 1.0)


@given(text=CODE, gold=CODE)
def test_what_is_exact_is_exact_by_every_definition(text: str, gold: str) -> None:
    found = matches(text, gold, text, gold)
    if text == gold:
        assert all(measure in (None, (1.0, 1.0)) for measure in found.values())
    if found["exact"] == (0.0, 1.0):
        assert found["edit_similarity"] != (1.0, 1.0)
    assert bigcode_equal(text, gold) == (text.strip() == gold.strip())
    assert "\n" not in first_line(text) and "\r" not in first_line(text)  # noqa: PT018


@given(head=CODE, piece=st.text(alphabet="abc\n", min_size=1, max_size=30), times=st.integers(1, 6))
def test_loops_is_periodicity_of_the_end(head: str, piece: str, times: int) -> None:
    text = head + piece * times
    # Witness: the definition, piece by piece, without slices that overlap.
    by_definition = any(text.endswith(text[len(text) - size :] * 3) for size in range(4, 81) if 3 * size <= len(text))
    assert loops(text) == by_definition
    if times >= 3 and len(piece) >= 4:
        assert loops(text)


def test_loops_by_example() -> None:
    assert loops("start " + "abcd" * 3)
    assert loops("x, y, " * 9)
    assert not loops("abcdabcd")
    assert not loops("every word is another one here")
    assert not loops("")


def test_copies_of_the_suffix() -> None:
    suffix = "\n\n    return result\nmore"
    assert copies_suffix("x = 1\n    return result\n\n", "x = 1\n", suffix) is True
    assert copies_suffix("x = 1\n    return result + 1", "x = 1\n", suffix) is False
    assert copies_suffix("return result", "y\nreturn result", suffix) is None
    assert copies_suffix("x)", "y", ")\nreturn result") is None
    assert copies_suffix("x", "y", " \n\n") is None


BODY = "def f():\n    if x:\n        a()\n    b()\n"
INDENTED = {
    # gap at a line's start
    "right": ("        a()\n", "        c()\n", True),
    "one deeper": ("        a()\n", "            c()\n", False),
    "more lines than gold": ("        a()\n", "        c()\nd()\n", True),
    "fewer lines": ("        a()\n    b()\n", "        c()\n", True),
    "second line wrong": ("        a()\n    b()\n", "        c()\n        d()\n", False),
    "blank lines aside": ("        a()\n    b()\n", "\n        c()\n   \n    d()\n", True),
    "only blank lines": ("        a()\n", "\n\n", False),
    "carriage returns": ("        a()\n    b()\n", "        c()\r\n    d()\r\n", True),
    # gap inside a line: its first line was indented before the gap
    "within a line": ("()", "  ()", None),
    "over a line end": ("f():\n    if", "g():\n    for", True),
    "over a line end, wrong": ("f():\n    if", "g():\n  for", False),
    "over a line end, not taken": ("f():\n    if", "g", False),
    # gap between a line's indentation and its text
    "indented twice": ("a()", "    c()", False),
    # the last line's indentation is the gap's, its text the suffix's
    "ends in indentation": ("a()\n    ", "c()\n    ", True),
    "ends in other indentation": ("a()\n    ", "c()\n  ", False),
}


@pytest.mark.parametrize("case", INDENTED)
def test_indentation(case: str) -> None:
    gold, text, right = INDENTED[case]
    gap = example(gold, BODY)
    assert indented_as_gold(text, gold, gap.prefix, gap.suffix) is right
    assert indented_as_gold(gold, gold, gap.prefix, gap.suffix) in (True, None)


def test_a_gap_inside_the_indentation_owns_the_rest_of_it() -> None:
    assert indents("  x\n", "def f():\n  ", "") == ["  "]
    assert indents("x = 1", "y; ", "\n") == []
    assert indents("", "", "x") == []


@given(text=CODE, gold=CODE, prefix=CODE, suffix=CODE)
def test_indentation_never_raises_and_gold_is_right(text: str, gold: str, prefix: str, suffix: str) -> None:
    assert indented_as_gold(gold, gold, prefix, suffix) in (True, None)
    found = indented_as_gold(text, gold, prefix, suffix)
    assert (found is None) == (not indents(gold, prefix, suffix))
