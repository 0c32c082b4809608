"""Causes and details, from made-up ends of runs: no process is started here."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.evaluate.sandbox import Case, Program
from inlay.evaluate.sandbox.steps import Ran, Step
from inlay.evaluate.sandbox.verdict import compile_failure, judge, plain, same_output, telling_line

STEP = Step(("x",), "exec", (), b"", 3.0, 1 << 30, 0, 32, 1 << 20, 1 << 20, 1 << 20, 100)
PASSED = Ran(0, None, 0.1, 0, 0, True, True, b"", b"", b"s+")
PROGRAM = Program("python", "")


def cause(ran=PASSED, case=PROGRAM.cases[0], program=PROGRAM, **changes):
    return judge(dataclasses.replace(ran, **changes), STEP, case, program)


def test_an_end_with_the_number_and_status_0_passes():
    assert cause() == ("passed", True, "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ended": False}, "left_early"),
        ({"status": 1}, "error"),
        ({"status": -11}, "crash"),
        ({"status": 139}, "crash"),
        ({"status": 153}, "file_size"),
        ({"status": -25}, "file_size"),
        ({"killed": "timeout"}, "timeout"),
        ({"killed": "memory"}, "memory"),
        ({"killed": "output"}, "output"),
        ({"killed": "processes"}, "processes"),
        ({"killed": "files"}, "file_size"),
        ({"status": 1, "processes": 32}, "processes"),
        ({"status": 1, "result": b"s+-wrong AssertionError (line 1)"}, "wrong"),
        ({"status": 1, "result": b"s+-memory MemoryError (line 1)"}, "memory"),
        ({"status": 1, "result": b"s+-error KeyError (line 1)", "stderr": b"AssertionError"}, "error"),
        ({"status": 1, "result": b"s+-passed it says (line 1)"}, "error"),
        ({"status": 1, "result": b"s!SyntaxError: bad"}, "compile"),
        ({"status": 134, "stderr": b"a.out: main.c:3: main: Assertion `0' failed."}, "wrong"),
        ({"status": 101, "stderr": b"thread 'main' panicked at a.rs:2:\nassertion `left == right` failed"}, "wrong"),
        ({"status": 1, "stderr": b"java.lang.OutOfMemoryError: Java heap space"}, "memory"),
        ({"status": 134, "stderr": b"terminate called after 'std::bad_alloc'"}, "memory"),
        ({"status": 1, "stderr": b"sh: fork: Resource temporarily unavailable"}, "processes"),
        ({"status": 1, "stderr": b"write error: No space left on device"}, "file_size"),
        ({"status": 1, "result": b"s?", "stderr": b"x.mjs:1\n\nSyntaxError: bad"}, "compile"),
    ],
)
def test_causes(changes, expected):
    found, _, detail = cause(**changes)
    assert found == expected
    assert detail


def test_a_number_beside_a_status_does_not_pass():
    assert cause(status=1)[0] != "passed"
    assert cause(killed="timeout")[0] != "passed"


def test_expected_output_decides_and_a_bad_status_spoils_it():
    case = Case("", "1 2\n")
    assert cause(case=case, ended=False, stdout=b"1  2")[0] == "passed"
    assert cause(case=case, ended=False, stdout=b"1 2", status=3)[0] == "error"
    found, _, detail = cause(case=case, stdout=b"1 3")
    assert (found, detail) == ("wrong", "printed '1 3', expected '1 2'")


@given(st.text(), st.text())
def test_exact_output_is_equal_bytes(printed, expected):
    exact = Program("python", "", compare="exact")
    data = printed.encode("utf-8", "surrogatepass")
    assert same_output(data, expected, exact) == (printed == expected)
    assert same_output(expected.encode("utf-8", "surrogatepass"), expected, exact)


@given(st.lists(st.text("ab1", min_size=1)), st.sampled_from([" ", "\n", " \n ", "\t"]))
def test_tokens_do_not_mind_white_space(words, between):
    assert same_output(between.join(words).encode() + b"\n", " ".join(words), PROGRAM)
    assert not same_output(between.join([*words, "more"]).encode(), " ".join(words), PROGRAM)


@given(st.text())
def test_plain_is_one_short_line_that_prints(text):
    line = plain(text)
    assert len(line) <= 300
    assert line.isprintable()
    if text.isprintable() and len(text) <= 300:
        assert line == text.strip()


def test_control_characters_are_shown_escaped():
    assert plain("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb"


def test_the_line_that_says_why():
    assert telling_line(b"at x\nTypeError: no\n  at y\nNode.js v20\n") == "TypeError: no"
    assert telling_line(b"one\ntwo\n\n") == "two"
    assert telling_line(b"\xff\xfe error") == "\ufffd\ufffd error"
    assert telling_line(b"") == ""


def test_compilations_that_fail():
    ran = dataclasses.replace(PASSED, status=1, stderr=b"In function main:\nx.c:1: error: no\n1 error\n")
    assert compile_failure(ran, STEP) == ("compile", "x.c:1: error: no")
    assert compile_failure(dataclasses.replace(ran, killed="timeout"), STEP) == (
        "timeout",
        "the compiler was stopped: more than 3 s",
    )
    assert compile_failure(dataclasses.replace(ran, stderr=b""), STEP)[1] == "the compiler left with status 1"
