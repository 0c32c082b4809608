"""Public harnesses' rules by example, against a plain reading of each, and what they do to gold."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.metrics_stub import GOLD, LINE, TEXT, StubTask, answered, example

from inlay.evaluate.harnesses import PUBLIC, compare, harnesses
from inlay.evaluate.metrics.match import qwen_equal
from inlay.evaluate.task import Example
from inlay.text.syntax_grammars import GRAMMARS
from inlay.text.syntax_walk import Walker

BY_NAME = {harness.name: harness for harness in harnesses(StubTask())}
JAVA = "class A { void f() { int a = g(1); } }\n"
CALL = "import numpy as np\na = np.ones((3, 3))\n"


def kept(name: str, text: str, of: Example) -> str:
    return BY_NAME[name].post(of, text)


@pytest.mark.parametrize(
    ("name", "text", "keeps"),
    [
        ("raw", LINE + "more\n", LINE + "more\n"),
        ("human_eval_infilling", LINE + "more\n", LINE + "more\n"),
        ("post", LINE + "more\n", LINE[:-1]),
        ("lm_eval", LINE + "more\n", LINE[:-1]),
        ("lm_eval", "\n" + LINE, ""),
        ("lm_eval", "a\rb\x0c\n", "a\rb\x0c"),
        ("bigcode", "\n" + LINE + "more\n", LINE.strip() + "\nmore"),
        ("qwen", "\n" + LINE + "more\n", LINE.strip()),
        ("safim_control", "\n \n" + LINE + "more\n", LINE[:-1]),
        ("safim_api", "f(g(1), 2).h(3)", "f(g(1), 2)"),
        ("safim_api", "no call", "no call"),
        ("cross_code_eval", LINE + "    more = 1\n", LINE[:-1]),
        ("cross_code_eval", "    x = (\n        1)\n    y = 2\n", "    x = (\n        1)"),
        ("cross_code_eval", "    x = (\n", "    x = (\n"),
        ("cross_code_eval", "\n    x = 1\n    y = 2\n", "\n    x = 1"),
    ],
)
def test_what_each_harness_keeps_of_a_line(name: str, text: str, keeps: str) -> None:
    assert kept(name, text, example(LINE)) == keeps


def test_what_safim_keeps_of_a_block() -> None:
    assert kept("safim_block", "result = 2\n    )", example(LINE.strip())) == "result = 2\n"
    assert kept("safim_block", "result = 2\n    )", example(LINE.strip(), language="sql")) == "result = 2\n    )"


@pytest.mark.parametrize(
    ("name", "text", "keeps"),
    [
        ("cross_code_eval", "g(2); h(3); }", "g(2);"),
        ("cross_code_eval", "; g(2);", "; g(2);"),
        ("cross_code_eval", "g(2)", "g(2)"),
        ("safim_control", "g(1)); }", "g(1)"),
        ("safim_api", "g(1)); }", "g(1)"),
    ],
)
def test_what_each_harness_keeps_of_a_java_call(name: str, text: str, keeps: str) -> None:
    assert kept(name, text, example("g(1)", JAVA, "java")) == keeps


@pytest.mark.parametrize(
    ("name", "text", "gold", "right"),
    [
        ("raw", "x ", "x", False),
        ("lm_eval", "x", "x\n", False),
        ("bigcode", "\n x\n", "x ", True),
        ("bigcode", "x\ny", "x", False),
        ("qwen", "x", "  x\n", True),
        ("safim_api", "f(1,  2)", "f(1, 2)", True),
        ("safim_api", 'f("a b")', 'f("ab")', True),
        ("safim_api", "f(1)", "g(1)", False),
        ("cross_code_eval", "x = 1  # one\n\n", "x = 1", True),
        ("cross_code_eval", 'x = "a#b"', 'x = "a#c"', True),
        ("cross_code_eval", "x = 1", "x = 2", False),
    ],
)
def test_what_each_harness_calls_equal(name: str, text: str, gold: str, right: bool) -> None:
    assert BY_NAME[name].equal(text, gold) is right


@settings(max_examples=40, deadline=None)
@given(text=st.text("x =(1)\n ", max_size=16))
def test_the_statement_is_the_one_a_scan_of_every_character_finds(text: str) -> None:
    gap = example(LINE)
    walker = Walker(GRAMMARS["python"])

    def unbroken(code: str) -> bool:
        waiting = [walker.parse(code.encode()).root_node]
        while waiting:
            node = waiting.pop()
            if node.type == "ERROR":
                return False
            waiting += node.children
        return True

    expected = text
    for at in range(len(text) - 1):
        if unbroken(gap.prefix + text[: at + 1]) and text[at + 1] == "\n":
            expected = text[: at + 1].rstrip()
            break
    assert kept("cross_code_eval", text, gap) == expected


@given(text=st.text("ab \n", max_size=12), gold=st.text("ab \n", max_size=12))
def test_qwen_is_the_metric_of_that_name(text: str, gold: str) -> None:
    harness = BY_NAME["qwen"]
    assert harness.equal(harness.post(example(GOLD), text), gold) == qwen_equal(text, gold)


def lines() -> list[Example]:
    """Every line of a small program, taken out with its newline as public benchmarks do."""
    body = "    result = width * height\n    if result > 3:\n        result = 3\n    return result\n"
    text = "def area(width, height):\n" + body
    return [example(line, text, name=line, group=line) for line in body.splitlines(keepends=True)]


def test_a_rule_that_edits_gold_is_seen_at_gold() -> None:
    rows = {row["name"]: row for row in compare([answered(one.middle, one) for one in lines()], StubTask())}
    assert list(rows) == ["raw", "post", *(harness.name for harness in PUBLIC)]
    for name in ("raw", "human_eval_infilling"):
        assert rows[name]["gold_exact"]["value"] == rows[name]["gold_valid"]["value"] == 1.0
    # The newline that lm-eval drops joins two lines: that is Python at the end, and behind a colon.
    assert rows["lm_eval"]["gold_exact"]["value"] == 0.0
    assert rows["lm_eval"]["gold_valid"]["value"] == 0.5
    assert rows["bigcode"]["gold_exact"]["value"] == 1.0
    assert rows["bigcode"]["gold_valid"]["value"] == 0.0
    assert rows["qwen"]["gold_exact"]["value"] == 1.0
    # Gold was the answer: both sides are the same.
    for row in rows.values():
        assert (row["exact"], row["valid"]) == (row["gold_exact"], row["gold_valid"])
    json.dumps(list(rows.values()))


def test_one_models_outputs_score_differently() -> None:
    gaps = lines()
    # Runs on by the suffix's line; says it stripped; is wrong; is right.
    texts = [gaps[0].middle + "    if result", gaps[1].middle.strip(), "        result = 4\n", gaps[3].middle]
    items = [answered(text, gap) for text, gap in zip(texts, gaps, strict=True)]
    rows = {row["name"]: row for row in compare(items, StubTask(), {"raw": [True, None, False, True]})}
    exact = {name: row["exact"]["value"] for name, row in rows.items()}
    assert exact["raw"] == 0.25
    assert exact["lm_eval"] == 0.0
    assert exact["bigcode"] == 0.5
    assert exact["qwen"] == exact["cross_code_eval"] == 0.75
    assert rows["raw"]["passed"]["value"] == pytest.approx(2 / 3)
    assert rows["raw"]["passed"]["n"] == 3
    assert rows["lm_eval"]["passed"]["value"] is None
    assert rows["raw"]["exact"]["low"] < 0.25 < rows["raw"]["exact"]["high"]


def test_a_document_that_is_broken_itself_measures_no_rule() -> None:
    broken = example(LINE, TEXT + "def (:\n")
    row = compare([answered(LINE, broken)], StubTask())[0]
    assert row["gold_valid"]["n"] == row["valid"]["n"] == 0
    assert row["exact"]["value"] == 1.0


@settings(max_examples=25, deadline=None)
@given(text=st.text("ab(){};\n #'\"/", max_size=30), language=st.sampled_from(["python", "java", "sql", None]))
def test_no_rule_adds_text_or_fails(text: str, language: str | None) -> None:
    gap = example(GOLD, language=language)
    for harness in PUBLIC:
        edited = harness.post(gap, text)
        assert edited in text
        assert harness.equal(edited, GOLD) in (True, False)
