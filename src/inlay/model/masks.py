"""Masks from `positions` alone, built once a batch and once per distinct window.

positions [B, T] restarts at 0 in each document, so the document of slot t starts at t - positions[t], and key s is
visible from query t iff start(t) <= s <= t, and t - s < W under a window of W keys (itself included).
"""

import torch
from torch import Tensor

Mask = Tensor


def document_mask(positions: Tensor, window: int | None, dtype: torch.dtype) -> Mask:
    """Additive mask [B, 1, T, T] for packed rows: 0 where key s is visible from query t, -inf elsewhere."""
    slots = torch.arange(positions.shape[1], device=positions.device)
    start = slots - positions
    visible = (slots[None, None, :] <= slots[None, :, None]) & (slots[None, None, :] >= start[:, :, None])
    if window is not None:
        visible &= slots[None, :, None] - slots[None, None, :] < window
    return _additive(visible, dtype)


def cache_mask(
    positions: Tensor, lengths: Tensor, slots: int, seen: int, window: int | None, dtype: torch.dtype
) -> Mask:
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


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    zero = torch.zeros((), device=visible.device, dtype=dtype)
    return torch.where(visible, zero, float("-inf"))[:, None]
