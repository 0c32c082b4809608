"""Span strategies: where the middle is cut out of a text. One file a strategy in `inlay.fim.spans`.

Cuts are byte positions on character boundaries, chosen before tokenization, so that a cursor inside a word is seen in
training (2207.14255 table 2: models trained on line or token cuts fail there).
"""

import re
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import Field

from inlay.config import Config, Registry
from inlay.fim.draws import Draws
from inlay.text.tokenizer import Tokenizer

strategies = Registry("span strategy", "inlay.fim.spans")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Syntax:
    """The syntax nodes of a text. `nodes` [N, 3] int32: byte start, byte end, index into `kinds`.

    In preorder: sorted by start, then by falling end, so a node's descendants follow it and its parent precedes it.
    """

    nodes: np.ndarray
    kinds: tuple[str, ...]

    def within(self, start: int, stop: int) -> "Syntax":
        """The nodes that lie wholly in [start, stop), with offsets counted from `start`."""
        nodes = self.nodes
        first, last = np.searchsorted(nodes[:, 0], (start, stop))
        nodes = nodes[first:last]
        nodes = nodes[nodes[:, 1] <= stop]
        return Syntax(nodes - np.array([start, start, 0], dtype=nodes.dtype), self.kinds)


class TextView:
    """A piece of one document as the strategies see it. Its bytes are decoded only where someone looks.

    `tokens` [n] ids; `token_offsets` [n + 1] int64: byte offset where each of them starts, and the end. `syntax` is None
    where the document was not parsed (or did not parse).
    """

    def __init__(self, tokenizer: Tokenizer, tokens: np.ndarray, syntax: Syntax | None = None) -> None:
        self.tokens = tokens
        self.syntax = syntax
        self._tokenizer = tokenizer
        self.token_offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
        np.cumsum(tokenizer.token_lengths[tokens], out=self.token_offsets[1:])
        self.size = int(self.token_offsets[-1])
        """Bytes of the piece."""

    @cached_property
    def data(self) -> bytes:
        """All UTF-8 bytes of the piece. Costs a full decode: a strategy that needs few bytes takes `window`."""
        return self._tokenizer.decode_bytes(self.tokens.tolist())

    def window(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, 0 <= start <= stop <= size, from the tokens that hold them alone."""
        if start >= stop:
            return b""
        first, last = self.token_at(start), self.token_at(stop - 1)
        base = int(self.token_offsets[first])
        return self._tokenizer.decode_bytes(self.tokens[first : last + 1].tolist())[start - base : stop - base]

    def align(self, position: int) -> int:
        """The nearest character boundary at or before a byte position."""
        if not 0 < position < self.size:
            return position
        near = self.window(max(0, position - 3), position + 1)
        while near and near[-1] & 0xC0 == 0x80:  # a character has four bytes at most
            near, position = near[:-1], position - 1
        return position

    def align_up(self, position: int) -> int:
        """The nearest character boundary at or behind a byte position."""
        if not 0 < position < self.size:
            return position
        for byte in self.window(position, min(self.size, position + 4)):
            if byte & 0xC0 != 0x80:
                break
            position += 1
        return position

    def token_at(self, position: int) -> int:
        """The index of the token that holds the byte at `position`."""
        return int(self.token_offsets.searchsorted(position, side="right")) - 1

    @cached_property
    def words(self) -> np.ndarray:
        """[n, 2] int64 byte spans of the maximal runs of letters, digits, underscores and non-ASCII characters."""
        return np.array([match.span() for match in _WORD.finditer(self.data)], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def line_starts(self) -> np.ndarray:
        """[n + 1] int64 byte offsets where lines start (0, and after each line feed), and the end of the text."""
        breaks = np.flatnonzero(np.frombuffer(self.data, dtype=np.uint8) == 0x0A) + 1
        return np.unique(np.concatenate([[0], breaks, [len(self.data)]]))


_WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")


class SpanStrategy(Config):
    """A way to draw one span. `weight` is its share among the strategies of a mixture."""

    kind: str
    weight: float = Field(1.0, ge=0.0)
    """Relative share of examples that this strategy cuts."""

    @abstractmethod
    def draw(self, view: TextView, draws: Draws) -> Span | None:
        """A byte span (start, end) on character boundaries, start <= end; None when the text has no such span."""
