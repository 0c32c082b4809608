"""A row: examples side by side in one window, with everything the model and the loss need to know of each slot.

Legend: T slots in a row. An example of n tokens takes n - 1 slots: slot t holds token t as input and token t + 1 as
target, so no slot is spent on a terminator's input and none predicts across documents. `positions` restarts at 0 in
each example and is the only boundary signal; the unused tail is one more document with weight 0. It refuses examples
that need more slots than the row has.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from inlay.data.level import Level, Placed, Setting, pieces_of
from inlay.data.levels.context import ContextLevel
from inlay.data.levels.document import DocumentLevel
from inlay.data.levels.repository import RepositoryLevel
from inlay.data.plan import Plan
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import Example, Transform
from inlay.text.store import StoreSplit

LEVELS: dict[str, type[Level]] = {
    "context": ContextLevel,
    "document": DocumentLevel,
    "repository": RepositoryLevel,
}

NOT_MIDDLE = -1
"""`Row.remaining` of a slot that predicts no token of a middle."""


@dataclass(frozen=True, slots=True)
class Row:
    """All arrays are [T]. `regions`, `weights` and `remaining` belong to the target; `kinds` to the example."""

    tokens: np.ndarray
    """int32 input ids"""
    targets: np.ndarray
    """int32 ids to predict"""
    positions: np.ndarray
    """int32, restarts at 0 in each example"""
    weights: np.ndarray
    """float32, 0 where not trained"""
    kinds: np.ndarray
    """uint8, Kind"""
    regions: np.ndarray
    """uint8, Region of the target"""
    remaining: np.ndarray
    """int32: where the target is token t = 0 ... M - 1 of a middle of M tokens, the M - t that are still to come, this
    one included; 0 where it is the middle's terminator; -1 elsewhere"""
    source: int = 0
    """Number of its source in a mixture"""


class RowMaker:
    """Makes any row of any epoch: row content is a pure function of (store, seed, epoch, row number)."""

    def __init__(
        self,
        split: StoreSplit,
        transform: Transform,
        length: int,
        seed: int,
        shortest: int | None = None,
        span_kinds: tuple[str, ...] = (),
    ) -> None:
        """Arguments as in `Setting`. Raises BadInput when the configured level cannot be had."""
        self.split = split
        self.transform = transform
        self.length = length
        self.seed = seed
        self.level = LEVELS[transform.config.level](Setting(split, transform, length, seed, shortest, span_kinds))
        self._loss_table = transform.config.loss.table()

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, made anew."""
        return self.level.plan(epoch)

    def examples(self, plan: Plan, epoch: int, row: int) -> list[Placed]:
        """The row's examples in order."""
        pieces = pieces_of(plan, row)
        spare = self.length - sum(piece.cost for piece in pieces)
        found, slot = [], 0
        for piece in pieces:
            # An example owns what was planned for it plus what the row has left over, so that few are trimmed.
            room = piece.cost + spare
            placed = self.level.place(plan, epoch, piece, slot, room)
            if placed is None:
                spare = room
                continue
            used = len(placed.example.row.tokens) - 1
            spare = room - used
            found.append(placed)
            slot += used
        return found

    def row(self, plan: Plan, epoch: int, row: int) -> Row:
        """The row as arrays."""
        return assemble(
            [placed.example for placed in self.examples(plan, epoch, row)],
            self.length,
            self.transform.format,
            self._loss_table,
        )


def assemble(examples: list[Example], length: int, form: FimFormat, loss_table: np.ndarray) -> Row:
    """Joins examples to one row of `length` slots and fills the tail with padding of weight 0.

    `loss_table` [R] float32 by Region. Raises ValueError when the examples need more slots.
    """
    parts = [example.row for example in examples]
    sizes = [len(part.tokens) - 1 for part in parts]
    tail = length - sum(sizes)
    if tail < 0:
        raise ValueError(f"examples need {sum(sizes)} slots, the row has {length}")
    pad, no_region, slots = _constants(length, form.pad)
    kinds = np.array([*(part.kind for part in parts), Kind.PADDING], dtype=np.uint8)
    widths = np.array([*sizes, tail])
    ends = np.cumsum(widths, dtype=np.int32)
    regions = np.concatenate([*[part.regions[1:] for part in parts], no_region[:tail]])
    looked_up = regions.astype(np.intp)  # what numpy indexes with, made once for two tables
    # A middle is the last part of its example in every order, with the terminator behind it.
    remaining = np.where(_IN_MIDDLE.take(looked_up), (ends - 1).repeat(widths) - slots, _NOT_MIDDLE)
    remaining[ends[:-1][kinds[:-1] == Kind.L2R] - 1] = NOT_MIDDLE  # that terminator ends a text and no middle
    return Row(
        tokens=np.concatenate([*[part.tokens[:-1] for part in parts], pad[:tail]]),
        targets=np.concatenate([*[part.tokens[1:] for part in parts], pad[:tail]]),
        positions=slots - (ends - widths).astype(np.int32).repeat(widths),
        weights=loss_table.take(looked_up),
        kinds=kinds.repeat(widths),
        regions=regions,
        remaining=remaining,
    )


def relative_horizon(remaining: np.ndarray) -> np.ndarray:
    """The target of horizon-length prediction (2410.03103 section 3): `remaining` [..., T] to float32 [..., T].

    (M - t) / M where the target is token t of a middle of M tokens: 1 at its first token, 0 at its terminator; NaN
    elsewhere, also for an empty middle, of which there is nothing to measure.
    """
    before = np.full_like(remaining, NOT_MIDDLE)
    before[..., 1:] = remaining[..., :-1]
    begins = (remaining > 0) & (before != remaining + 1)
    begins |= (remaining == 0) & (before != 1)
    index = np.where(begins, np.arange(remaining.shape[-1]), 0)
    total = np.take_along_axis(remaining, np.maximum.accumulate(index, axis=-1), axis=-1)
    inside = (remaining >= 0) & (total > 0)
    horizon = np.full(remaining.shape, np.nan, dtype=np.float32)
    np.divide(remaining, total, out=horizon, where=inside, casting="unsafe")
    return horizon


_IN_MIDDLE = np.array([region in (Region.MIDDLE, Region.TERMINATOR) for region in Region])
_NOT_MIDDLE = np.int32(NOT_MIDDLE)


@cache
def _constants(length: int, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padding ids and regions, and slot numbers, of a whole row; shared, so never written to."""
    arrays = (
        np.full(length, pad, dtype=np.int32),
        np.full(length, Region.PADDING, dtype=np.uint8),
        np.arange(length, dtype=np.int32),
    )
    for array in arrays:
        array.flags.writeable = False
    return arrays
