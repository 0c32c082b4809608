"""Masks from `positions` alone, built once a batch and once per distinct window; every mixer gets one and hands it on.

positions [B, T] restarts at 0 in each document and rises by 1, so the document of slot t starts at t - positions[t],
and key s is visible from query t iff oldest(t) <= s <= t, where oldest(t) is the document's start or, under a window of
W keys (the query's own included), t - W + 1 if that is later. `oldest` never falls along a row: which keys a block of
queries can see at all, and which it sees whole, follows from its first and its last query.

A mask takes one of three forms, and `inlay.model.attend` knows what to do with each: an additive tensor, strips of one
(on a CPU), or a block mask of FlexAttention (on a GPU).
Legend: B rows, T slots, S keys.
"""

import functools
import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Queries and keys of a block: what FlexAttention's kernels work on, and the smallest strip."""
STRIPS = 8
"""Most strips of a row: each one is compiled anew, and 8 already leave 9/16 of the square, of 1/2 that must be done."""


@dataclass(frozen=True)
class Strip:
    """Queries `first` to `end` (exclusive) and all keys that one of them can see: `oldest` to `end`. `mask`
    [B, 1, end - first, end - oldest] is additive."""

    first: int
    end: int
    oldest: int
    mask: Tensor


@dataclass(frozen=True)
class Strips:
    """A mask [B, 1, T, T] cut into runs of queries, without the keys that no query of a run can see."""

    parts: tuple[Strip, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As that of the whole."""
        end = self.parts[-1].end
        return *self.parts[0].mask.shape[:2], end, end


Mask = Tensor | Strips | BlockMask


def row_mask(positions: Tensor, window: int | None, dtype: torch.dtype) -> Mask:
    """The mask of packed rows [B, T] in the fastest form that their device has.

    A block of the nano model, forward and backward, compiled, fp32, one AVX2 core (`benchmarks/attention.py`): the
    whole mask takes 1.2 times as long as strips at T = 512, 1.15 at 1,024, and 1.5 with a window of 64 there.
    """
    if fuses(positions.device):
        return block_mask(positions, window)
    if positions.device.type == "cpu" and positions.shape[1] > BLOCK:
        return strips(positions, window, dtype)
    return document_mask(positions, window, dtype)


def document_mask(positions: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask [B, 1, T, T] for packed rows: 0 where key s is visible from query t, -inf elsewhere."""
    return _between(_oldest(positions, window), 0, positions.shape[1], 0, dtype)


def strips(positions: Tensor, window: int | None, dtype: torch.dtype) -> Strips:
    """The same in at most STRIPS strips of at least BLOCK queries.

    Cut by the window alone, not by where documents start: shapes must not change from batch to batch.
    """
    length = positions.shape[1]
    oldest = _oldest(positions, window)
    size = BLOCK * -(-length // (BLOCK * STRIPS))
    parts = []
    for first in range(0, length, size):
        end = min(length, first + size)
        # Aligned, so that rows of the score matrix start where vector units like it.
        reach = 0 if window is None else max(0, first - window + 1) // 16 * 16
        parts.append(Strip(first, end, reach, _between(oldest, first, end, reach, dtype)))
    return Strips(tuple(parts))


def block_mask(positions: Tensor, window: int | None) -> BlockMask:
    """The same for FlexAttention (2412.05496), from the first and last query of each block.

    Nothing of size T x T is made and nothing is compiled, so there is nothing to recompile from batch to batch; the
    window is inside a tensor, so layers that differ in nothing else share a kernel.
    """
    length = positions.shape[1]
    oldest = _oldest(positions, window)
    first = torch.arange(0, length, BLOCK, device=positions.device)
    last = (first + BLOCK - 1).clamp(max=length - 1)
    touched = (first[None, None, :] <= last[None, :, None]) & (last[None, None, :] >= oldest[:, first][:, :, None])
    whole = (last[None, None, :] <= first[None, :, None]) & (first[None, None, :] >= oldest[:, last][:, :, None])
    # A block that the row's end cuts is never whole.
    complete = first + BLOCK <= length
    whole &= complete[None, :, None] & complete[None, None, :]

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= oldest[row, query])

    return BlockMask.from_kv_blocks(
        *_ordered(touched & ~whole),
        *_ordered(whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


@functools.cache
def fuses(device: torch.device) -> bool:
    """Whether FlexAttention has kernels here: a GPU that Triton compiles for, and Triton."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0)


def cache_mask(
    positions: Tensor, lengths: Tensor, slots: int, seen: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    """Additive mask [B, 1, T, S] for decoding positions [B, T] over the first `seen` of a cache's `slots`.

    Position p of a row lies in slot p mod `slots`, and `lengths` [B] positions have been written, so slot s holds the
    newest position that is congruent to it.
    """
    newest = lengths[:, None] - 1
    held = newest - (newest - torch.arange(seen, device=positions.device)[None]) % slots  # [B, S]
    visible = (held >= 0)[:, None] & (held[:, None] <= positions[:, :, None])
    if window is not None:
        visible &= positions[:, :, None] - held[:, None] < window
    return _additive(visible, dtype)


def _oldest(positions: Tensor, window: int | None) -> Tensor:
    """The first key that each query sees, [B, T]."""
    slots = torch.arange(positions.shape[1], device=positions.device)
    start = slots - positions
    return start if window is None else torch.maximum(start, slots - window + 1)


def _between(oldest: Tensor, first: int, end: int, reach: int, dtype: torch.dtype) -> Tensor:
    """The additive mask of queries `first` to `end` and keys `reach` to `end`."""
    queries = torch.arange(first, end, device=oldest.device)[None, :, None]
    keys = torch.arange(reach, end, device=oldest.device)[None, None]
    return _additive((keys <= queries) & (keys >= oldest[:, first:end, None]), dtype)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[B, N, N] to the number of true blocks in each row, [B, 1, N], and their indices first, [B, 1, N, N]."""
    indices = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], indices.int()[:, None]


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    zero = torch.zeros((), device=visible.device, dtype=dtype)
    return torch.where(visible, zero, float("-inf"))[:, None]
