"""Softmax attention with a mask, the one place that chooses how: every attention mixer calls `attend`.

On a CPU it is plain matmul, softmax, matmul with an additive mask, in strips of queries over the keys that they can
reach. On a GPU it is FlexAttention (2412.05496), which skips what is masked and makes no table of scores. Elsewhere,
and for cached decode, scaled_dot_product_attention with an additive mask. scaled_dot_product_attention is also the
witness in the tests. `benchmarks/attention.py` measures them.
Legend: B rows, T queries, S keys, H query heads, G key/value heads, D head size, E value head size.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from inlay.model.masks import Mask, Strips

SMALLEST_HEAD = 16
"""Channels below which FlexAttention has no kernel."""
VARIANTS = 64
"""Shapes for which the eager calls may compile a kernel; torch's own 8 is soon used up by validation and windows."""


@dataclass(frozen=True)
class Recorded(Strips):
    """A mask whose attention is computed in strips on any device and leaves its largest score behind.

    It stands in a context's masks where a caller wants to see scores: nothing else knows that they are recorded, and
    calls with other masks are what they were.
    """

    maxima: list[Tensor] = field(default_factory=list)
    """Of each call in order: the largest q k' scale of a visible pair, before a softcap, fp32 0-d."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask, *, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """softmax(cap(q k' scale) + mask) v: q [B, H, T, D], k [B, G, S, D], v [B, G, S, E], mask [B, 1, T, S] to
    [B, H, T, E].

    `scale` defaults to D^-1/2; cap(x) is `softcap` tanh(x / `softcap`), before the mask (Gemma 2).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    key, value = key.to(query.dtype), value.to(query.dtype)
    if isinstance(mask, BlockMask):
        return attend_fused(query, key, value, mask, scale, softcap)
    if isinstance(mask, Recorded):
        mask.maxima.append(largest_score(query, key, mask, scale))
    if isinstance(mask, Strips):
        parts = [
            _attend(
                query[:, :, part.first : part.end],
                key[:, :, part.oldest : part.end],
                value[:, :, part.oldest : part.end],
                part.mask,
                scale,
                softcap,
            )
            for part in mask.parts
        ]
        return torch.cat(parts, dim=2)
    if query.device.type != "cpu" and softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    return _attend(query, key, value, mask, scale, softcap)


@torch.no_grad()
def largest_score(query: Tensor, key: Tensor, mask: Strips, scale: float) -> Tensor:
    """The largest q k' scale of a visible pair, fp32 0-d: q [B, H, T, D], k [B, G, S, D]."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
    found = []
    for part in mask.parts:
        scores = query[:, :, part.first : part.end].float() @ key[:, :, part.oldest : part.end].transpose(-1, -2)
        found.append((scores * scale + part.mask).amax())
    return torch.stack(found).amax()


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float | None) -> Tensor:
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    if heads != groups:  # stack the query heads of a group along the time axis: one matmul, no repeated K/V
        query = query.reshape(batch, groups, -1, size)
    # The divisions of scale and cap cost T D here, T S on the scores; the cap's product goes with the mask's sum.
    scores = torch.matmul(query * (scale if softcap is None else scale / softcap), key.transpose(-1, -2))
    scores = scores.view(batch, groups, -1, length, scores.shape[-1])
    if softcap is None:
        scores = scores + mask[:, :, None]
    else:
        scores = torch.add(mask[:, :, None], torch.tanh(scores), alpha=softcap)
    weights = torch.softmax(scores, dim=-1).view(batch, groups, -1, scores.shape[-1])
    return torch.matmul(weights, value).view(batch, heads, length, value.shape[-1])


def attend_fused(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float, softcap: float | None
) -> Tensor:
    """`attend` by FlexAttention; on a CPU, where it has no backward pass, only the tests of its masks come here."""
    size, value_size = query.shape[-1], value.shape[-1]
    if size < SMALLEST_HEAD:  # channels of zeros change no score
        query, key = (functional.pad(tensor, (0, SMALLEST_HEAD - size)) for tensor in (query, key))
    if value_size < SMALLEST_HEAD:
        value = functional.pad(value, (0, SMALLEST_HEAD - value_size))
    grouped = query.shape[1] != key.shape[1]
    score = None if softcap is None else _capped(softcap)
    options: dict[str, Any] = {"score_mod": score, "block_mask": mask, "scale": scale, "enable_gqa": grouped}
    if torch.compiler.is_compiling() or not query.is_cuda:
        found = cast("Tensor", flex_attention(query, key, value, **options))
    else:  # called as it is, it would make the whole table of scores
        with torch._dynamo.config.patch(recompile_limit=VARIANTS):
            found = _compiled()(query, key, value, **options)
    return found[..., :value_size]


def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return cast("Callable[..., Tensor]", torch.compile(flex_attention, dynamic=False))
