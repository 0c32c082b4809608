"""Syntax for the tests of this folder: random trees with their parents known, and real ones of Python code."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import tree_sitter
import tree_sitter_python
from hypothesis import strategies as st

from inlay.fim.span import Syntax

KINDS = ("call", "identifier", "comment", "if_statement", "block")


@dataclass
class Tree:
    """A node as a witness wants it: it knows its children."""

    start: int
    end: int
    kind: int
    children: list["Tree"] = field(default_factory=list)

    def preorder(self) -> Iterator["Tree"]:
        yield self
        for child in self.children:
            yield from child.preorder()


def syntax_of(forest: list[Tree]) -> Syntax:
    rows = [(node.start, node.end, node.kind) for tree in forest for node in tree.preorder()]
    return Syntax(np.array(rows, dtype=np.int32).reshape(-1, 3), KINDS)


@st.composite
def forests(draw: st.DrawFn, borders: list[int], depth: int = 4) -> list[Tree]:
    """Trees side by side whose ends are among `borders` (rising). Some nodes have one child of their own size."""
    count = draw(st.integers(0, 4)) if depth else 0
    ends = sorted(draw(st.lists(st.sampled_from(borders), min_size=2 * count, max_size=2 * count)))
    found = []
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        if start < end:
            inside = [border for border in borders if start <= border <= end]
            kind = draw(st.integers(0, len(KINDS) - 1))
            children = draw(forests(inside, depth - 1))
            if draw(st.integers(0, 5)) == 0:
                children = [Tree(start, end, draw(st.integers(0, len(KINDS) - 1)), children)]
            found.append(Tree(start, end, kind, children))
    return found


@st.composite
def texts_with_forests(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> tuple[str, list[Tree]]:
    """A text and trees over it, all ends on character boundaries."""
    text = draw(texts)
    borders = np.cumsum([0, *(len(character.encode()) for character in text)]).tolist()
    return text, draw(forests(borders))


@cache
def python_syntax(text: str) -> Syntax:
    """The named nodes of two bytes and more, by tree-sitter."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))
    kinds: dict[str, int] = {}
    rows = []
    waiting = [parser.parse(text.encode()).root_node]
    while waiting:
        node = waiting.pop()
        if node.is_named and node.end_byte - node.start_byte >= 2:
            rows.append((node.start_byte, node.end_byte, kinds.setdefault(node.type, len(kinds))))
        waiting.extend(reversed(node.children))
    return Syntax(np.array(rows, dtype=np.int32).reshape(-1, 3), tuple(kinds))
