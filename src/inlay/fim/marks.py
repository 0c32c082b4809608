"""Where lines and words begin in a piece, found from its token ids: what each token holds is looked up once a process.

A piece of 2,048 tokens holds about 8 KB. Decoding and searching it costs some 400 microseconds, two look-ups per token
a tenth of that, and the places are the same: a line feed and a word's characters are bytes, and a token's bytes never
depend on its neighbours. Only whether a word begins at a token's first byte depends on the last byte before it.

Legend: V vocabulary; n tokens of a piece; `places` inside a token are bytes from its first.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from weakref import WeakKeyDictionary

import numpy as np

from inlay.text.tokenizer import Tokenizer

WORD_BYTES = np.array([chr(byte).isascii() and chr(byte).isalnum() for byte in range(128)] + [True] * 128)
"""[256] bool: letters, digits and underscores, and every byte of a non-ASCII character."""
WORD_BYTES[ord("_")] = True
_LINE_FEED = 0x0A


class Marks:
    """Tables of one vocabulary: line feeds, and beginnings of words, by token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ValueError for a tokenizer in which a token's bytes depend on the tokens around it."""
        lengths = tokenizer.token_lengths
        held = np.flatnonzero(lengths)
        data = np.frombuffer(tokenizer.decode_bytes(held.tolist()), dtype=np.uint8)
        ends = np.cumsum(lengths[held])
        if len(data) != (int(ends[-1]) if len(ends) else 0):
            raise ValueError("the bytes of a token depend on the tokens around it")
        firsts = ends - lengths[held]
        word = WORD_BYTES[data]
        begins = word.copy()
        begins[1:] &= ~word[:-1]
        begins[firsts] = False  # these depend on what stands before the token
        self.lines = _Places(np.flatnonzero(data == _LINE_FEED), held, firsts, len(lengths))
        self.words = _Places(np.flatnonzero(begins), held, firsts, len(lengths))
        self.opens = np.zeros(len(lengths), dtype=bool)
        """[V] whether a token's first byte is one of a word."""
        self.closes = np.zeros(len(lengths), dtype=bool)
        """[V] whether a token's last byte is one of a word."""
        # A vocabulary may have holes, ids that no token has: nothing is split there.
        self.starts_character = np.ones(len(lengths), dtype=bool)
        """[V] whether a token starts on a character boundary."""
        self.starts_character[held] = data[firsts] & 0xC0 != 0x80
        # As bytes objects: looking up one token costs a tenth of what it costs in an array.
        self.ends_visible = _flags(held, (data[ends - 1] >= 0x21) & (data[ends - 1] <= 0x7E), len(lengths))
        """[V] whether a token's last byte is a visible ASCII character."""
        self.begins_blank = _flags(held, (data[firsts] == 0x20) | (data[firsts] == 0x09), len(lengths))
        """[V] whether a token's first byte is a space or a tab."""
        self.ascii = bytes(np.logical_not(_any_above_ascii(data, firsts, held, len(lengths))))
        """[V] whether a token has ASCII characters alone, so that every place in it is between characters."""
        self.opens[held], self.closes[held] = word[firsts], word[ends - 1]

    def line_starts(self, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Byte behind each line feed, int64. `ids` [n] intp tokens, `offsets` [n + 1] their first bytes."""
        counts = self.lines.counts[ids]
        holders = np.flatnonzero(counts)
        counts, first = counts[holders], self.lines.first[ids[holders]]
        if len(counts) and counts.max() > 1:
            # 0, 1, 2 ... within each token that holds several.
            inner = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            holders, first = np.repeat(holders, counts), np.repeat(first, counts) + inner
        return offsets[holders] + self.lines.places[first] + 1

    def word_counts(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([n] words that begin up to the end of each token, [n] bool whether one begins at its first byte)."""
        at_first = self.opens[ids]
        at_first[1:] &= ~self.closes[ids[:-1]]
        return np.cumsum(self.words.counts[ids] + at_first), at_first


def _flags(held: np.ndarray, found: np.ndarray, size: int) -> bytes:
    flags = np.zeros(size, dtype=bool)
    flags[held] = found
    return bytes(flags)


def _any_above_ascii(data: np.ndarray, firsts: np.ndarray, held: np.ndarray, size: int) -> np.ndarray:
    above = np.zeros(size, dtype=bool)
    above[held[np.searchsorted(firsts, np.flatnonzero(data >= 0x80), side="right") - 1]] = True
    return above


class _Places:
    """Marked bytes by token: token t has `counts[t]` of them, at `places[first[t]]` and the following."""

    def __init__(self, marked: np.ndarray, held: np.ndarray, firsts: np.ndarray, size: int) -> None:
        owners = np.searchsorted(firsts, marked, side="right") - 1
        self.places = marked - firsts[owners]
        self.counts = np.bincount(held[owners], minlength=size)
        self.first = np.cumsum(self.counts) - self.counts


_MARKS: WeakKeyDictionary[Tokenizer, Marks] = WeakKeyDictionary()


def marks_of(tokenizer: Tokenizer) -> Marks:
    """The tables of a tokenizer, made once for each (about 30 ms for 150,000 tokens)."""
    found = _MARKS.get(tokenizer)
    if found is None:
        found = _MARKS[tokenizer] = Marks(tokenizer)
    return found


_GROUPS: dict[tuple[int, tuple[str, ...]], tuple[Sequence[str], np.ndarray]] = {}
_MOST_GROUPS = 64


def kind_groups(kinds: tuple[str, ...], patterns: tuple[str, ...]) -> np.ndarray:
    """[K] int64: for each node kind the first of the shell patterns that its name matches, -1 for none.

    Remembered by the identity of `kinds`, which a store has once: hashing hundreds of names would cost more than a cut.
    """
    key = (id(kinds), patterns)
    found = _GROUPS.get(key)
    if found is None:
        matches = [
            next((index for index, pattern in enumerate(patterns) if fnmatchcase(kind, pattern)), -1) for kind in kinds
        ]
        if len(_GROUPS) >= _MOST_GROUPS:
            _GROUPS.clear()
        # Holding on to `kinds` keeps its id from being given to another tuple.
        found = _GROUPS[key] = (kinds, np.array(matches, dtype=np.int64))
    return found[1]
