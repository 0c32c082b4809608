"""Span strategies: where the middle is cut out of a text. One file a strategy in `inlay.fim.spans`.

Cuts are byte positions on character boundaries, chosen before tokenization, so that a cursor inside a word is seen in
training (2207.14255 table 2: models trained on line or token cuts fail there). A strategy looks only at the bytes it
needs: most cut without decoding the piece.
"""

import bisect
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import Field

from inlay.config import Config, Registry
from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw
from inlay.fim.marks import marks_of
from inlay.text.tokenizer import Tokenizer

strategies = Registry("span strategy", "inlay.fim.spans")

Span = tuple[int, int]

_BLANKS = b" \t"
_WINDOW = 64
"""Bytes that a search looks at first; it looks at four times as many each time it finds nothing."""
_TRIES = 8
_LINES_MAY_MISS = 4
"""Whole lines take the place of a drawn length from which they differ by no more than the fourth part."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """The syntax nodes of a text. `nodes` [N, 3] int32: byte start, byte end, index into `kinds`.

    In preorder: sorted by start, then by falling end, so a node's descendants follow it and its parent precedes it.
    """

    nodes: np.ndarray
    kinds: tuple[str, ...]

    def within(self, start: int, stop: int) -> "Syntax":
        """The nodes that lie wholly in [start, stop), with offsets counted from `start`."""
        # Bisection reads a few rows; a vector search would copy a whole column of a long document for every piece.
        starts = self.nodes[:, 0]
        first = bisect.bisect_left(starts, start)
        nodes = self.nodes[first : bisect.bisect_left(starts, stop, lo=first)]
        nodes = nodes[nodes[:, 1] <= stop]
        return Syntax(nodes - np.array([start, start, 0], dtype=nodes.dtype), self.kinds)

    def around(self, start: int, end: int) -> int:
        """The index of the deepest node that contains [start, end); -1 when none does."""
        starts, ends = self.nodes[:, 0], self.nodes[:, 1]
        # Nodes around one place are nested, and preorder puts the deepest last.
        found = np.flatnonzero(ends[: starts.searchsorted(start, side="right")] >= end)
        return int(found[-1]) if len(found) else -1

    def kind_at(self, start: int, end: int) -> str | None:
        """The kind of the outermost node that begins at `start` and lies in [start, end): what a span cut from syntax
        is, or begins with. None when no node begins there.
        """
        starts = self.nodes[:, 0]
        for node in range(bisect.bisect_left(starts, start), bisect.bisect_right(starts, start)):
            if self.nodes[node, 1] <= end:
                return self.kinds[self.nodes[node, 2]]
        return None


class TextView:
    """A piece of one document as the strategies see it. Its bytes are decoded only where someone looks.

    `tokens` [n] ids of `tokenizer`; `token_offsets` [n + 1] int64: byte offset where each of them starts, and the end.
    `syntax` may be given as a function, which is called when a strategy looks.
    """

    def __init__(
        self, tokenizer: Tokenizer, tokens: np.ndarray, syntax: Syntax | Callable[[], Syntax | None] | None = None
    ) -> None:
        self.tokens = tokens
        self._syntax = syntax
        self.tokenizer = tokenizer
        self._ids = tokens.astype(np.intp)  # what numpy indexes with: tables are read by it several times
        self.token_offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
        np.cumsum(tokenizer.token_lengths.take(self._ids), out=self.token_offsets[1:])
        self.size = int(self.token_offsets[-1])
        """Bytes of the piece."""

    @cached_property
    def syntax(self) -> Syntax | None:
        """The piece's nodes; None where the document was not parsed (or did not parse)."""
        return self._syntax() if callable(self._syntax) else self._syntax

    @cached_property
    def data(self) -> bytes:
        """All UTF-8 bytes of the piece. Costs a full decode: a strategy that needs few bytes takes `window`."""
        return self.tokenizer.decode_bytes(self.tokens.tolist())

    def window(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, 0 <= start <= stop <= size, from the tokens that hold them alone."""
        if start >= stop:
            return b""
        first, last = self.token_at(start), self.token_at(stop - 1)
        base = int(self.token_offsets[first])
        return self.tokenizer.decode_bytes(self.tokens[first : last + 1].tolist())[start - base : stop - base]

    def align(self, position: int) -> int:
        """The nearest character boundary at or before a byte position."""
        if not 0 < position < self.size or self._is_ascii(position):
            return position
        near = self.window(max(0, position - 3), position + 1)
        while near and near[-1] & 0xC0 == 0x80:  # a character has four bytes at most
            near, position = near[:-1], position - 1
        return position

    def align_up(self, position: int) -> int:
        """The nearest character boundary at or behind a byte position."""
        if not 0 < position < self.size or self._is_ascii(position):
            return position
        for byte in self.window(position, min(self.size, position + 4)):
            if byte & 0xC0 != 0x80:
                break
            position += 1
        return position

    def _is_ascii(self, position: int) -> bool:
        """Whether the token that holds this byte has ASCII characters alone: nearly always, and quickly known."""
        return bool(marks_of(self.tokenizer).ascii[self.tokens[self.token_at(position)]])

    def token_at(self, position: int) -> int:
        """The index of the token that holds the byte at `position`."""
        return int(self.token_offsets.searchsorted(position, side="right")) - 1

    def tokens_in(self, start: int, end: int) -> int:
        """How many tokens of the piece have a byte in [start, end)."""
        return self.token_at(end - 1) - self.token_at(start) + 1 if end > start else 0

    @cached_property
    def line_starts(self) -> np.ndarray:
        """[n + 1] int64 byte offsets where lines start (0, and after each line feed), and the end of the text."""
        breaks = marks_of(self.tokenizer).line_starts(self._ids, self.token_offsets)
        whole = bool(len(breaks)) and breaks[-1] == self.size
        ends = np.array([] if whole or self.size == 0 else [self.size], dtype=np.int64)
        return np.concatenate([np.zeros(1, dtype=np.int64), breaks, ends])

    @property
    def word_count(self) -> int:
        """Maximal runs of letters, digits, underscores and non-ASCII characters."""
        return int(self._words[0][-1]) if len(self.tokens) else 0

    def word(self, index: int) -> Span:
        """The byte span of word `index`, 0 <= index < word_count."""
        counts, at_first = self._words
        token = int(counts.searchsorted(index, side="right"))
        within = index - (int(counts[token - 1]) if token else 0) - int(at_first[token])
        start = int(self.token_offsets[token])
        if within >= 0:
            words = marks_of(self.tokenizer).words
            start += int(words.places[words.first[self._ids[token]] + within])
        reach = start
        while reach < self.size:
            stop = min(self.size, reach + max(_WINDOW, 3 * (reach - start)))
            found = _NOT_WORD.search(self.window(reach, stop))
            if found:
                return start, reach + found.start()
            reach = stop
        return start, self.size

    @cached_property
    def _words(self) -> tuple[np.ndarray, np.ndarray]:
        return marks_of(self.tokenizer).word_counts(self._ids)

    def last_not(self, skipped: bytes, position: int) -> int:
        """The last byte before `position` that is none of `skipped`, by its offset; -1 when there is none."""
        size = _WINDOW
        while position > 0:
            start = max(0, position - size)
            kept = len(self.window(start, position).rstrip(skipped))
            if kept:
                return start + kept - 1
            position, size = start, 4 * size
        return -1

    def first_not(self, skipped: bytes, position: int) -> int:
        """The first byte from `position` on that is none of `skipped`, by its offset; `size` when there is none."""
        size = _WINDOW
        while position < self.size:
            near = self.window(position, min(self.size, position + size))
            kept = len(near.lstrip(skipped))
            if kept:
                return position + len(near) - kept
            position, size = position + len(near), 4 * size
        return self.size


_NOT_WORD = re.compile(rb"[^A-Za-z0-9_\x80-\xff]")


class SpanStrategy(Config):
    """A way to draw one span. `weight` is its share among the strategies of a mixture."""

    needs_syntax: ClassVar[bool] = False
    """It cuts by syntax nodes, and draws None from a text without them: what `instead` draws takes its place there."""

    kind: str
    weight: float = Field(1.0, ge=0.0, le=1e9)
    """Relative share of examples that this strategy cuts."""

    @abstractmethod
    def draw(self, view: TextView, draws: Draws) -> Span | None:
        """A byte span (start, end) on character boundaries, start <= end; None when the text has no such span."""

    def instead(self, view: TextView, draws: Draws) -> Span | None:
        """What takes the place of a syntax node in a text without syntax, under the strategy's own law of lengths."""
        return None


def room_for(view: TextView) -> int:
    """Tokens that a middle may have: one less than the piece, which is never a middle as a whole."""
    return max(1, len(view.tokens) - 1)


def draw_start(view: TextView, draws: Draws, law: LengthLaw) -> tuple[int, int] | None:
    """A character to start at, and the index behind the last of so many tokens of the document as `law` gives, that of
    the start included. None where the piece has no room for the shortest length.

    The length comes first, as the law is up to the room that the piece has; then all starts with so much behind them
    are alike. A start drawn first would shorten what begins near the end.
    """
    room = room_for(view)
    if view.size == 0 or law.least > room:
        return None
    length = law.draw(draws, room)
    start = view.align(draws.integer(0, int(view.token_offsets[len(view.tokens) - length + 1])))
    return start, view.token_at(start) + length


def draw_lines(view: TextView, draws: Draws, law: LengthLaw, most: int) -> Span | None:
    """Whole lines of about as many tokens as `law` gives, `most` at most; where no run of lines from the drawn one on
    is near that length, exactly so many tokens. None where the piece has no room for the shortest length.
    """
    room = min(room_for(view), most)
    if view.size == 0 or law.least > room:
        return None
    length = law.draw(draws, room)
    first = draws.integer(0, len(view.tokens) - length + 1)
    starts = view.line_starts
    line = int(starts.searchsorted(int(view.token_offsets[first]), side="right")) - 1
    best, miss = None, length // _LINES_MAY_MISS
    for after in range(line + 1, min(len(starts), line + 1 + length)):
        start = int(starts[line])
        end = max(start, view.last_not(b"\r\n", int(starts[after])) + 1)
        tokens = view.tokens_in(start, end)
        if tokens > room or tokens - length > miss:
            break
        if tokens and abs(tokens - length) <= miss and (start, end) != (0, view.size):
            best, miss = (start, end), abs(tokens - length)
    if best is not None:
        return best
    start = view.align(int(view.token_offsets[first]))
    # A step back to a character boundary may have emptied a one-character middle: take the whole character.
    return start, max(view.align(int(view.token_offsets[first + length])), view.align_up(start + 1))


def draw_line(view: TextView, draws: Draws) -> tuple[int, int, int] | None:
    """A line that is not blank, all of them alike: (its start, its first visible byte, its end without line break).

    None when every line is blank.
    """
    starts = view.line_starts
    total = len(starts) - 1

    def content(line: int) -> tuple[int, int, int] | None:
        begin = int(starts[line])
        text = view.window(begin, int(starts[line + 1])).rstrip(b"\r\n")
        indent = len(text) - len(text.lstrip())
        return (begin, begin + indent, begin + len(text)) if len(text) > indent else None

    for _ in range(_TRIES if total else 0):
        found = content(draws.integer(0, total))
        if found:
            return found
    # Nearly every line is blank: which are not has to be known.
    wide = np.flatnonzero(np.diff(starts) > 1).tolist()
    full = [line for line in sorted({*wide, total - 1}) if content(line)] if total else []
    return content(full[draws.integer(0, len(full))]) if full else None


def apply_indentation(view: TextView, span: Span, draws: Draws, share: float = 0.5) -> Span:
    """Lets a `share` of the middles that start a line include its indentation, the others begin behind it.

    A middle starts a line when it begins at the line's first byte or at its first visible one, and reaches beyond that.
    Without the indentation in half of them, a tiny model never learns to indent (Falcon-H1-Tiny-Coder, 90M). Any other
    span, and one whose line has no indentation, comes back as it is. The start of a piece counts as a line's start.
    """
    start, end = span
    if start >= end:
        return span
    if start and view.window(start - 1, start) not in (b" ", b"\t", b"\n"):
        return span  # nearly always: text stands right before it
    begin = view.last_not(_BLANKS, start) + 1
    if begin and view.window(begin - 1, begin) != b"\n":
        return span
    visible = view.first_not(_BLANKS, start)
    if begin == visible or visible >= end or start not in (begin, visible):
        return span
    if view.window(visible, visible + 1) in b"\r\n":
        return span  # a blank line's blanks indent nothing
    return (begin if draws.uniform() < share else visible), end


def whole_lines(view: TextView, span: Span) -> Span:
    """`span` widened to whole lines: (start of the line that it begins in, end of the line that it ends in, without the
    line break). A position behind a line feed is in the line that follows it.
    """
    start, end = span
    begins = view.line_starts
    if view.size and view.window(view.size - 1, view.size) != b"\n":
        begins = begins[:-1]  # the text ends inside its last line: no other begins there
    first = int(begins[begins.searchsorted(start, side="right") - 1])
    after = int(begins.searchsorted(end, side="right"))
    if after == len(begins):
        return first, view.size
    stop = int(begins[after]) - 1
    return first, stop - int(stop > end and view.window(stop - 1, stop) == b"\r")
