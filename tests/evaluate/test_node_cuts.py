import ast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.evaluate.node_cuts import GROUPS, every_node, node_places
from inlay.text.syntax import ParsedSyntax

PYTHON = """import os
from sys import path


# größer 日本語
def first_function(first: int, names: list[str] = ()) -> str:
    if first > len(names) and names:
        return os.path.join("größer", *names)
    while names:
        names.pop(first)
    return call(
        first,
    )


class Holder(Base):
    value: dict[str, int] = {}

    def show(self):
        print("a")
"""
WANTED = {
    "javascript": (
        'function foo(first, bar) { if (first > 3 && bar) { return call(first, bar + 1); } }\nimport aa from "bb";\n',
        {"condition": ["first > 3 && bar"], "arguments": ["first, bar + 1"], "import": ['import aa from "bb";']},
    ),
    "go": (
        'package main\nfunc foo(bar []string) string {\n if err := bar(1); err != nil { return "aa" }\n return bb\n}\n',
        {"condition": ["err != nil"], "return": ['return "aa"', "return bb"]},
    ),
    "rust": (
        "fn foo(first: i32) -> String {\n  if first > 3 { return call(first, first); }\n  todo!()\n}\n",
        {"condition": ["first > 3"], "arguments": ["first, first"], "type": ["i32", "String"]},
    ),
    "java": (
        "class Foo {\n  int meth(List<String> bar) {\n    while (bar.size() > 3) { bar.clear(); }\n  }\n}\n",
        {"condition": ["bar.size() > 3"], "function_body": ["{\n    while (bar.size() > 3) { bar.clear(); }\n  }"]},
    ),
    "cpp": ("int foo(int aa) {\n  if (aa > 3) { return call(aa, 1); }\n  return 0;\n}\n", {"condition": ["aa > 3"]}),
    "ruby": ("def foo(bar)\n  if bar > 3\n    return call(bar, 1)\n  end\nend\n", {"condition": ["bar > 3"]}),
    "bash": ('if [ "$1" = aa ]; then\n  echo "str"\nfi\n', {"condition": ['[ "$1" = aa ]']}),
}


def texts(source: str, language: str, name: str) -> list[str]:
    return [source[start:end] for start, end in node_places(source, every_node(source, language), name)]


def test_python_groups_are_what_its_own_parser_finds() -> None:
    module = ast.parse(PYTHON)
    walked = list(ast.walk(module))

    def of(*kinds: type) -> list[str]:
        found = [node for node in walked if isinstance(node, kinds)]
        return sorted(filter(None, (ast.get_source_segment(PYTHON, node) for node in found)))

    assert sorted(texts(PYTHON, "python", "call")) == of(ast.Call)
    assert sorted(texts(PYTHON, "python", "return")) == of(ast.Return)
    assert sorted(texts(PYTHON, "python", "import")) == of(ast.Import, ast.ImportFrom)
    assert sorted(texts(PYTHON, "python", "function")) == of(ast.FunctionDef)
    tests = [ast.get_source_segment(PYTHON, node.test) for node in walked if isinstance(node, ast.If | ast.While)]
    assert texts(PYTHON, "python", "condition") == tests
    functions = [node for node in walked if isinstance(node, ast.FunctionDef)]
    segments = [(node.body[0], ast.get_source_segment(PYTHON, node)) for node in functions]
    bodies = [
        segment[segment.index(ast.get_source_segment(PYTHON, first) or "?") :] for first, segment in segments if segment
    ]
    assert texts(PYTHON, "python", "function_body") == bodies
    assert texts(PYTHON, "python", "comment") == ["# größer 日本語"]
    assert texts(PYTHON, "python", "string") == ['"größer"', '"a"']


def test_arguments_stand_inside_their_brackets() -> None:
    found = texts(PYTHON, "python", "arguments")
    assert [text.strip() for text in found] == ["names", '"größer", *names', "first", "first,", "Base", '"a"']
    assert not any(text.startswith("(") for text in found)
    assert texts("call()\nother(aa)\n", "python", "arguments") == ["aa"]


@pytest.mark.parametrize("language", WANTED)
def test_one_name_means_the_same_in_every_language(language: str) -> None:
    source, wanted = WANTED[language]
    for name, expected in wanted.items():
        assert texts(source, language, name) == expected, name


def test_what_stands_before_a_condition_is_not_mistaken_for_it() -> None:
    go = "package main\nfunc foo() {\n if ok := call(1); x { bar(22) }\n}\n"
    assert texts(go, "go", "condition") == ["x"]
    assert texts("if x:\n    foo(11)\n", "python", "condition") == ["x"]
    # A comment between the two is no condition.
    assert texts("if x:  # why\n    foo(11)\n", "python", "condition") in (["x"], [])


def test_a_branch_that_begins_with_its_block_asks_nothing() -> None:
    source = "if { aaa } else { bbb }"
    rows = [(0, 23, 0), (3, 10, 1), (16, 23, 1)]
    tree = ParsedSyntax(np.array(rows, np.int32), ("if_statement", "block"))
    assert node_places(source, tree, "condition") == []
    assert node_places(source, tree, "block") == [(3, 10), (16, 23)]


def test_the_smallest_nodes_are_there() -> None:
    source = "def f(i: int, j: A) -> B:\n    g(i)\n"
    assert texts(source, "python", "type") == ["int", "A", "B"]
    assert texts(source, "python", "call") == ["g(i)"]


def test_any_kind_of_a_grammar_can_be_named() -> None:
    assert texts(PYTHON, "python", "while_statement") == ["while names:\n        names.pop(first)"]
    assert set(texts(PYTHON, "python", "*_statement")) >= set(texts(PYTHON, "python", "while_statement"))
    assert texts(PYTHON, "python", "no_such_kind") == []


@given(st.text(st.sampled_from("if x>é日(),:\n 'a\"#=def return"), max_size=80), st.sampled_from([*GROUPS, "*"]))
def test_places_are_in_the_text_whatever_it_is(text: str, name: str) -> None:
    places = node_places(text, every_node(text, "python"), name)
    assert places == sorted(set(places))
    assert all(0 <= start < end <= len(text) for start, end in places)
