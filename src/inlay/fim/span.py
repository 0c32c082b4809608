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

strategies = Registry("span strategy", "inlay.fim.spans")

Span = tuple[int, int]


@dataclass(frozen=True)
class TextView:
    """A piece of one document as the strategies see it.

    `data`: its UTF-8 bytes. `token_offsets` [n + 1] int64: byte offset where each of its tokens starts, and the end.
    """

    data: bytes
    token_offsets: np.ndarray

    def align(self, position: int) -> int:
        """The nearest character boundary at or before a byte position."""
        data = self.data
        while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
            position -= 1
        return position

    def token_at(self, position: int) -> int:
        """The index of the token that holds the byte at `position`."""
        return int(np.searchsorted(self.token_offsets, position, side="right")) - 1

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
