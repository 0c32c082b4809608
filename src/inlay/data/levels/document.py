"""Document level: the cut is drawn on the whole document, and what comes out is chunked into windows afterwards.

This is what most public models were trained with. The three parts of a long document fall into different windows: that
is its known cost, and what the effective rate reports. It keeps more than the usual way of it: windows are counted from
the end of the rendered stream, so that the last one is a full row that holds the middle whole, its sentinel and its
terminator. A middle too long for that leaves its document plain text. A window's targets are whole characters; its
first input is the last target of the window before, so every token of the stream but the first is predicted once.
"""

from collections import OrderedDict
from dataclasses import replace

import numpy as np

from inlay.data.level import Level, Piece, Placed, Setting
from inlay.data.plan import LONGEST_CHARACTER, Pieces, Plan, pack
from inlay.fim.draws import Draws
from inlay.fim.format import FimTokens, Kind, Region
from inlay.fim.transform import Example, Transform, character_from

CACHED_TOKENS = 4_000_000
"""Rendered tokens of long documents that are kept: 20 MB, so that a document is not cut again for each window."""
SLACK = LONGEST_CHARACTER - 1
"""Slots by which a border may move to the start of a character."""


class DocumentLevel(Level):
    """Cut whole documents, then chunk. `data.shortest_piece` has no meaning here: nothing is chunked before the cut."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._stride = self.length - SLACK
        self._bare = self.form.overhead(None) - 1
        self._cache: OrderedDict[tuple[int, int], Example] = OrderedDict()
        self._cached = 0

    def plan(self, epoch: int) -> Plan:
        lengths = np.asarray(self.split.lengths, dtype=np.int64)
        document = np.flatnonzero(lengths > 0)
        windows, slots = self._windows(lengths[document])
        owner = np.repeat(np.arange(len(document)), windows)
        first = np.cumsum(windows) - windows
        later = windows[owner] - 1 - (np.arange(len(owner)) - first[owner])  # windows of the same document behind it
        stop = slots[owner] - later * self._stride
        start = np.maximum(0, stop - self._stride)
        start[windows[owner] == 1] = 0
        sizes = np.asarray(self.split.byte_lengths, dtype=np.int64)[document]
        zeros = np.zeros(len(owner), dtype=np.int64)
        cost = stop - start + np.where(windows[owner] > 1, SLACK, 0)
        pieces = Pieces(document[owner], start, stop, zeros, sizes[owner], np.ones(len(owner), bool), cost)
        return pack(pieces, self.length, self.seed, epoch)[0]

    def place(self, plan: Plan, epoch: int, piece: Piece, slot: int, room: int) -> Placed | None:
        document, start, stop = piece.document, piece.start, piece.stop
        (parts,), (slots,) = self._windows(self.split.lengths[document : document + 1])
        parts, slots, size = int(parts), int(slots), piece.byte_stop
        if parts == 1:
            example = self._cut(document, epoch, room + 1)
            return Placed(example, slot, document, start, stop, size)
        stream = self._stream(document, epoch, slots + 1)
        later = (slots - stop) // self._stride
        row = stream.row
        end = len(row.tokens) - later * self._stride
        border = self._border(row, end - self._stride) if start else 1
        end = self._border(row, end) if later else end
        if end <= border:
            return None
        window = FimTokens(row.tokens[border - 1 : end], row.regions[border - 1 : end], row.kind)
        trimmed = 0 if start else stream.trimmed  # what was trimmed is counted once
        example = replace(stream, row=window, trimmed=trimmed)
        return Placed(example, slot, document, start, stop, size, parts - 1 - later, parts)

    def _windows(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For documents of [D] tokens the number of windows [D] and the slots of the whole stream [D] at most."""
        wanted = lengths.astype(np.int64) + Transform.RESERVE
        windows = np.where(wanted <= self.length, 1, -(-(lengths + self._bare) // self._stride))
        return windows, np.where(
            windows == 1, np.minimum(wanted, self.length), np.minimum(wanted, windows * self._stride)
        )

    def _border(self, row: FimTokens, index: int) -> int:
        return character_from(row.tokens, max(1, index), self.form.starts_character)

    def _stream(self, document: int, epoch: int, capacity: int) -> Example:
        """The rendered document, from the cache or made anew; both are the same."""
        key = (epoch, document)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        example = self._cut(document, epoch, capacity)
        middle = int(np.count_nonzero(example.row.regions == Region.MIDDLE))
        if example.row.kind != Kind.L2R and middle + 2 > self._stride:
            plain = self.form.plain(self.split.tokens(document))
            example = replace(example, row=plain, strategy=None, span=None, trimmed=0, node_kind=None, fallback=None)
        self._cache[key] = example
        self._cached += len(example.row.tokens)
        while self._cached > CACHED_TOKENS and len(self._cache) > 1:
            self._cached -= len(self._cache.popitem(last=False)[1].row.tokens)
        return example

    def _cut(self, document: int, epoch: int, capacity: int) -> Example:
        draws = Draws(self.seed, epoch, document, 0)
        return self.transform(self.split.tokens(document), capacity, draws, syntax=self.syntax(document), whole=True)
