"""Softmax attention with a mask, the one place that chooses how: every attention mixer calls `attend`.

On a CPU it is plain matmul, softmax, matmul with an additive mask: 2.3 times faster than scaled_dot_product_attention
forward and backward at T = 512, which stays as the witness in the tests.
Legend: B rows, T queries, S keys, H query heads, G key/value heads, D head size, E value head size.
"""

import torch
from torch import Tensor
from torch.nn import functional

from inlay.model.masks import Mask


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, *, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """softmax(cap(q k' scale) + mask) v: q [B, H, T, D], k [B, G, S, D], v [B, G, S, E], mask [B, 1, T, S] to
    [B, H, T, E].

    `scale` defaults to D^-1/2; cap(x) is `softcap` tanh(x / `softcap`), before the mask (Gemma 2).
    """
    batch, heads, length, size = query.shape
    scale = size**-0.5 if scale is None else scale
    if query.device.type != "cpu" and softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, enable_gqa=heads != key.shape[1]
        )
    groups = key.shape[1]
    if heads != groups:  # stack the query heads of a group along the time axis: one matmul, no repeated K/V
        query = query.reshape(batch, groups, -1, size)
    scores = torch.matmul(query * scale, key.to(query.dtype).transpose(-1, -2))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.view(batch, groups, -1, length, scores.shape[-1]) + mask[:, :, None]
    weights = torch.softmax(scores, dim=-1).view(batch, groups, -1, scores.shape[-1])
    return torch.matmul(weights, value.to(query.dtype)).view(batch, heads, length, value.shape[-1])
