"""Grouped-query attention (2305.13245) with RMS QK-norm per head before RoPE: exactly Qwen3's.

On a CPU it is plain matmul, softmax, matmul with an additive mask: 2.3 times faster than scaled_dot_product_attention
forward and backward at T = 512, which stays as the witness in the tests and as the path on a GPU.
Legend: B rows, T new positions, S keys, H query heads, G key/value heads, D head size.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from inlay.model.mixer import Context, KeyValue, LayerCache, Mixer, MixerConfig, mixers
from inlay.model.parts import Linear, RMSNorm, rotate


@mixers.register
class AttentionConfig(MixerConfig):
    """Causal attention inside each document."""

    kind: Literal["attention"] = "attention"
    heads: int = Field(ge=1)
    """Query heads."""
    kv_heads: int = Field(ge=1)
    """Key/value heads; each serves heads / kv_heads query heads."""
    head_size: int = Field(ge=2, multiple_of=2)
    """Channels of a head; independent of width / heads."""
    qk_norm: bool = True
    """RMS norm with a learned gain on every query and key head, before RoPE."""
    rope_theta: float = Field(10_000.0, gt=0.0)

    @model_validator(mode="after")
    def _groups(self) -> "AttentionConfig":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self

    def build(self, width: int, eps: float) -> "Attention":
        return Attention(self, width, eps)

    @property
    def window(self) -> int | None:
        return None

    @property
    def rotation(self) -> tuple[float, int] | None:
        return self.rope_theta, self.head_size


class Attention(Mixer):
    """The module of AttentionConfig."""

    def __init__(self, config: AttentionConfig, width: int, eps: float) -> None:
        super().__init__()
        self.config = config
        self.query = Linear(width, config.heads * config.head_size)
        self.key = Linear(width, config.kv_heads * config.head_size)
        self.value = Linear(width, config.kv_heads * config.head_size)
        self.output = Linear(config.heads * config.head_size, width)
        self.query_norm = RMSNorm(config.head_size, eps) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(config.head_size, eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        query, key, value = self._project(x, context)
        attended = attend(query, key, value, context.masks[self.config.window])
        return self.output(attended.transpose(1, 2).flatten(2)), (key, value)

    def decode(self, x: Tensor, context: Context, slots: Tensor, cache: LayerCache) -> Tensor:
        query, key, value = self._project(x, context)
        mask = context.masks[self.config.window]
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        # Index pairs (row, slot) put the time axis first: [B, T, G, D].
        cache.keys[rows, :, slots] = key.transpose(1, 2).to(cache.keys.dtype)
        cache.values[rows, :, slots] = value.transpose(1, 2).to(cache.values.dtype)
        seen = mask.shape[-1]
        attended = attend(query, cache.keys[:, :, :seen], cache.values[:, :, :seen], mask)
        return self.output(attended.transpose(1, 2).flatten(2))

    def new_cache(self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        shape = (batch, self.config.kv_heads, capacity + 1, self.config.head_size)
        return LayerCache(*(torch.zeros(shape, device=device, dtype=dtype) for _ in range(2)))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=std, generator=generator)
        nn.init.normal_(self.output.weight, std=out_std, generator=generator)

    def score_flops(self, visible: float) -> float:
        return 4.0 * visible * self.config.heads * self.config.head_size

    def cache_bytes(self, itemsize: int) -> int:
        return 2 * self.config.kv_heads * self.config.head_size * itemsize

    def _project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        heads = (batch, length, -1, self.config.head_size)
        cos, sin = context.rotations[(self.config.rope_theta, self.config.head_size)]
        query = rotate(self.query_norm(self.query(x).view(heads)).transpose(1, 2), cos, sin)
        key = rotate(self.key_norm(self.key(x).view(heads)).transpose(1, 2), cos, sin)
        return query, key, self.value(x).view(heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k' / sqrt(D) + mask) v: q [B, H, T, D], k and v [B, G, S, D], mask [B, 1, T, S] to [B, H, T, D]."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    if heads != groups:  # stack the query heads of a group along the time axis: one matmul, no repeated K/V
        query = query.reshape(batch, groups, -1, size)
    scores = torch.matmul(query * size**-0.5, key.to(query.dtype).transpose(-1, -2))
    scores = scores.view(batch, groups, -1, length, scores.shape[-1]) + mask[:, :, None]
    weights = torch.softmax(scores, dim=-1).view(batch, groups, -1, scores.shape[-1])
    return torch.matmul(weights, value.to(query.dtype)).view(batch, heads, length, size)
