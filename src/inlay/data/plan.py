"""The plan of an epoch: which piece of which document stands in which row. A pure function of (store, seed, epoch).

Documents longer than a row are chunked at pre-token starts (so every piece is valid UTF-8 and re-encodes to itself
inside), from a phase that is drawn anew each epoch. Pieces are shuffled, packed by best fit into rows, and the rows
shuffled. Greedy cutting at row ends left 32 % of the middles in one row with their prefix; best fit of whole pieces
leaves 100 %, at a fill around 97 %. It never splits a piece over two rows and never drops one.
"""

from dataclasses import dataclass

import numpy as np

from inlay.fim.draws import Draws, permutation
from inlay.fim.format import FimFormat
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.transform import Transform
from inlay.text.store import StoreSplit

WINDOW = 8192
"""Pieces that are packed together: enough for a tight fit, few enough to plan quickly."""
LONGEST_CHARACTER = 4
"""Bytes, and so tokens at most, of one UTF-8 character."""


@dataclass(frozen=True)
class Context:
    """Files that stand before a piece in its window (repository level): piece p has `first[p]:first[p + 1]` of them.

    `document`, `stop` [C] int64: tokens 0 to `stop` of `document`; `first` [P + 1] int64.
    """

    document: np.ndarray
    stop: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents in no order, each array [P]."""

    document: np.ndarray
    """int64"""
    start: np.ndarray
    """int64 tokens of the document; at document level slots of the document's rendered stream"""
    stop: np.ndarray
    """int64, likewise"""
    byte_start: np.ndarray
    """int64 bytes of the document where the text starts that is cut"""
    byte_stop: np.ndarray
    """int64, where it ends"""
    whole: np.ndarray
    """bool: both ends are pre-token borders of the document"""
    cost: np.ndarray
    """int64 slots that are kept for the piece in its row"""

    def take(self, order: np.ndarray) -> "Pieces":
        """The pieces in another order."""
        return Pieces(**{name: values[order] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Plan:
    """Pieces in row order: row r holds pieces `rows[r]:rows[r + 1]`. `document` ... `cost` [P] as in `Pieces`."""

    document: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    rows: np.ndarray
    byte_start: np.ndarray
    byte_stop: np.ndarray
    whole: np.ndarray
    cost: np.ndarray
    context: Context | None = None

    @property
    def row_count(self) -> int:
        """Rows in this epoch."""
        return len(self.rows) - 1

    @property
    def token_count(self) -> int:
        """Tokens of this epoch's pieces; at context and repository level every token of the split exactly once."""
        return int((self.stop - self.start).sum())


def plan_epoch(
    split: StoreSplit, form: FimFormat, length: int, seed: int, epoch: int, shortest: int | None = None
) -> Plan:
    """The epoch's pieces in rows of `length` slots.

    `shortest`: documents are chunked into pieces of log-uniform length from so many tokens to a whole row, which gives
    more middles per token; None chunks only documents that are longer than a row, into whole rows. Raises ValueError
    when it is not from 1 to `length - Transform.RESERVE`.
    """
    longest = length - Transform.RESERVE
    if shortest is not None and not 1 <= shortest <= longest:
        raise ValueError(f"shortest piece {shortest} is not from 1 to {longest}")
    return pack(_chunk(split, form, longest, shortest or longest, seed, epoch), length, seed, epoch)[0]


def pack(pieces: Pieces, length: int, seed: int, epoch: int) -> tuple[Plan, np.ndarray]:
    """Shuffles pieces, packs them into rows of `length` slots, shuffles the rows.

    Returns the plan and [P] int64: which of the given pieces stands at each place of it. Raises ValueError for a piece
    that costs more than a row.
    """
    order = permutation(len(pieces.document), seed, epoch, "pieces")
    cost = pieces.cost[order]
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
    placed = order[by_row]
    return Plan(rows=rows, **vars(pieces.take(placed))), placed


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


@dataclass(frozen=True)
class Borders:
    """Where a document is chunked, k pieces: `tokens`, `bytes` [k + 1] int64, and whether a pre-token starts there."""

    tokens: np.ndarray
    bytes: np.ndarray
    whole: np.ndarray


def chunk_document(
    split: StoreSplit, form: FimFormat, index: int, longest: int, shortest: int, draws: Draws
) -> Borders:
    """Borders of a document's pieces, none longer than `longest` tokens, each at a pre-token start where one is near.

    The first border is up to `longest` tokens in, the others are log-uniform from `shortest` on.
    """
    size = int(split.lengths[index])
    law = LogUniform(low=shortest, high=longest)
    starts = split.pretoken_starts(index)
    allowed = np.flatnonzero(starts)
    borders = [0]
    target = draws.integer(1, longest + 1)
    while target < size:
        border = int(allowed[np.searchsorted(allowed, target, side="right") - 1])
        if border <= borders[-1]:
            # A pre-token longer than a row (a huge run of spaces or emoji) has to be cut inside, between characters.
            # A character has at most four bytes, so among four tokens after a border one starts a character.
            inside = split.tokens(index, borders[-1] + 1, max(target, borders[-1] + LONGEST_CHARACTER) + 1)
            safe = np.flatnonzero(form.starts_character[inside])
            if len(safe) == 0:  # what is left is one character
                break
            border = borders[-1] + 1 + int(safe[-1])
        borders.append(border)
        target = border + law.draw(draws)
    at = np.array([*borders, size], dtype=np.int64)
    sizes = np.add.reduceat(form.tokenizer.token_lengths[split.tokens(index)], at[:-1], dtype=np.int64)
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return Borders(at, ends, np.append(starts[at[:-1]], True))


def _chunk(split: StoreSplit, form: FimFormat, longest: int, shortest: int, seed: int, epoch: int) -> Pieces:
    lengths = np.asarray(split.lengths)
    short = np.flatnonzero((lengths > 0) & (lengths <= shortest))
    zeros = np.zeros(len(short), dtype=np.int64)
    sizes = lengths[short].astype(np.int64)
    parts = [(short, zeros, sizes, zeros, split.byte_lengths[short].astype(np.int64), np.ones(len(short), bool))]
    for index in np.flatnonzero(lengths > shortest).tolist():
        cut = chunk_document(split, form, index, longest, shortest, Draws(seed, epoch, index, "phase"))
        tokens, ends, whole = cut.tokens, cut.bytes, cut.whole
        document = np.full(len(tokens) - 1, index, dtype=np.int64)
        parts.append((document, tokens[:-1], tokens[1:], ends[:-1], ends[1:], whole[:-1] & whole[1:]))
    document, start, stop, byte_start, byte_stop, whole = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Pieces(document, start, stop, byte_start, byte_stop, whole, stop - start + Transform.RESERVE)
