"""Removal of copies: exact ones everywhere, near ones across the split.

Exact means equal after normalising line ends and blanks at the ends of lines. A near copy matters only where it
flatters a measurement: a validation document most of whose lines stand in one training document (a vendored or forked
file) is left out. The line index covers the validation split alone, so its memory stays small however large the corpus
is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import xxhash
from pydantic import Field

from inlay.config import Config

_MIN_LINE_CHARACTERS = 16
_MAX_HOLDERS = 20


class DedupConfig(Config):
    """What counts as a copy."""

    near_copy_share: float | None = Field(0.5, gt=0, le=1)
    """A validation document is left out when more than this share of its lines stands in one training document; None
    keeps all.
    """


class ExactDedup:
    """Remembers what was seen, as 16 bytes per document."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_copy(self, text: str) -> bool:
        """Whether an equal text was given before; remembers this one."""
        key = normal_hash(text)
        if key in self._seen:
            return True
        self._seen.add(key)
        return False


def normal_hash(text: str) -> bytes:
    """xxh3_128 of the text without blanks at line ends, with `\\n` line ends, without blank lines at its end."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return xxhash.xxh3_128_digest("\n".join(lines).rstrip("\n").encode())


def near_copies(validation: Iterable[str], training: Iterable[str], share: float) -> set[int]:
    """Positions in `validation` of texts of which more than `share` of the distinct lines stands in one training text.

    Lines count from 16 characters (blanks at the ends aside), and only where at most 20 validation texts have them:
    licence heads and common imports say nothing about copying. A text of which such common lines are the larger part
    (one of many that were made from one template) is judged by all of its lines.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(validation):
        for line in telling_lines(text):
            holders[line].append(position)
    sizes = Counter(position for positions in holders.values() for position in positions)
    rare = Counter(
        position for positions in holders.values() if len(positions) <= _MAX_HOLDERS for position in positions
    )
    common = {position for position, size in sizes.items() if rare[position] < size / 2}
    telling = {}
    for line, positions in holders.items():
        kept = positions if len(positions) <= _MAX_HOLDERS else [one for one in positions if one in common]
        if kept:
            telling[line] = np.array(kept)
    wanted = np.zeros(max(sizes, default=-1) + 1)
    for position, size in sizes.items():
        wanted[position] = share * (size if position in common else rare[position])
    known = telling.keys()
    found: set[int] = set()
    for text in training:
        shared = [telling[line] for line in telling_lines(text) & known]
        if shared:
            counts = np.bincount(np.concatenate(shared), minlength=len(wanted))
            found.update(np.flatnonzero((counts > wanted) & (counts > 0)).tolist())
    return found


def telling_lines(text: str) -> set[str]:
    """The distinct lines of a text that are long enough to be recognised, without blanks at their ends."""
    return {line for line in map(str.strip, text.splitlines()) if len(line) >= _MIN_LINE_CHARACTERS}
