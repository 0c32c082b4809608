"""The plan of an epoch: which piece of which document stands in which row. A pure function of (store, seed, epoch).

Documents longer than a row are chunked at pre-token starts (so every piece is valid UTF-8 and re-encodes to itself
inside), from a phase that is drawn anew each epoch. Pieces are shuffled, packed by best fit into rows, and the rows
shuffled. Greedy cutting at row ends left 32 % of the middles in one row with their prefix; best fit of whole pieces
leaves 100 %, at a fill around 97 %. It never splits a piece over two rows and never drops one.
"""

from dataclasses import dataclass

import numpy as np

from inlay.fim.draws import Draws, permutation
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.transform import Transform
from inlay.text.store import StoreSplit

WINDOW = 8192
"""Pieces that are packed together: enough for a tight fit, few enough to plan quickly."""
LONGEST_CHARACTER = 4
"""Bytes, and so tokens at most, of one UTF-8 character."""


@dataclass(frozen=True)
class Plan:
    """Pieces in row order. `document`, `start`, `stop` [P] int64; row r holds pieces `rows[r]:rows[r + 1]`."""

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    rows: np.ndarray

    @property
    def row_count(self) -> int:
        """Rows in this epoch."""
        return len(self.rows) - 1

    @property
    def token_count(self) -> int:
        """Document tokens in this epoch: every token of the split exactly once."""
        return int((self.stop - self.start).sum())


def plan_epoch(
    split: StoreSplit,
    starts_character: np.ndarray,
    length: int,
    seed: int,
    epoch: int,
    shortest: int | None = None,
) -> Plan:
    """The epoch's pieces in rows of `length` slots. `starts_character` [V] bool: FimFormat's table of safe cuts.

    `shortest`: documents are chunked into pieces of log-uniform length from so many tokens to a whole row, which gives
    more middles per token; None chunks only documents that are longer than a row, into whole rows. Raises ValueError
    when it is not from 1 to `length - Transform.RESERVE`.
    """
    longest = length - Transform.RESERVE
    if shortest is not None and not 1 <= shortest <= longest:
        raise ValueError(f"shortest piece {shortest} is not from 1 to {longest}")
    document, start, stop = _chunk(split, starts_character, longest, shortest or longest, seed, epoch)
    order = permutation(len(document), seed, epoch, "pieces")
    document, start, stop = document[order], start[order], stop[order]
    cost = stop - start + Transform.RESERVE
    row_of = np.empty(len(cost), dtype=np.int64)
    count = 0
    for begin in range(0, len(cost), WINDOW):
        part, used = best_fit(cost[begin : begin + WINDOW], length)
        row_of[begin : begin + WINDOW] = part + count
        count += used
    shuffled = np.empty(count, dtype=np.int64)
    shuffled[permutation(count, seed, epoch, "rows")] = np.arange(count)
    row_of = shuffled[row_of]
    by_row = np.argsort(row_of, kind="stable")
    rows = np.searchsorted(row_of[by_row], np.arange(count + 1))
    return Plan(document[by_row], start[by_row], stop[by_row], rows)


def best_fit(cost: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Best-fit decreasing: each piece goes to the fullest row that still holds it.

    `cost` [n] slots per piece. Returns ([n] int64 row of each piece, rows used). The row is found through a bit set
    over free space, so a piece costs O(1) word operations. Raises ValueError for a piece above `capacity`. Packing
    whole pieces this way, instead of cutting at row ends, is 2404.10830.
    """
    if len(cost) and int(cost.max()) > capacity:
        raise ValueError(f"a piece of {int(cost.max())} slots does not fit a row of {capacity}")
    row_of = np.empty(len(cost), dtype=np.int64)
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by free slots
    available = 0  # bit f is set when some row has exactly f free slots
    count = 0
    for index in np.argsort(-cost, kind="stable").tolist():
        need = int(cost[index])
        fitting = available >> need
        if fitting:
            free = need + (fitting & -fitting).bit_length() - 1
            row = waiting[free].pop()
            if not waiting[free]:
                available &= ~(1 << free)
        else:
            free, row = capacity, count
            count += 1
        row_of[index] = row
        left = free - need
        waiting[left].append(row)
        available |= 1 << left
    return row_of, count


def _chunk(
    split: StoreSplit, starts_character: np.ndarray, longest: int, shortest: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.asarray(split.lengths)
    short = np.flatnonzero((lengths > 0) & (lengths <= shortest))
    documents, starts, stops = [short], [np.zeros(len(short), dtype=np.int64)], [lengths[short].astype(np.int64)]
    for index in np.flatnonzero(lengths > shortest).tolist():
        cuts = _cuts(split, starts_character, index, longest, shortest, Draws(seed, epoch, index, "phase"))
        documents.append(np.full(len(cuts) - 1, index, dtype=np.int64))
        starts.append(cuts[:-1])
        stops.append(cuts[1:])
    return np.concatenate(documents), np.concatenate(starts), np.concatenate(stops)


def _cuts(
    split: StoreSplit, starts_character: np.ndarray, index: int, longest: int, shortest: int, draws: Draws
) -> np.ndarray:
    """Borders of a long document's pieces, none longer than `longest`, each at a pre-token start where one is near."""
    size = int(split.lengths[index])
    law = LogUniform(low=shortest, high=longest)
    allowed = np.flatnonzero(split.pretoken_starts(index))
    borders = [0]
    target = draws.integer(1, longest + 1)
    while target < size:
        border = int(allowed[np.searchsorted(allowed, target, side="right") - 1])
        if border <= borders[-1]:
            # A pre-token longer than a row (a huge run of spaces or emoji) has to be cut inside, between characters.
            # A character has at most four bytes, so among four tokens after a border one starts a character.
            inside = split.tokens(index, borders[-1] + 1, max(target, borders[-1] + LONGEST_CHARACTER) + 1)
            safe = np.flatnonzero(starts_character[inside])
            if len(safe) == 0:  # what is left is one character
                break
            border = borders[-1] + 1 + int(safe[-1])
        borders.append(border)
        target = border + law.draw(draws)
    return np.array([*borders, size], dtype=np.int64)
