"""Syntax nodes: each language's are what a reader expects, and Python's are those of the interpreter's own parser."""

import ast
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.text.corpus import library_texts

from inlay.text.document import LANGUAGES
from inlay.text.syntax import MOST_ERROR, ParsedSyntax, error_bytes, judged, parse
from inlay.text.syntax_code import KindTable, pack_nodes, unpack_nodes
from inlay.text.syntax_grammars import GRAMMARS, has_grammar
from inlay.text.syntax_walk import ERROR_KIND, OPEN_BYTES

# For each language a text, and pieces of it that are one node each: bodies, argument lists, conditions, values.
SNIPPETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bash": (
        'greet() {\n  local name="$1"\n  if [ -n "$name" ]; then\n    echo "hello $name"\n  fi\n}\ngreet world\n',
        ('local name="$1"', 'echo "hello $name"', '[ -n "$name" ]', "greet world"),
    ),
    "c": (
        "static int add(int first, int second) {\n    return first + second;\n}\n",
        ("(int first, int second)", "{\n    return first + second;\n}", "first + second"),
    ),
    "cpp": (
        "template <class T>\nclass Box {\n public:\n  T get() const { return std::move(value_); }\n  T value_;\n};\n",
        ("{ return std::move(value_); }", "std::move(value_)", "<class T>"),
    ),
    "csharp": (
        "class Greeter {\n    public string Greet(string name) {\n        return Format(name, 3);\n    }\n}\n",
        ("(string name)", "return Format(name, 3);", "Format(name, 3)"),
    ),
    "css": (
        "body > .menu {\n  margin: 0 auto;\n  color: #ff0000;\n}\n",
        ("body > .menu", "margin: 0 auto;", "color: #ff0000;"),
    ),
    "go": (
        "package main\n\nfunc sum(all []int) (t int) {\n\tfor _, v := range all {\n\t\tt += v\n\t}\n\treturn\n}\n",
        ("(all []int)", "{\n\t\tt += v\n\t}", "_, v := range all"),
    ),
    "html": (
        '<ul class="menu">\n  <li><a href="/home">Home page</a></li>\n</ul>\n',
        ('<a href="/home">Home page</a>', 'class="menu"', "Home page"),
    ),
    "java": (
        "class Point {\n    int distance(Point other) {\n        return Math.abs(x - other.x);\n    }\n}\n",
        ("(Point other)", "return Math.abs(x - other.x);", "Math.abs(x - other.x)"),
    ),
    "javascript": (
        "const double = (value) => {\n  return value.map((item) => item * 2);\n};\n",
        ("return value.map((item) => item * 2);", "(item) => item * 2", "value.map((item) => item * 2)"),
    ),
    "json": (
        '{"name": "example", "values": [1, 2, 30], "nested": {"deep": true}}\n',
        ('"name": "example"', "[1, 2, 30]", '{"deep": true}'),
    ),
    "php": (
        "<?php\nfunction greet(string $name): string {\n    return sprintf('hello %s', $name);\n}\n",
        ("(string $name)", "return sprintf('hello %s', $name);", "('hello %s', $name)"),
    ),
    "python": (
        "def area(width, height):\n    result = width * height\n    return round(result, 2)\n",
        ("(width, height)", "result = width * height", "round(result, 2)"),
    ),
    "ruby": (
        'class Greeter\n  def greet(name, times)\n    puts "hello #{name}" * times\n  end\nend\n',
        ("(name, times)", 'puts "hello #{name}" * times', '"hello #{name}" * times'),
    ),
    "rust": (
        "fn largest(values: &[i32]) -> Option<i32> {\n    values.iter().copied().max()\n}\n",
        ("(values: &[i32])", "values.iter().copied().max()", "Option<i32>"),
    ),
    "sql": (
        "SELECT name, total FROM orders WHERE total > 100 AND region = 'north';\n",
        ("total > 100", "region = 'north'", "FROM orders WHERE total > 100 AND region = 'north'"),
    ),
    "tsx": (
        "export function Title({ text }: Props) {\n  return <h1 className='title'>{text}</h1>;\n}\n",
        ("({ text }: Props)", "<h1 className='title'>{text}</h1>", "className='title'"),
    ),
    "typescript": (
        "interface Shape { area(scale: number): number }\nconst unit: Shape = { area: (scale) => scale * scale };\n",
        ("(scale: number)", "(scale) => scale * scale", "{ area: (scale) => scale * scale }"),
    ),
    "yaml": (
        "name: build\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - run: make test\n",
        ("runs-on: ubuntu-latest", "run: make test", "ubuntu-latest"),
    ),
}


def check_laws(syntax: ParsedSyntax, size: int) -> None:
    """Preorder, nesting, sizes and kinds: the slow way, one node after the other."""
    open_nodes: list[tuple[int, int]] = []
    previous = (0, size)
    assert syntax.nodes.dtype == np.int32
    assert syntax.nodes.shape[1] == 3
    for start, end, kind in syntax.nodes.tolist():
        assert 0 <= start < start + 2 <= end <= size
        assert (start, -end) >= (previous[0], -previous[1])
        while open_nodes and open_nodes[-1][1] <= start:
            open_nodes.pop()
        assert not open_nodes or end <= open_nodes[-1][1]
        open_nodes.append((start, end))
        previous = (start, end)
        assert syntax.kinds[kind] not in ("", "ERROR")
    assert len(set(syntax.kinds)) == len(syntax.kinds)
    assert set(syntax.nodes[:, 2].tolist()) == set(range(len(syntax.kinds)))


def pieces(data: bytes, syntax: ParsedSyntax) -> set[str]:
    return {data[start:end].decode() for start, end, _ in syntax.nodes.tolist()}


def test_every_language_of_the_table_has_a_snippet_and_a_name() -> None:
    assert set(SNIPPETS) == set(GRAMMARS)
    assert set(GRAMMARS) <= set(LANGUAGES)


@pytest.mark.parametrize("language", sorted(SNIPPETS))
def test_nodes_are_what_a_reader_expects(language: str) -> None:
    text, expected = SNIPPETS[language]
    data = text.encode()
    syntax = parse(data, language)
    assert syntax is not None
    check_laws(syntax, len(data))
    assert set(expected) <= pieces(data, syntax)
    found = {(start, end) for start, end, _ in syntax.nodes.tolist()}
    assert len(found) < len(data)
    assert max(end - start for start, end in found) >= 0.9 * len(data.strip())


def statement_spans(text: str) -> set[tuple[int, int]]:
    """Byte spans of the statements and calls of a Python text, by the interpreter's own parser."""
    starts = [0]
    for line in text.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt | ast.Call) and node.end_lineno and node.end_col_offset is not None:
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            # The grammar has a clause for `elif`, where the interpreter has a nested statement.
            if end - start >= OPEN_BYTES and not text.encode()[start:].startswith(b"elif"):
                found.add((start, end))
    return found


def ends_behind_comments(data: bytes, start: int, end: int, found: set[tuple[int, int]]) -> bool:
    longer = [data[end:other] for first, other in found if first == start and other > end]
    return any(re.fullmatch(rb"\s*(#.*\s*)+", rest) for rest in longer)


def test_python_agrees_with_the_interpreter() -> None:
    expected, missing, parsed = 0, [], 0
    for text in library_texts():
        if "\r" in text or "\f" in text:
            continue
        try:
            wanted = statement_spans(text)
        except SyntaxError:
            continue
        syntax = parse(text.encode(), "python")
        assert syntax is not None
        check_laws(syntax, len(text.encode()))
        parsed += 1
        found = {(start, end) for start, end, _ in syntax.nodes.tolist()}
        # The grammar gives a statement the comments that close its body.
        commented = {
            (start, end) for start, end in wanted - found if ends_behind_comments(text.encode(), start, end, found)
        }
        expected += len(wanted)
        missing += [text.encode()[start:end] for start, end in wanted - found - commented]
    assert parsed > 5
    assert expected > 1000
    assert not missing


def test_offsets_are_bytes() -> None:
    text = "größe = 'naïve — 日本語 🙂'\nfolgende_größe = größe.upper()\n"
    data = text.encode()
    syntax = parse(data, "python")
    assert syntax is not None
    assert {"'naïve — 日本語 🙂'", "größe.upper()", "folgende_größe = größe.upper()"} <= pieces(data, syntax)


def test_dialects_and_other_languages_are_not_parsed() -> None:
    assert parse(b"$color: red;\n.a { .b { color: $color } }\n", "css", "site/main.scss") is None
    assert parse(b"# a title\n", "markdown") is None
    assert has_grammar("css", "site/MAIN.CSS")
    assert not has_grammar("css", "site/MAIN.SCSS")
    assert not has_grammar("markdown", "README.md")


def test_empty_and_tiny_documents_parse() -> None:
    for text in (b"", b"\n", b"x", b"\xef\xbf\xbd"):
        syntax = parse(text, "json" if text == b"x" else "python")
        assert syntax is None or len(syntax.nodes) <= 3
    empty = parse(b"", "python")
    assert empty is not None
    assert empty.nodes.shape == (0, 3)
    assert empty.kinds == ()


def test_one_error_does_not_throw_a_file_away() -> None:
    good = "".join(f"def function_{number}(value):\n    return value + {number}\n\n\n" for number in range(200))
    broken = good.replace("def function_150(value):\n    return value + 150", "def function_150(value) return value +:")
    assert broken != good
    syntax = parse(broken.encode(), "python")
    assert syntax is not None
    check_laws(syntax, len(broken.encode()))
    assert "return value + 7" in pieces(broken.encode(), syntax)


@pytest.mark.parametrize("language", ["python", "rust", "json", "sql"])
def test_what_is_another_language_did_not_parse(language: str) -> None:
    prose = "The quick brown fox, as they say: (jumps over } the lazy dog] & never ~ comes back again!\n" * 40
    assert parse(prose.encode(), language) is None


def test_a_five_megabyte_line_parses() -> None:
    data = b"[" + b", ".join(b'{"key%d": %d}' % (number, number) for number in range(230_000)) + b"]"
    assert len(data) > 5_000_000
    syntax = parse(data, "json")
    assert syntax is not None
    assert len(syntax.nodes) > 230_000
    assert np.array_equal(unpack_nodes(pack_nodes(syntax.nodes)), syntax.nodes)


# ---- what is kept ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_error_bytes_are_those_in_any_span(spans: list[tuple[int, int]]) -> None:
    found = sorted((start, start + size) for start, size in spans)
    covered = {position for start, end in found for position in range(start, end)}
    assert error_bytes(np.array(found, np.int32).reshape(-1, 2)) == len(covered)


def test_the_limit_of_error_and_what_is_dropped() -> None:
    names = ("", "file", "word", "file")
    size = 100
    limit = int(MOST_ERROR * size)

    def raw(error: int) -> np.ndarray:
        return np.array(
            [[0, 100, 1], [0, error, ERROR_KIND], [0, 4, 2], [50, 51, 2], [60, 60, 3], [60, 70, 3]], np.int32
        )

    kept = judged(raw(limit), names, size)
    assert kept is not None
    assert kept.kinds == ("file", "word")
    assert kept.nodes.tolist() == [[0, 100, 0], [0, 4, 1], [60, 70, 0]]
    assert judged(raw(limit + 1), names, size) is None


# ---- the stored form -------------------------------------------------------------------------------------------------


@st.composite
def node_lists(draw: st.DrawFn) -> np.ndarray:
    # Steps, sizes and kinds around one byte and far beyond it.
    number = st.one_of(st.integers(0, 3), st.integers(253, 257), st.integers(0, 2**24))
    rows = draw(st.lists(st.tuples(number, number, number), max_size=30))
    nodes = np.array(rows, np.int64).reshape(-1, 3)
    nodes[:, 0] = np.cumsum(nodes[:, 0])
    nodes[:, 1] += nodes[:, 0]
    return nodes.astype(np.int32)


@given(node_lists())
def test_packing_loses_nothing(nodes: np.ndarray) -> None:
    again = unpack_nodes(pack_nodes(nodes))
    assert again.dtype == np.int32
    assert np.array_equal(again, nodes)
    assert len(pack_nodes(nodes)) <= 4 + 15 * len(nodes)


def test_packing_refuses_what_is_not_sorted() -> None:
    for nodes in ([[5, 6, 0], [4, 6, 0]], [[5, 4, 0]], [[0, 4, -1]]):
        with pytest.raises(ValueError, match="sorted"):
            pack_nodes(np.array(nodes, np.int32))


def test_packed_nodes_are_small() -> None:
    text = "".join(library_texts())[:200_000].rpartition("\n\n")[0].encode()
    syntax = parse(text, "python")
    assert syntax is not None
    assert len(pack_nodes(syntax.nodes)) < 0.6 * len(text) < syntax.nodes.nbytes


def test_kinds_are_numbered_in_the_order_of_first_sight() -> None:
    table = KindTable()
    first = table.numbered(np.array([[0, 9, 1], [1, 3, 0]], np.int32), ("word", "line"))
    second = table.numbered(np.array([[0, 9, 0], [1, 3, 1]], np.int32), ("page", "line"))
    assert table.names == ["word", "line", "page"]
    assert first[:, 2].tolist() == [1, 0]
    assert second[:, 2].tolist() == [2, 1]
    assert table.numbered(np.zeros((0, 3), np.int32), ()).shape == (0, 3)
