"""A row: examples side by side in one window, with everything the model and the loss need to know of each slot.

Legend: T slots in a row. An example of n tokens takes n - 1 slots: slot t holds token t as input and token t + 1 as
target, so no slot is spent on a terminator's input and none predicts across documents. `positions` restarts at 0 in
each example and is the only boundary signal; the unused tail is one more document with weight 0. It refuses examples
that need more slots than the row has.
"""

from dataclasses import dataclass

import numpy as np

from inlay.data.plan import Plan
from inlay.fim.draws import Draws
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import Example, Transform
from inlay.text.store import StoreSplit


@dataclass(frozen=True, slots=True)
class Row:
    """All arrays [T]. `regions` and `weights` belong to the target; `kinds` to the example."""

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


@dataclass(frozen=True, slots=True)
class Placed:
    """An example in its row: its first slot, and the piece it was made of (tokens `start` to `stop` of `document`)."""

    example: Example
    slot: int
    document: int
    start: int
    stop: int


class RowMaker:
    """Makes any row of any epoch: row content is a pure function of (store, seed, epoch, row number)."""

    def __init__(self, split: StoreSplit, transform: Transform, length: int, seed: int) -> None:
        self.split = split
        self.transform = transform
        self.length = length
        self.seed = seed
        self._loss_table = transform.config.loss.table()

    def examples(self, plan: Plan, epoch: int, row: int) -> list[Placed]:
        """The row's examples in order."""
        pieces = range(int(plan.rows[row]), int(plan.rows[row + 1]))
        spare = self.length - sum(self._cost(plan, piece) for piece in pieces)
        placed, slot = [], 0
        for piece in pieces:
            document, start, stop = (int(values[piece]) for values in (plan.document, plan.start, plan.stop))
            # An example owns what was planned for it plus what the row has left over, so that few are trimmed.
            room = self._cost(plan, piece) + spare
            draws = Draws(self.seed, epoch, document, start)
            example = self.transform(self.split.tokens(document, start, stop), room + 1, draws)
            used = len(example.row.tokens) - 1
            spare = room - used
            placed.append(Placed(example, slot, document, start, stop))
            slot += used
        return placed

    def row(self, plan: Plan, epoch: int, row: int) -> Row:
        """The row as arrays."""
        return assemble(
            [placed.example for placed in self.examples(plan, epoch, row)],
            self.length,
            self.transform.format,
            self._loss_table,
        )

    @staticmethod
    def _cost(plan: Plan, piece: int) -> int:
        return int(plan.stop[piece] - plan.start[piece]) + Transform.RESERVE


def assemble(examples: list[Example], length: int, form: FimFormat, loss_table: np.ndarray) -> Row:
    """Joins examples to one row of `length` slots and fills the tail with padding of weight 0.

    `loss_table` [7] float32 by Region. Raises ValueError when the examples need more slots.
    """
    parts = [example.row for example in examples]
    sizes = [len(part.tokens) - 1 for part in parts]
    tail = length - sum(sizes)
    if tail < 0:
        raise ValueError(f"examples need {sum(sizes)} slots, the row has {length}")
    pad = np.full(tail, form.pad, dtype=np.int32)
    regions = np.concatenate([*(part.regions[1:] for part in parts), np.full(tail, Region.PADDING, dtype=np.uint8)])
    return Row(
        tokens=np.concatenate([*(part.tokens[:-1] for part in parts), pad]),
        targets=np.concatenate([*(part.tokens[1:] for part in parts), pad]),
        positions=np.concatenate([np.arange(size, dtype=np.int32) for size in [*sizes, tail]]),
        weights=loss_table[regions],
        kinds=np.repeat(np.array([*(part.kind for part in parts), Kind.PADDING], dtype=np.uint8), [*sizes, tail]),
        regions=regions,
    )
