"""Levels: what is cut into prefix, middle and suffix, and how the result reaches the rows. One file a level.

A level plans an epoch, and makes the example of any piece of that plan from nothing but (store, seed, epoch, piece).
What all of them keep (the fit rule): a middle and its terminator are never cut. What does not fit goes from the head of
the prefix, then from the tail of the suffix; at repository level from the other files first. A level that cannot keep
it with this family or this length refuses when it is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from inlay.data.plan import Plan
from inlay.fim.span import Syntax
from inlay.fim.transform import Example, Transform
from inlay.text.store import StoreSplit


@dataclass(frozen=True, slots=True)
class Placed:
    """An example in its row, and the text it was made of."""

    example: Example
    slot: int
    """First slot in the row."""
    document: int
    start: int
    """First token of the document in this piece; at document level the first slot of the document's stream."""
    stop: int
    size: int
    """Bytes of the text that was cut."""
    part: int = 0
    """Which window of its example this is; another number than 0 of 1 only at document level."""
    parts: int = 1
    """Windows that the example takes."""
    context: tuple[int, ...] = ()
    """Documents that stand before this one in the window."""
    context_text: int = 0
    """Tokens of their text."""


class Piece(NamedTuple):
    """One piece of a plan: its number there, and its entries in the arrays of `Pieces`."""

    number: int
    document: int
    start: int
    stop: int
    byte_start: int
    byte_stop: int
    whole: bool
    cost: int


def pieces_of(plan: Plan, row: int) -> list[Piece]:
    """The pieces of one row, in order."""
    first, last = int(plan.rows[row]), int(plan.rows[row + 1])
    columns = (plan.document, plan.start, plan.stop, plan.byte_start, plan.byte_stop, plan.whole, plan.cost)
    return list(map(Piece, range(first, last), *(column[first:last].tolist() for column in columns)))


@dataclass(frozen=True, slots=True)
class Setting:
    """What a level works on: `length` slots a row, `shortest` as `data.shortest_piece`, names of the node kinds."""

    split: StoreSplit
    transform: Transform
    length: int
    seed: int
    shortest: int | None = None
    span_kinds: tuple[str, ...] = ()


class Level(ABC):
    """One level over one split. Keeps caches only: what it returns does not depend on earlier calls."""

    def __init__(self, setting: Setting) -> None:
        """Raises BadInput when this level cannot be had with the transform's family or with rows of this length."""
        self.split = setting.split
        self.transform = setting.transform
        self.form = setting.transform.format
        self.length = setting.length
        self.seed = setting.seed
        self.shortest = setting.shortest
        self._span_kinds = setting.span_kinds

    @abstractmethod
    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch."""

    @abstractmethod
    def place(self, plan: Plan, epoch: int, piece: Piece, slot: int, room: int) -> Placed | None:
        """The example of one piece of the plan, in `room` slots from `slot` on; at least `piece.cost` of them.

        None for a window that nothing is left for (document level: the example came out shorter than was planned).
        """

    def syntax(self, document: int, byte_start: int = 0, byte_stop: int | None = None) -> Callable[[], Syntax | None]:
        """Gives the syntax nodes of a piece of a document when called; None when nothing was parsed.

        Reading them costs as much as a cut, and plain text and cuts at characters never look.
        """

        def read() -> Syntax | None:
            nodes = self.split.spans(document)
            if len(nodes) == 0:
                return None
            syntax = Syntax(nodes, self._span_kinds)
            whole = byte_start == 0 and (byte_stop is None or byte_stop == int(self.split.byte_lengths[document]))
            return syntax if whole or byte_stop is None else syntax.within(byte_start, byte_stop)

        return read
