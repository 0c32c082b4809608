"""From bytes to the nodes of their syntax tree, as plain integers. Imports no numpy: a worker starts in a blink.

The walk is Python and would cost as much as the parse itself, so it does not look inside nodes below `OPEN_BYTES`:
every node of that size is there, with all its children. What is lost are children of nodes of a few tokens (1.7 % of
the draws of a node of 5 to 350 bytes by size, on the standard library of Python).
"""

import importlib
from array import array
from typing import Any

from tree_sitter import Language, Parser, Tree

from inlay.text.syntax_grammars import Grammar

OPEN_BYTES = 12
"""Nodes below this size are not looked into."""
ERROR_KIND = 0xFFFF
"""The kind id that tree-sitter gives to what it could not parse."""


class Walker:
    """Parses one language. Raises ImportError or AttributeError when the grammar is not installed, ValueError when its
    version does not fit.
    """

    def __init__(self, grammar: Grammar) -> None:
        language = Language(getattr(importlib.import_module(grammar.module), grammar.function)())
        self._parser = Parser(language)
        self.names = tuple(language.node_kind_for_id(kind) or "" for kind in range(language.node_kind_count))
        """The node kinds by id; several ids may share a name."""

    def parse(self, data: bytes) -> Tree:
        """The whole tree of `data`."""
        return self._parser.parse(data)

    def nodes(self, data: bytes) -> "array[int]":
        """Named nodes of `data` in preorder, three integers each: byte start, byte end, kind id."""
        tree = self.parse(data)
        flat: list[int] = []
        add = flat.append
        waiting: list[Any] = [tree.root_node]
        take, push = waiting.pop, waiting.extend
        # The hot loop of `prepare`: 0.4 microseconds a node. A TreeCursor and queries are slower, see the benchmark.
        while waiting:
            node = take()
            start, end = node.start_byte, node.end_byte
            add(start)
            add(end)
            add(node.kind_id)
            if end - start >= OPEN_BYTES:
                push(node.named_children[::-1])
        return array("i", flat)
