"""Exact splicing: the ids of prefix, middle and suffix as if each were encoded alone, without encoding them again.

A byte-level BPE never merges across pre-tokens, and a pre-tokenizer of the patterns named here always splits between a
visible ASCII character and a blank (space or tab) that follows it: no alternative of the pattern continues over that
place, none looks behind it, and a match that ends in a visible character never asks what comes next. Such a place is a
**firm border**: wherever the text before it begins, and wherever the text behind it ends, the ids on both sides are the
same. So between firm borders stored ids are copied, and only the few characters from a cut to the nearest firm border
are encoded. In code there is one about every seven bytes; where there is none, more is encoded, and the result is the
same. A tokenizer of any other pattern is spliced by encoding the three parts whole: slower, and exact.

Legend: `view` a piece of n tokens; `a <= b` byte offsets of the cuts, on character boundaries.
"""

from dataclasses import dataclass

import numpy as np

from inlay.fim.marks import marks_of
from inlay.fim.span import TextView
from inlay.text.pretokens import CL100K_PATTERN, GPT2_PATTERN, O200K_PATTERN, QWEN_PATTERN
from inlay.text.tokenizer import Tokenizer

FIRM_PATTERNS = frozenset({QWEN_PATTERN, CL100K_PATTERN, O200K_PATTERN, GPT2_PATTERN})
"""Patterns for which the argument above was made; the tests compare each with full encoding."""

_NONE = np.zeros(0, dtype=np.int32)
_NEAR = 24
"""Tokens looked at first on both sides of a cut."""


@dataclass(frozen=True, slots=True)
class Parts:
    """int32 ids of the three parts, each encoded as if alone."""

    prefix: np.ndarray
    middle: np.ndarray
    suffix: np.ndarray


class Splicer:
    """Cuts pieces under one tokenizer. Holds no state between calls."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.is_fast = tokenizer.pattern in FIRM_PATTERNS
        """False: every part is encoded whole."""
        marks = marks_of(tokenizer)
        self._ends_visible, self._begins_blank = marks.ends_visible, marks.begins_blank

    def cut(self, view: TextView, a: int, b: int, whole: bool = True) -> Parts:
        """The parts before `a`, from `a` to `b`, and behind `b`.

        `whole`: both ends of the piece are pre-token borders of its document, so its own ids are those of its text.
        """
        if not (self.is_fast and whole and view.size):
            return Parts(*(self._whole(view, *ends) for ends in ((0, a), (a, b), (b, view.size))))
        tokens = view.tokens
        left, before, after, right = self._around(view, a)
        prefix = _join(tokens[:left], self._encode(before))
        if a == b:
            return Parts(prefix, _NONE, self._behind(view, after, right))
        last, inner, rest, behind = self._around(view, b)
        if right is None or right > last:
            middle = self._whole(view, a, b)
        else:
            middle = _join(self._encode(after), tokens[right:last], self._encode(inner))
        return Parts(prefix, middle, self._behind(view, rest, behind))

    def upto(self, view: TextView, b: int, whole: bool = True) -> np.ndarray:
        """The ids of everything before `b` as one text: prefix and middle of a jointly encoded order."""
        if not (self.is_fast and whole and view.size):
            return self._whole(view, 0, b)
        left, before, _, _ = self._around(view, b)
        return _join(view.tokens[:left], self._encode(before))

    def _around(self, view: TextView, cut: int) -> tuple[int, bytes, bytes, int | None]:
        """The firm borders around a cut, and the bytes between them on both sides of it.

        Returns (left, before, after, right): the last token that begins at or before the cut at a firm border (0, the
        piece's start, is one), the first one at or behind it (None when there is none), and the bytes in between.
        """
        ends, begins, tokens, offsets = self._ends_visible, self._begins_blank, view.tokens, view.token_offsets
        count = len(tokens)
        # The token that begins at the cut or holds it; none at the piece's end.
        token = count if cut >= view.size else int(offsets.searchsorted(cut, side="right")) - 1
        behind = token if token == count or offsets[token] == cut else token + 1
        # Lists are faster than arrays for a look at a few; what is not found nearby is sought in the whole piece.
        for reach in (_NEAR, count):
            base = max(0, token - reach)
            near = tokens[base : token + reach + 1].tolist()
            left, right, last = min(token, count - 1) - base, behind - base, len(near)
            while left > 0 and not (begins[near[left]] and ends[near[left - 1]]):
                left -= 1
            while 0 < right < last and not (begins[near[right]] and ends[near[right - 1]]):
                right += 1
            if (left or not base) and (right < last or base + last == count):
                break
        firm = None if base + right == count else base + right
        if left == right:
            return base + left, b"", b"", firm
        data, at = self._tokenizer.decode_bytes(near[left:right]), cut - int(offsets[base + left])
        return base + left, data[:at], data[at:], firm

    def _behind(self, view: TextView, rest: bytes, behind: int | None) -> np.ndarray:
        """The ids of `rest`, which ends at the firm border `behind`, and of what follows to the end of the piece."""
        tokens = view.tokens
        if behind is None:
            return _join(self._encode(rest))
        # Blanks at the end of a piece were split with an eye on what follows in the document: they are encoded anew.
        if self._ends_visible[tokens[-1]]:
            return _join(self._encode(rest), tokens[behind:])
        last, inner, _, _ = self._around(view, view.size)
        return _join(self._encode(rest), tokens[behind:last], self._encode(inner))

    def _whole(self, view: TextView, start: int, stop: int) -> np.ndarray:
        return _join(self._encode(view.window(start, stop)))

    def _encode(self, data: bytes) -> list[int]:
        return self._tokenizer.encode(data.decode()) if data else []


def _join(*ids: np.ndarray | list[int]) -> np.ndarray:
    return np.concatenate(ids, dtype=np.int32, casting="unsafe")
