"""Multi-head latent attention (2405.04434, section 2.1): keys and values of all heads come from one small latent.

A position leaves a normalised latent c and one rotary key, which all heads share; an up-projection makes from c each
head's other key channels and its values. Nothing else is cached, so the cache does not grow with the heads. Training
expands c. Decoding of few positions multiplies the up-projection into the query and the output instead ("absorbed"):
the same numbers in another order, without ever expanding what is cached. A long prompt is cheaper expanded.
Legend: B rows, T new positions, S positions seen, H heads, R rank of the latent, N/P head channels without/with RoPE,
V value size.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from inlay.model.attend import attend
from inlay.model.mixer import Context, Fused, KeyValue, LayerCache, Mixer, MixerConfig, mixers
from inlay.model.parts import Linear, RMSNorm, Rotation, rotate

LATENT_EPS = 1e-6
"""Of the norms on latents: transformers fixes it, whatever a model's other norms take."""


@mixers.register
class MLAConfig(MixerConfig):
    """Causal latent attention inside each document."""

    kind: Literal["mla"] = "mla"
    heads: int = Field(ge=1, le=1 << 16)
    q_rank: int | None = Field(None, ge=1, le=1 << 20)
    """Channels of a normalised latent that queries come from; null projects them directly."""
    kv_rank: int = Field(ge=1, le=1 << 20)
    """Channels of the latent that keys and values come from."""
    nope_size: int = Field(ge=1, le=1 << 16)
    """Channels of a query and key head without rotary embedding."""
    rope_size: int = Field(ge=2, multiple_of=2, le=1 << 16)
    """Channels of a query head with rotary embedding, and of the one key that all heads share."""
    value_size: int = Field(ge=1, le=1 << 16)
    """Channels of a value head."""
    rope_theta: float = Field(10_000.0, gt=0.0, le=1e12)

    @model_validator(mode="after")
    def _compresses(self) -> "MLAConfig":
        keys_values = self.heads * (self.nope_size + self.value_size)
        if self.kv_rank > keys_values:
            raise ValueError(
                f"kv_rank {self.kv_rank} is more than heads x (nope_size + value_size) = {keys_values}, what it stands"
                " for: give a smaller rank"
            )
        queries = self.heads * (self.nope_size + self.rope_size)
        if self.q_rank is not None and self.q_rank > queries:
            raise ValueError(
                f"q_rank {self.q_rank} is more than heads x (nope_size + rope_size) = {queries}, what it stands for:"
                " give a smaller rank, or null for none"
            )
        return self

    def build(self, width: int, eps: float, *, owns_kv: bool = True) -> "MLA":
        if not owns_kv:
            raise ValueError("mla has no K/V that it could read from another layer")
        return MLA(self, width)

    @property
    def reach(self) -> int | None:
        return None

    @property
    def rotation(self) -> Rotation:
        return self.rope_theta, self.rope_size, None


class MLA(Mixer):
    """The module of MLAConfig."""

    HF: ClassVar[dict[str, str]] = {
        "query": "self_attn.q_proj",
        "query_down": "self_attn.q_a_proj",
        "query_norm": "self_attn.q_a_layernorm",
        "query_up": "self_attn.q_b_proj",
        "kv_down": "self_attn.kv_a_proj_with_mqa",
        "kv_norm": "self_attn.kv_a_layernorm",
        "kv_up": "self_attn.kv_b_proj",
        "output": "self_attn.o_proj",
    }
    GGUF: ClassVar[dict[str, str]] = {
        "query": "attn_q",
        "query_down": "attn_q_a",
        "query_norm": "attn_q_a_norm",
        "query_up": "attn_q_b",
        "kv_down": "attn_kv_a_mqa",
        "kv_norm": "attn_kv_a_norm",
        "kv_up": "attn_kv_b",
        "output": "attn_output",
    }

    def __init__(self, config: MLAConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.scale = (config.nope_size + config.rope_size) ** -0.5
        queries = config.heads * (config.nope_size + config.rope_size)
        if config.q_rank is None:
            self.query = Linear(width, queries)
        else:
            self.query_down = Linear(width, config.q_rank)
            self.query_norm = RMSNorm(config.q_rank, LATENT_EPS)
            self.query_up = Linear(config.q_rank, queries)
        self.kv_down = Linear(width, config.kv_rank + config.rope_size)
        self.kv_norm = RMSNorm(config.kv_rank, LATENT_EPS)
        self.kv_up = Linear(config.kv_rank, config.heads * (config.nope_size + config.value_size))
        self.output = Linear(config.heads * config.value_size, width)

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        return self._expanded(self._query(x, context), *self._latent(x, context), context), None

    def decode(
        self, x: Tensor, context: Context, cache: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        if cache is None:
            raise ValueError("latent attention decodes from a cache of its own")
        (states,) = cache.tensors
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        states[rows, context.slots[self.config.memory]] = torch.cat(self._latent(x, context), -1).to(states.dtype)
        seen = context.masks[self.config.reach].shape[-1]
        held, query = states[:, :seen].to(x.dtype), self._query(x, context)
        if self._absorbs(x.shape[1], seen):
            return self._absorbed(query, held, context), None
        latent, key = held.split([self.config.kv_rank, self.config.rope_size], dim=-1)
        return self._expanded(query, latent, key, context), None

    def new_cache(self, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        # c and the rotary key side by side: an absorbed query scores against both in one product.
        shape = (batch, slots + 1, self.config.kv_rank + self.config.rope_size)
        return LayerCache((torch.zeros(shape, device=device, dtype=dtype),))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        queries = (self.query,) if self.config.q_rank is None else (self.query_down, self.query_up)
        for linear in (*queries, self.kv_down, self.kv_up):
            linear.initialise(std, generator)
        self.output.initialise(out_std, generator)

    def fused(self) -> dict[str, Fused]:
        config = self.config
        query = "query" if config.q_rank is None else "query_up"
        return {
            query: Fused(0, config.heads, (config.nope_size, config.rope_size)),
            "kv_down": Fused(0, 1, (config.kv_rank, config.rope_size)),
            "kv_up": Fused(0, config.heads, (config.nope_size, config.value_size)),
            "output": Fused(1, config.heads, (config.value_size,)),
        }

    def score_flops(self, visible: float) -> float:
        channels = self.config.nope_size + self.config.rope_size + self.config.value_size
        return 2.0 * visible * self.config.heads * channels

    def cache_bytes(self, itemsize: int) -> int:
        return (self.config.kv_rank + self.config.rope_size) * itemsize

    def _rotate(self, x: Tensor, context: Context) -> Tensor:
        return rotate(x, *context.rotations[self.config.rotation])

    def _query(self, x: Tensor, context: Context) -> Tensor:
        """[B, H, T, N + P], the last P channels rotated."""
        config = self.config
        flat = self.query(x) if config.q_rank is None else self.query_up(self.query_norm(self.query_down(x)))
        heads = flat.unflatten(-1, (config.heads, -1)).transpose(1, 2)
        nope, rope = heads.split([config.nope_size, config.rope_size], dim=-1)
        return torch.cat([nope, self._rotate(rope, context)], dim=-1)

    def _latent(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """The normalised latent c [B, T, R] and the rotated key of all heads [B, T, P]."""
        latent, key = self.kv_down(x).split([self.config.kv_rank, self.config.rope_size], dim=-1)
        return self.kv_norm(latent), self._rotate(key[:, None], context)[:, 0]

    def _expanded(self, query: Tensor, latent: Tensor, key: Tensor, context: Context) -> Tensor:
        """query [B, H, T, N + P], c [B, S, R] and rotated key [B, S, P] to the output [B, T, d], by keys and values."""
        config = self.config
        heads = self.kv_up(latent).unflatten(-1, (config.heads, -1)).transpose(1, 2)
        nope, value = heads.split([config.nope_size, config.value_size], dim=-1)
        keys = torch.cat([nope, key[:, None].expand(-1, config.heads, -1, -1)], dim=-1)
        attended = attend(query, keys, value, context.masks[config.reach], scale=self.scale)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _absorbed(self, query: Tensor, held: Tensor, context: Context) -> Tensor:
        """As `_expanded`, over held [B, S, R + P] = (c, rotated key): all heads read the latent as one K/V head."""
        config = self.config
        up = self.kv_up.weight.to(query.dtype).view(config.heads, -1, config.kv_rank)
        up_key, up_value = up.split([config.nope_size, config.value_size], dim=1)
        nope, rope = query.split([config.nope_size, config.rope_size], dim=-1)
        folded = torch.cat([torch.einsum("bhtn,hnr->bhtr", nope, up_key), rope], dim=-1)
        keys = held[:, None]
        latent = attend(folded, keys, keys[..., : config.kv_rank], context.masks[config.reach], scale=self.scale)
        return self.output(torch.einsum("bhtr,hvr->bthv", latent, up_value).flatten(2))

    def _absorbs(self, new: int, seen: int) -> bool:
        """Whether the absorbed form takes fewer operations than expanding all `seen` latents for `new` queries."""
        config = self.config
        up = config.kv_rank * (config.nope_size + config.value_size)
        absorbed = new * up + new * seen * (2 * config.kv_rank + config.rope_size)
        expanded = seen * up + new * seen * (config.nope_size + config.rope_size + config.value_size)
        return absorbed <= expanded


def reorder_rotary(config: MLAConfig, part: str, weight: Tensor, reorder: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The weight of submodule `part`, its rotary rows in another order, `reorder(rows, rope_size)`; others stay.

    Files of this architecture rotate neighbouring channels, this module rotates halves.
    """
    if part in ("query", "query_up"):
        heads = weight.unflatten(0, (config.heads, -1))
        plain, rotary = heads.split([config.nope_size, config.rope_size], dim=1)
        rotary = reorder(rotary.flatten(0, 1), config.rope_size).view(rotary.shape)
        return torch.cat([plain, rotary], dim=1).flatten(0, 1)
    if part == "kv_down":
        latent, rotary = weight.split([config.kv_rank, config.rope_size])
        return torch.cat([latent, reorder(rotary, config.rope_size)])
    return weight
