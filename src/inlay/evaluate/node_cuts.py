"""Gaps that are syntax nodes: conditions, arguments, bodies, types, calls and so on, by one name in every language.

It decides which nodes of a tree carry a name (the grammars call the same thing differently) and where such a gap
begins and ends. A name that is no group is a shell pattern of the grammar's own node kinds, so that anything a grammar
names can be cut. It refuses nothing: a document without such a node has no such gap.

The groups name what AST-FIM (2506.00204 section 3) masks; the kinds are those of the grammars in
`inlay.text.syntax_grammars`. Spans are characters of the text, in text order.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np

from inlay.text.syntax import ParsedSyntax
from inlay.text.syntax_grammars import GRAMMARS
from inlay.text.syntax_walk import ERROR_KIND, Walker

Place = tuple[int, int]
"""Start and end of a gap, in characters."""

_FUNCTIONS = (
    "function_definition", "function_declaration", "function_item", "function_expression", "generator_function*",
    "method_declaration", "method_definition", "method", "singleton_method", "constructor_declaration",
    "arrow_function", "lambda_expression", "func_literal", "local_function_statement",
)  # fmt: skip
_BLOCKS = ("block", "statement_block", "compound_statement", "body_statement", "then", "do", "do_group", "then_clause")
_BRANCHES = (
    "if_statement", "elif_clause", "elsif", "else_if_clause", "while_statement", "if_expression", "while_expression",
    "if", "unless", "while", "until",
)  # fmt: skip
_ARGUMENTS = ("argument_list", "arguments")

GROUPS: dict[str, tuple[str, ...]] = {
    "function": _FUNCTIONS,
    "function_body": _BLOCKS,
    "block": _BLOCKS,
    "condition": _BRANCHES,
    "arguments": _ARGUMENTS,
    "call": (
        "call", "call_expression", "method_invocation", "invocation_expression", "function_call_expression",
        "member_call_expression", "scoped_call_expression", "macro_invocation",
    ),
    "type": (
        "type", "type_identifier", "primitive_type", "predefined_type", "integral_type", "floating_point_type",
        "boolean_type", "generic_type", "generic_name", "array_type", "union_type", "slice_type", "pointer_type",
        "map_type", "reference_type", "optional_type", "nullable_type", "tuple_type", "template_type",
    ),
    "string": (
        "string", "string_literal", "raw_string_literal", "interpreted_string_literal", "template_string",
        "concatenated_string", "encapsed_string", "interpolated_string_expression", "double_quote_scalar",
        "single_quote_scalar",
    ),
    "comment": ("comment", "line_comment", "block_comment"),
    "return": ("return_statement", "return_expression", "return"),
    "import": (
        "import_statement", "import_from_statement", "import_declaration", "use_declaration", "preproc_include",
        "using_directive", "namespace_use_declaration",
    ),
}  # fmt: skip
"""Groups by name. `function_body` is the block of a function, `condition` what a branch or loop asks, `arguments` what
is given to a call; brackets around these two stay outside."""

_LINE_ENDS = "\r\n"


def every_node(text: str, language: str) -> ParsedSyntax:
    """All named nodes of a text, in preorder. A corpus is prepared without the smallest (`inlay.text.syntax_walk`), and
    short types, names and calls are what evaluation is about.

    In this process: for a text that a killable parser has already been through.
    """
    walker = _walker(language)
    flat: list[tuple[int, int, int]] = []
    waiting: list[Any] = [walker.parse(text.encode("utf-8")).root_node]
    while waiting:
        node = waiting.pop()
        if node.kind_id != ERROR_KIND and node.end_byte > node.start_byte:
            flat.append((node.start_byte, node.end_byte, node.kind_id))
        waiting.extend(node.named_children[::-1])
    return ParsedSyntax(np.array(flat, np.int32).reshape(-1, 3), walker.names)


def node_places(text: str, syntax: ParsedSyntax, name: str) -> list[Place]:
    """Every place of `text` that is a node called `name` (a group, or a pattern of node kinds), each once."""
    data = text.encode("utf-8")
    found = sorted(set(_bytes_of(data, syntax, name)))
    if len(data) == len(text):
        return found
    places = []
    for start, end in found:
        try:
            first = len(data[:start].decode("utf-8"))
            places.append((first, first + len(data[start:end].decode("utf-8"))))
        except UnicodeDecodeError:
            continue  # a grammar that counts bytes may end a node inside a character
    return places


def _bytes_of(data: bytes, syntax: ParsedSyntax, name: str) -> Iterator[Place]:
    patterns = GROUPS.get(name, (name,))
    wanted = {kind for kind in syntax.kinds if _matches(kind, patterns)}
    if not wanted:
        return
    tree = _Tree(syntax)
    for node, kind in enumerate(tree.kinds):
        if kind not in wanted:
            continue
        if name == "condition":
            place = _condition(data, tree, node)
        elif name == "function_body":
            place = _body(data, tree, node)
        elif name == "arguments":
            place = _inside_brackets(data, *tree.places[node])
        else:
            place = _trimmed(data, *tree.places[node])
        if place is not None:
            yield place


class _Tree:
    """Nodes with their parents and children, from a preorder list."""

    def __init__(self, syntax: ParsedSyntax) -> None:
        rows = syntax.nodes.tolist()
        self.places: list[Place] = [(start, end) for start, end, _ in rows]
        self.kinds = [syntax.kinds[kind] for _, _, kind in rows]
        self.parents: list[int] = []
        self.children: list[list[int]] = [[] for _ in rows]
        open_nodes: list[int] = []
        for node, (start, end) in enumerate(self.places):
            while open_nodes and not self._holds(open_nodes[-1], start, end):
                open_nodes.pop()
            parent = open_nodes[-1] if open_nodes else -1
            self.parents.append(parent)
            if parent >= 0:
                self.children[parent].append(node)
            open_nodes.append(node)

    def _holds(self, node: int, start: int, end: int) -> bool:
        first, last = self.places[node]
        return first <= start and end <= last


def _condition(data: bytes, tree: _Tree, node: int) -> Place | None:
    """What a branch or loop asks: the node before its block, or its first one where it has no block.

    No word may lie between the two: what a grammar does not name there would be the condition.
    """
    children = [child for child in tree.children[node] if "comment" not in tree.kinds[child]]
    block = next((at for at, child in enumerate(children) if _matches(tree.kinds[child], _BLOCKS)), None)
    if not children or block == 0:
        return None
    asked = children[0 if block is None else block - 1]
    start, end = tree.places[asked]
    if block is not None:
        between = data[end : tree.places[children[block]][0]].replace(b"then", b"").replace(b"do", b"")
        if any(chr(byte).isalnum() or byte >= 0x80 or byte == ord("_") for byte in between):
            return None
    bracketed = tree.kinds[asked] in ("parenthesized_expression", "condition_clause")
    return _inside_brackets(data, start, end) if bracketed else (start, end)


def _body(data: bytes, tree: _Tree, node: int) -> Place | None:
    parent = tree.parents[node]
    if parent < 0 or not _matches(tree.kinds[parent], _FUNCTIONS):
        return None
    return _trimmed(data, *tree.places[node])


def _inside_brackets(data: bytes, start: int, end: int) -> Place | None:
    """What stands between the brackets of a node that has them, else the node; None where nothing does."""
    if data[start : start + 1] in b"([" and data[end - 1 : end] in b")]":
        start, end = start + 1, end - 1
    return (start, end) if data[start:end].strip() else None


def _trimmed(data: bytes, start: int, end: int) -> Place | None:
    """Without line ends at its end, which some grammars count in."""
    while end > start and chr(data[end - 1]) in _LINE_ENDS:
        end -= 1
    return (start, end) if end > start else None


def _matches(kind: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in patterns)


@cache
def _walker(language: str) -> Walker:
    return Walker(GRAMMARS[language])
