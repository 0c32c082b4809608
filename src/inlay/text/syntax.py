"""Syntax nodes of a text: what is kept of a tree, and when a text counts as parsed.

A node is kept when it is named and at least two bytes long; what the grammar calls an error is not, but the well-formed
nodes inside it are. A text of which more than `MOST_ERROR` lies in errors did not parse: grammars recover from
everything, and nodes found in the wreck are noise.

Legend: `nodes` int32 [N, 3]: byte start, byte end, index into `kinds`; in preorder, so sorted by start and then by
falling end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from inlay.text.syntax_grammars import GRAMMARS, Grammar, has_grammar
from inlay.text.syntax_walk import ERROR_KIND, Walker

LEAST_BYTES = 2
"""Nodes below this size are not kept."""
MOST_ERROR = 0.2
"""Largest share of a text's bytes inside errors with which it still counts as parsed. Of Python given to other grammars
92 % (JavaScript) to 99 % (Rust) lie above it, of the standard library none."""


@dataclass(frozen=True, slots=True)
class ParsedSyntax:
    """The nodes of one text and the names of their kinds."""

    nodes: np.ndarray
    kinds: tuple[str, ...]


def parse(text: bytes, language: str, path: str = "") -> ParsedSyntax | None:
    """The syntax of UTF-8 `text`; None when no grammar is for it (see `has_grammar`) or it did not parse.

    In this process and without a time-out: for one file that someone looks at. A corpus goes through `SyntaxPool`.
    """
    if not has_grammar(language, path):
        return None
    walker = _walker(GRAMMARS[language])
    return judged(nodes_of(walker.nodes(text)), walker.names, len(text))


def nodes_of(walked: Any) -> np.ndarray:
    """A walk's integers (int32, any buffer) as an array, int32 [N, 3]."""
    return np.frombuffer(walked, np.int32).reshape(-1, 3)


def judged(raw: np.ndarray, names: Sequence[str], size: int) -> ParsedSyntax | None:
    """What is kept of a walk's nodes (int32 [N, 3] with kind ids) of a text of `size` bytes; None when it did not
    parse.

    `kinds` of the result are the names that occur, in the order of the grammar.
    """
    ids = raw[:, 2]
    errors = ids == ERROR_KIND
    if errors.any() and error_bytes(raw[errors]) > MOST_ERROR * size:
        return None
    kept = raw[~errors & (raw[:, 1] - raw[:, 0] >= LEAST_BYTES)]
    index = np.zeros(len(names), np.int32)
    kinds: dict[str, int] = {}
    for kind in np.flatnonzero(np.bincount(kept[:, 2], minlength=1)).tolist():
        index[kind] = kinds.setdefault(names[kind], len(kinds))
    kept[:, 2] = index[kept[:, 2]]
    return ParsedSyntax(kept, tuple(kinds))


def error_bytes(spans: np.ndarray) -> int:
    """Bytes that lie in at least one span; int [N, 2 or more], sorted by start."""
    starts, ends = spans[:, 0], spans[:, 1]
    reached = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])
    return int(np.maximum(ends - np.maximum(starts, reached), 0).sum())


@cache
def _walker(grammar: Grammar) -> Walker:
    return Walker(grammar)
