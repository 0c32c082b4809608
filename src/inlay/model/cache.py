"""The decode state of a whole model: one cache a layer that owns state, rings where a layer looks back a window only.

A layer with memory m (attention with a window of m keys, a convolution of m taps) keeps a ring of m + R slots, slot =
position mod (m + R): R positions can be taken back (an editor's keystrokes) before the ring has forgotten what the
window needs. A layer that sees everything keeps every position, and so does one whose ring would be no smaller.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inlay.model.mixer import LayerCache

ROLLBACK = 256
"""R: positions that can be taken back; also, less one, the most that are decoded at once while there are rings."""


@dataclass
class Cache:
    """`lengths` [B] int64: positions held by each row; `sizes`: slots by memory, of which `capacity` is the most."""

    layers: list[LayerCache | None]
    lengths: Tensor
    capacity: int
    sizes: dict[int | None, int]
    rollback: int
    seen: int = field(default=0)
    """What the longest row holds; keeps attention off the unused part without a device round trip."""
    written: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """[B]: positions ever written to each row since it was last empty; what a ring has overwritten depends on it."""

    def __post_init__(self) -> None:
        if self.written.shape != self.lengths.shape:
            self.written = self.lengths.clone()

    @property
    def has_rings(self) -> bool:
        """Whether some layer forgets what has left its window."""
        return any(size < self.capacity for size in self.sizes.values())

    def extend(self, positions: Tensor) -> None:
        """Counts new positions [B, T] (-1 is padding) as held. Raises ValueError beyond the capacity."""
        newest = int(positions.max()) + 1
        if newest > self.capacity:
            raise ValueError(f"position {newest - 1} does not fit a cache of {self.capacity}")
        self.seen = max(self.seen, newest)
        self.lengths = torch.maximum(self.lengths, positions.amax(dim=1) + 1)
        self.written = torch.maximum(self.written, self.lengths)

    def append_one(self) -> int:
        """Counts one new position of a one-row cache as held, as `extend` does, and returns it: no value is read back
        from a tensor. Raises ValueError beyond the capacity."""
        position = self.seen
        if position >= self.capacity:
            raise ValueError(f"position {position} does not fit a cache of {self.capacity}")
        self.seen = position + 1
        self.lengths = torch.full_like(self.lengths, self.seen)
        self.written = self.written.clamp(min=self.seen)
        return position

    def truncate(self, lengths: Tensor) -> Tensor:
        """Forgets what lies behind `lengths` [B]: later writes replace it, and masks hide it until then.

        Returns the lengths that are held now, [B]: 0 for a row whose ring no longer has what its window needs there.
        """
        kept = torch.minimum(self.lengths, lengths.to(self.lengths))
        for size in self.sizes.values():
            if size < self.capacity:
                lost = (self.written > size) & (kept < self.written - self.rollback) & (kept < self.lengths)
                kept = torch.where(lost, 0, kept)
        self.lengths = kept
        self.written = torch.where(kept == 0, 0, self.written)
        self.seen = int(kept.max()) if len(kept) else 0
        return kept

    def select(self, rows: Tensor) -> "Cache":
        """A copy of the given rows [b] only, in that order."""
        layers = [None if layer is None else layer.select(rows) for layer in self.layers]
        lengths, written = self.lengths[rows], self.written[rows]
        seen = int(lengths.max()) if len(lengths) else 0
        return Cache(layers, lengths, self.capacity, self.sizes, self.rollback, seen, written)
