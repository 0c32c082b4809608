"""Grouped-query attention (2305.13245), by default with RMS QK-norm per head before RoPE: exactly Qwen3's.

Options make it Llama's (no QK-norm), Qwen2's (bias), Gemma 2's (softcap), a sliding window's (2004.05150), or one that
reads the K/V of another layer. Legend: B rows, T new positions, S slots, H query heads, G key/value heads, D head size.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from inlay.model.attend import attend
from inlay.model.mixer import Context, Fused, KeyValue, LayerCache, Mixer, MixerConfig, mixers
from inlay.model.parts import Linear, RMSNorm, RopeScaling, Rotation, rotate


@mixers.register
class AttentionConfig(MixerConfig):
    """Causal attention inside each document."""

    kind: Literal["attention"] = "attention"
    heads: int = Field(ge=1, le=1 << 16)
    """Query heads."""
    kv_heads: int = Field(ge=1, le=1 << 16)
    """Key/value heads; each serves heads / kv_heads query heads."""
    head_size: int = Field(ge=2, multiple_of=2, le=1 << 16)
    """Channels of a head; independent of width / heads."""
    window: int | None = Field(None, ge=1, le=1 << 24)
    """Keys visible to a query, itself included; null for all."""
    qk_norm: bool = True
    """RMS norm with a learned gain on every query and key head, before RoPE."""
    softcap: float | None = Field(None, gt=0.0, le=1e6)
    """Caps attention logits smoothly: cap tanh(logit / cap); null does not."""
    rope_theta: float = Field(10_000.0, gt=0.0, le=1e12)
    rope_scaling: RopeScaling | None = None
    """Stretched rotary embedding of an imported model (Llama 3)."""
    bias: Literal["none", "qkv", "all"] = "none"
    """Which projections have a bias, for imported models: Qwen2 has qkv, StarCoder2 all."""

    @model_validator(mode="after")
    def _groups(self) -> "AttentionConfig":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self

    def build(self, width: int, eps: float, *, owns_kv: bool = True) -> "Attention":
        return Attention(self, width, eps, owns_kv)

    @property
    def reach(self) -> int | None:
        return self.window

    @property
    def rotation(self) -> Rotation:
        return self.rope_theta, self.head_size, None if self.rope_scaling is None else self.rope_scaling.key

    @property
    def kv_signature(self) -> dict[str, object] | None:
        keys = ("kind", "window", "kv_heads", "head_size", "qk_norm", "rope_theta", "rope_scaling", "bias")
        return {key: getattr(self, key) for key in keys}


class Attention(Mixer):
    """The module of AttentionConfig."""

    HF: ClassVar[dict[str, str]] = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm",
    }
    GGUF: ClassVar[dict[str, str]] = {
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "output": "attn_output",
        "query_norm": "attn_q_norm",
        "key_norm": "attn_k_norm",
    }

    def __init__(self, config: AttentionConfig, width: int, eps: float, owns_kv: bool) -> None:
        super().__init__()
        self.config = config
        self.owns_kv = owns_kv
        biased = config.bias != "none"
        inner, narrow = config.heads * config.head_size, config.kv_heads * config.head_size
        self.query = Linear(width, inner, biased)
        if owns_kv:
            self.key = Linear(width, narrow, biased)
            self.value = Linear(width, narrow, biased)
        self.output = Linear(inner, width, config.bias == "all")
        self.query_norm = RMSNorm(config.head_size, eps) if config.qk_norm else nn.Identity()
        if owns_kv:
            self.key_norm = RMSNorm(config.head_size, eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        owned = self._key_value(x, context) if self.owns_kv else None
        return self._attend(x, context, owned or shared), owned

    def decode(
        self, x: Tensor, context: Context, cache: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        if cache is None:
            return self._attend(x, context, shared), None
        keys, values = cache.tensors
        key, value = self._key_value(x, context)
        slots = context.slots[self.config.memory]
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        # Index pairs (row, slot) put the time axis first: [B, T, G, D].
        keys[rows, :, slots] = key.transpose(1, 2).to(keys.dtype)
        values[rows, :, slots] = value.transpose(1, 2).to(values.dtype)
        seen = context.masks[self.config.window].shape[-1]
        owned = keys[:, :, :seen], values[:, :, :seen]
        return self._attend(x, context, owned), owned

    def new_cache(self, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        shape = (batch, self.config.kv_heads, slots + 1, self.config.head_size)
        return LayerCache(tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in range(2)))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        for linear in (self.query, self.key, self.value) if self.owns_kv else (self.query,):
            linear.initialise(std, generator)
        self.output.initialise(out_std, generator)

    def fused(self) -> dict[str, Fused]:
        heads, groups, size = self.config.heads, self.config.kv_heads, self.config.head_size
        owned = {name: Fused(0, groups, (size,)) for name in ("key", "value")} if self.owns_kv else {}
        return {"query": Fused(0, heads, (size,)), **owned, "output": Fused(1, heads, (size,))}

    def score_flops(self, visible: float) -> float:
        return 4.0 * visible * self.config.heads * self.config.head_size

    def cache_bytes(self, itemsize: int) -> int:
        return 2 * self.config.kv_heads * self.config.head_size * itemsize if self.owns_kv else 0

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.config.head_size))

    def _rotate(self, x: Tensor, context: Context) -> Tensor:
        return rotate(x.transpose(1, 2), *context.rotations[self.config.rotation])

    def _key_value(self, x: Tensor, context: Context) -> KeyValue:
        key = self._rotate(self.key_norm(self._heads(self.key(x))), context)
        return key, self._heads(self.value(x)).transpose(1, 2)

    def _attend(self, x: Tensor, context: Context, key_value: KeyValue | None) -> Tensor:
        if key_value is None:
            raise ValueError("a layer without K/V of its own was given none to read")
        query = self._rotate(self.query_norm(self._heads(self.query(x))), context)
        mask = context.masks[self.config.window]
        attended = attend(query, *key_value, mask, softcap=self.config.softcap)
        return self.output(attended.transpose(1, 2).flatten(2))
