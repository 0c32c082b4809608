"""The one format object: training rows, evaluation and served prompts all come from it, and it can invert itself.

It works on token ids: the three parts are encoded each as if alone by the caller, and the sentinels are placed here. It
refuses a tokenizer in which a sentinel is not exactly one special token, and an order its family does not have.

Orders (2207.14255 section 3 and appendix D; reference names as in the literature), `p` prefix, `m` middle, `s` suffix:

    psm      <PRE> p <SUF> s <MID> m <EOT>
    spm      <SUF> s <PRE> p <MID> m <EOT>      SPM version 1, what llama.cpp's --spm-infill sends
    spm_v2   <PRE> <SUF> s <MID> p m <EOT>      SPM version 2, no sentinel between p and m
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from inlay.config import BadInput
from inlay.fim.family import Family, Order, families
from inlay.text.tokenizer import Tokenizer

Ids = Sequence[int] | np.ndarray


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


KIND_OF_ORDER: dict[Order, Kind] = {"psm": Kind.PSM, "spm": Kind.SPM, "spm_v2": Kind.SPM_V2}


@dataclass(frozen=True, slots=True)
class FimTokens:
    """An example as ids: `tokens` [n] int32, `regions` [n] uint8 (Region of each token), and its kind."""

    tokens: np.ndarray
    regions: np.ndarray
    kind: Kind


class FimFormat:
    """A family resolved against a tokenizer. Create with `FimFormat.load(name, tokenizer)`."""

    OVERHEAD = 4
    """Tokens that a FIM example has beside its three parts: three sentinels and the terminator."""

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.name = family.kind
        self.prefix = self._special(family.prefix)
        self.middle = self._special(family.middle)
        self.suffix = self._special(family.suffix)
        self.pad = self._special(family.pad)
        self.eot = self._special(family.terminator)
        self._specials = frozenset(tokenizer.special.values())
        # A sentinel inside a middle is never text: it ends a completion as well, named apart from the terminator.
        sentinels = (self.prefix, self.middle, self.suffix, self.pad)
        self.stop_ids = frozenset({self.eot, *sentinels, *(self._special(stop) for stop in family.stops)})
        # A vocabulary may have holes: ids that no token has.
        first = [
            tokenizer.decode_bytes([token] if size else [])[:1] for token, size in enumerate(tokenizer.token_lengths)
        ]
        self.starts_character = np.array([not byte or byte[0] & 0xC0 != 0x80 for byte in first])
        """[V] bool: whether a token starts on a character boundary, so that text may be cut before it."""

    @classmethod
    def load(cls, name: str, tokenizer: Tokenizer) -> "FimFormat":
        """The family called `name` on this tokenizer. Raises ConfigError (unknown family), BadInput (sentinels)."""
        return cls(families.get(name)(), tokenizer)  # type: ignore[arg-type]

    def render(self, prefix: Ids, middle: Ids, suffix: Ids, order: Order) -> FimTokens:
        """A whole training example, terminator included: prefix, middle, suffix ids to one row of ids.

        Raises BadInput for an order that the family does not have.
        """
        parts = self._layout(prefix, suffix, order)
        parts += [(middle, Region.MIDDLE), ((self.eot,), Region.TERMINATOR)]
        return _join(parts, KIND_OF_ORDER[order])

    def prompt(self, prefix: Ids, suffix: Ids, order: Order) -> list[int]:
        """The ids up to where the model begins the middle: `render` without middle and terminator.

        Raises BadInput for an order that the family does not have.
        """
        return [int(token) for ids, _ in self._layout(prefix, suffix, order) for token in ids]

    def plain(self, text: Ids) -> FimTokens:
        """A left-to-right example: the text and a trained terminator."""
        return _join([(text, Region.TEXT), ((self.eot,), Region.TERMINATOR)], Kind.L2R)

    def restore(self, tokens: Ids) -> bytes:
        """The document's bytes from a rendered example: the inverse of `render` and `plain`.

        Raises ValueError when `tokens` is no whole example of this format.
        """
        ids = [int(token) for token in tokens]
        if not ids or ids.pop() != self.eot:
            raise ValueError("the example does not end in its terminator")
        marks = [(index, token) for index, token in enumerate(ids) if token in (self.prefix, self.middle, self.suffix)]
        order = [token for _, token in marks]
        at = [index for index, _ in marks]
        decode = self.tokenizer.decode_bytes
        # Text never encodes to a special token, so one in a part is a border of something else than this example.
        if len(marks) != sum(token in self._specials for token in ids):
            raise ValueError("the example has a special token inside a part")
        if not marks:
            return decode(ids)
        known = ([self.prefix, self.suffix, self.middle], [self.suffix, self.prefix, self.middle])
        if at[0] != 0 or order not in known:
            raise ValueError("the sentinels are in no known order")
        first, second, third = ids[1 : at[1]], ids[at[1] + 1 : at[2]], ids[at[2] + 1 :]
        if order[0] == self.suffix:
            return decode(second) + decode(third) + decode(first)
        # `<PRE><SUF>s<MID>pm` reads as PSM with an empty prefix, and both restore to what follows <MID>, then s.
        return decode(first) + decode(third) + decode(second)

    def check_order(self, order: Order) -> None:
        """Raises BadInput when the family has no such order."""
        if order not in self.family.orders:
            orders = ", ".join(self.family.orders)
            raise BadInput(f"format family '{self.name}' has no order '{order}'; it has {orders}")

    def _layout(self, prefix: Ids, suffix: Ids, order: Order) -> list[tuple[Ids, Region]]:
        self.check_order(order)
        p, s = (prefix, Region.PREFIX), (suffix, Region.SUFFIX)
        pre, suf, mid = (((token,), Region.SENTINEL) for token in (self.prefix, self.suffix, self.middle))
        if order == "psm":
            return [pre, p, suf, s, mid]
        if order == "spm":
            return [suf, s, pre, p, mid]
        return [pre, suf, s, mid, p]

    def _special(self, text: str) -> int:
        token = self.tokenizer.special.get(text)
        if token is None:
            raise BadInput(
                f"format family '{self.family.kind}': '{text}' is not one special token of this tokenizer;"
                " choose another fim.family or another tokenizer"
            )
        return token


def _join(parts: list[tuple[Ids, Region]], kind: Kind) -> FimTokens:
    tokens = np.concatenate([np.asarray(ids, dtype=np.int32) for ids, _ in parts])
    regions = np.repeat(
        np.array([region for _, region in parts], dtype=np.uint8), np.array([len(ids) for ids, _ in parts])
    )
    return FimTokens(tokens, regions, kind)
