"""What a rendered example is made of: its tokens, what each of them is, and what a repository's header adds.

The numbers of `Region` and `Kind` are stored in rows and logs; new members go behind the old ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from inlay.fim.family import Order

Ids = Sequence[int] | np.ndarray
Hints = tuple[Ids, Ids]
"""Ids of the known beginning of the first line and of the known end of the last; either may be empty."""


class Region(IntEnum):
    """What a token is inside its example."""

    TEXT = 0
    PREFIX = 1
    SUFFIX = 2
    MIDDLE = 3
    SENTINEL = 4
    TERMINATOR = 5
    PADDING = 6
    HINT = 7
    """The known ends of a partial first and last line (FIM-SE)."""
    HEADER = 8
    """Repository name, file separators and paths."""


class Kind(IntEnum):
    """How an example is laid out; the order of a FIM example, or plain left-to-right text."""

    L2R = 0
    PSM = 1
    SPM = 2
    SPM_V2 = 3
    PADDING = 4
    SPM_JOINT = 5
    SPM_OPEN = 6


KIND_OF_ORDER: dict[Order, Kind] = {
    "psm": Kind.PSM,
    "spm": Kind.SPM,
    "spm_v2": Kind.SPM_V2,
    "spm_joint": Kind.SPM_JOINT,
    "spm_open": Kind.SPM_OPEN,
}

Part = tuple[Ids, Region]
"""Some ids, all of one region."""


@dataclass(frozen=True, slots=True)
class FimTokens:
    """An example as ids: `tokens` [n] int32, `regions` [n] uint8 (Region of each token), and its kind."""

    tokens: np.ndarray
    regions: np.ndarray
    kind: Kind


@dataclass(frozen=True, slots=True)
class Header:
    """A repository's name and other files, and the path of the file that follows. Made by `FimFormat.repository`.

    `tokens` [n] int32, `regions` [n] uint8: HEADER for names, paths and their sentinels, TEXT for the other files.
    The first `before` tokens stand before the FIM block, the others at the head of the prefix.
    """

    tokens: np.ndarray
    regions: np.ndarray
    before: int


@dataclass(frozen=True, slots=True)
class Repository:
    """What an example with a header says: the name (None where the form has none), other files, the last file."""

    name: str | None
    files: tuple[tuple[str, bytes], ...]
    path: str
    data: bytes
