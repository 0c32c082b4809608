"""Syntax and compilation of what a model wrote: every grammar, nothing that can stop the evaluation."""

import os
import signal

import pytest
from tests.evaluate.metrics_stub import GOLD, TEXT, StubTask, answered, example, measured, outcome, score

from inlay.evaluate import validity as validity_module
from inlay.evaluate.metrics import Judge
from inlay.evaluate.validity import Question, Validity, compile_rule, grammar_rule
from inlay.evaluate.validity_worker import COMPILE, compiles
from inlay.text.syntax_grammars import GRAMMARS

# A text that each grammar takes, and the same with a piece that it does not.
TEXTS = {
    "bash": ("if true; then echo a; fi\n", "if true; then echo a; fi\nif [ ; }\n"),
    "c": ("int f(void) { return 1; }\n", "int f(void) { return (1; }\n"),
    "cpp": ("class A { int x; };\n", "class A { int x; \n"),
    "csharp": ("class A { int F() { return 1; } }\n", "class A { int F() { return (1; } }\n"),
    "css": ("a { color: red; }\n", "a { color: red;\n"),
    "go": ("package a\nfunc f() int { return 1 }\n", "package a\nfunc f() int { return (1 }\n"),
    "html": ("<p>a</p>\n", "<p>a</p></b\n"),
    "java": ("class A { int f() { return 1; } }\n", "class A { int f() { return (1; } }\n"),
    "javascript": ("const a = [1, 2];\n", "const a = [1, 2;\n"),
    "json": ('{"a": [1]}\n', '{"a": [1}\n'),
    "php": ("<?php f(1);\n", "<?php f(1;\n"),
    "python": ("def f():\n    return (1)\n", "def f():\n    return (1\n"),
    "ruby": ("def f\n  1\nend\n", "def f\n  1\n"),
    "rust": ("fn f() -> i32 { 1 }\n", "fn f() -> i32 { (1 }\n"),
    "sql": ("select a from b;\n", "select a from from b where;\n"),
    "tsx": ("const a: number = 1;\n", "const a: number = (1;\n"),
    "typescript": ("const a: number = 1;\n", "const a: number = (1;\n"),
    "yaml": ("a: [1, 2]\n", "a: [1, 2\n"),
}


def test_every_grammar_tells_right_from_wrong() -> None:
    assert set(TEXTS) == set(GRAMMARS)
    questions = [Question(language, text) for language, pair in TEXTS.items() for text in pair]
    with Validity() as validity:
        found = dict(zip(questions, validity.ask(questions), strict=True))
    wrong = {q for q, valid in found.items() if valid != (q.text == TEXTS[q.rule][0])}
    assert not wrong
    assert not validity.killed


def test_rules_follow_language_and_dialect() -> None:
    assert grammar_rule("python", "a.py") == "python"
    assert grammar_rule("python", "a.pyx") is None
    assert grammar_rule("markdown") is grammar_rule(None) is None
    assert compile_rule("python") == COMPILE
    assert compile_rule("java") is compile_rule("python", "a.pyx") is compile_rule(None) is None


def test_compiling_is_silent_and_never_raises(recwarn: pytest.WarningsRecorder) -> None:
    assert compiles('x = "\\d" is 1\n')
    assert not compiles("return 1\n")
    assert not compiles("x = '\0'\n")
    assert not compiles("(" * 5000)
    assert not recwarn.list


def test_hostile_text_is_only_not_valid() -> None:
    hostile = ["(" * 300_000, "x = " + "-" * 500_000 + "1", "\ud800", "x = '\0'", "f(" * 100_000 + ")" * 100_000]
    with Validity() as validity:
        assert validity.ask([Question(COMPILE, text) for text in hostile]) == [False] * len(hostile)
        # Whatever the parser makes of them, the next text is answered.
        validity.ask([Question("python", text) for text in hostile])
        assert validity.ask([Question("python", "x = 1\n"), Question(COMPILE, "x = 1\n")]) == [True, True]


def test_a_compiler_that_crashes_or_hangs_is_replaced_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = (
        "import json, os, signal, sys; sys.path[:] = json.loads(sys.argv.pop())\n"
        "import inlay.evaluate.validity_worker as worker\n"
        "def compiles(text):\n"
        "    if 'boom' in text: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    while 'spin' in text: pass\n"
        "    return 'fine' in text\n"
        "worker.compiles = compiles\n"
        "worker.main()\n"
    )
    monkeypatch.setattr(validity_module, "_START", worker)
    texts = ["fine", "boom", "fine 2", "spin", "wrong", "boom 2", "fine 3"]
    with Validity(workers=1, timeout_seconds=1.0) as validity:
        assert validity.ask([Question(COMPILE, text) for text in texts]) == ["fine" in text for text in texts]
        assert validity.killed == {"crashed": 2, "timed_out": 1}
        # Remembered: not tried, nor counted, again.
        assert validity.ask([Question(COMPILE, "spin")]) == [False]
        assert validity.killed == {"crashed": 2, "timed_out": 1}


def test_a_worker_that_was_killed_between_questions_is_no_fault_of_the_next() -> None:
    with Validity(workers=1) as validity:
        assert validity.ask([Question("json", "1")]) == [True]
        process = validity._processes[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert validity.ask([Question("json", "2")]) == [True]
        assert not validity.killed


def test_no_process_is_left() -> None:
    with Validity() as validity:
        validity.ask([Question("json", "1")])
        process = validity._processes[0]._process
        assert process is not None
    assert process.returncode is not None


def test_equal_texts_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []
    ask = validity_module._Process.ask

    def counted(self: object, question: Question) -> object:
        asked.append(question)
        return ask(self, question)  # type: ignore[arg-type]

    monkeypatch.setattr(validity_module._Process, "ask", counted)
    same = [answered(text, sample=at) for at, text in enumerate([GOLD, GOLD, "height", "height", "((", "(("])]
    with Judge(StubTask()) as judge:
        found = [one.measures["syntax_valid"] for one in (*judge.score(same), *judge.score(same))]
    assert found == [(1.0, 1.0)] * 4 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 4 + [(0.0, 1.0)] * 2
    # Gold, "height" and "((", each by the grammar and by the compiler.
    assert len(asked) == len(set(asked)) == 6


def test_validity_is_measured_where_gold_is_clean() -> None:
    assert measured(answered("((("))["syntax_valid"] == 0
    assert measured(answered("((("))["compiles"] == 0
    broken = example(text=TEXT + "def (:\n")
    assert measured(answered(GOLD, broken))["syntax_valid"] is None
    assert measured(answered(GOLD, broken))["compiles"] is None
    none = measured(answered("(((", example(language="markdown")))
    assert none["syntax_valid"] is none["compiles"] is None
    sql = example("from b", "select a from b;\n", "sql")
    assert measured(answered("from c", sql))["syntax_valid"] == 1
    assert measured(answered("from (((", sql))["syntax_valid"] == 0
    assert measured(answered("from c", sql))["compiles"] is None


def test_what_parses_need_not_compile() -> None:
    found = measured(answered("width * height\nreturn = 1"))
    assert found["compiles"] == 0
    outside = example("    return result", TEXT)
    loose = measured(answered("    return result\nreturn 1", outside))
    assert (loose["syntax_valid"], loose["compiles"]) == (1, 0)


def test_other_languages_compile_where_they_are_run() -> None:
    java = example("1", "class A { int f() { return 1; } }\n", "java")
    assert measured(answered("2", java, raw=outcome(False, compiled=True)))["compiles"] == 1
    assert measured(answered("2", java, raw=outcome(False, compiled=False)))["compiles"] == 0
    assert measured(answered("2", java, raw=outcome(None)))["compiles"] is None


def test_killed_texts_are_told_by_the_judge() -> None:
    with Judge(StubTask()) as judge:
        assert score(answered(GOLD), judge=judge)[0].measures["syntax_valid"] == (1.0, 1.0)
        assert judge.killed == {}
        judge._validity.killed["timed_out"] += 1
        assert judge.killed == {"timed_out": 1}
