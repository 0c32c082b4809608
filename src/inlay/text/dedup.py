"""Removal of copies: exact ones everywhere, near ones across the split.

Exact means equal after normalising line ends and blanks at the ends of lines. A near copy matters only where it
flatters a measurement: a validation document most of whose lines stand in one training document (a vendored or forked
file) is left out. The line index covers the validation split alone, so its memory stays small however large the corpus
is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

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
    licence heads and common imports say nothing about copying.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(validation):
        for line in telling_lines(text):
            holders[line].append(position)
    telling = {line: positions for line, positions in holders.items() if len(positions) <= _MAX_HOLDERS}
    sizes = Counter(position for positions in telling.values() for position in positions)
    known = telling.keys()
    found: set[int] = set()
    for text in training:
        shared = Counter(position for line in telling_lines(text) & known for position in telling[line])
        found.update(position for position, count in shared.items() if count > share * sizes[position])
    return found


def telling_lines(text: str) -> set[str]:
    """The distinct lines of a text that are long enough to be recognised, without blanks at their ends."""
    return {line for line in map(str.strip, text.splitlines()) if len(line) >= _MIN_LINE_CHARACTERS}
