"""The contract of a mixer: what mixes information between positions. One file a mixer in `inlay.model.mixers`.

A mixer owns all its aspects: training forward, cached decode, cache, initialisation, FLOPs, cache bytes, and the names
of its weights in Hugging Face and GGUF files. K/V that layers share are explicit inputs and outputs of a block, never a
side channel.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from inlay.config import Config, Registry
from inlay.model.masks import Mask
from inlay.model.parts import Rotation

mixers = Registry("mixer", "inlay.model.mixers")

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Context:
    """What a batch's positions imply, computed once and shared by all layers.

    `positions` [B, T]; `masks` by reach (None = no window), as `inlay.model.masks` builds them; `rotations`: (cos, sin)
    by rotation, each [B, 1, T, D/2] fp32; `slots`, in decoding only: by memory, the cache slot [B, T] of each new
    position (position modulo the number of slots, and one slot more for padding).
    """

    positions: Tensor
    masks: dict[int | None, Mask]
    rotations: dict[Rotation, tuple[Tensor, Tensor]]
    slots: dict[int | None, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Fused:
    """The smaller matrices that a weight [outputs, inputs] is made of, for an optimizer that treats matrices as wholes
    (Muon).

    Along `axis` stand `heads` groups, each of as many channels as `parts` add up to: one matrix for each part, all
    heads together, or one for each part of each head.
    """

    axis: Literal[0, 1]
    """0: the outputs are divided, 1: the inputs are."""
    heads: int
    parts: tuple[int, ...]


class MixerConfig(Config):
    """Options of a mixer; `build` makes the module."""

    kind: str

    @abstractmethod
    def build(self, width: int, eps: float, *, owns_kv: bool = True) -> "Mixer":
        """The module for a model of `width` channels; without `owns_kv` it has no K/V of its own and reads shared
        ones."""

    @property
    @abstractmethod
    def reach(self) -> int | None:
        """Keys visible to a query, itself included; None for all. Masks go by it."""

    @property
    @abstractmethod
    def rotation(self) -> Rotation | None:
        """Its rotary embedding, None without."""

    @property
    def masked(self) -> bool:
        """Whether it needs the mask of its reach."""
        return True

    @property
    def memory(self) -> int | None:
        """Positions of the past, itself included, that a new position depends on through the cache; None for all."""
        return self.reach

    @property
    def kv_signature(self) -> dict[str, object] | None:
        """What two layers must have in common to share K/V, by option; None for a mixer that cannot share."""
        return None


class Mixer(nn.Module):
    """Mixes positions. Legend: B rows, T positions, d channels."""

    HF: ClassVar[dict[str, str]] = {}
    """Our submodule or parameter to its usual name inside a Hugging Face layer, without `.weight` or `.bias`."""
    GGUF: ClassVar[dict[str, str]] = {}
    """The same inside a GGUF block (`blk.N.`)."""

    @abstractmethod
    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        """x [B, T, d] to (output [B, T, d], the K/V it owns). `shared` is the owner's K/V when this layer has none."""

    @abstractmethod
    def decode(
        self, x: Tensor, context: Context, cache: "LayerCache | None", shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        """As forward for T new positions per row, whose states it writes to `cache` at `context.slots`.

        Returns the output and the updated K/V as its mask sees them. A layer without K/V of its own has no cache.
        """

    @abstractmethod
    def new_cache(self, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> "LayerCache":
        """Decode state for `batch` rows of `slots` positions, and one slot more that takes what padding writes."""

    @abstractmethod
    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        """Draws all weights: `std` for inner projections, `out_std` for the projection back to the residual stream."""

    def fused(self) -> dict[str, Fused]:
        """How the weights of submodules are divided into matrices, by submodule; what is missing is one matrix."""
        return {}

    @abstractmethod
    def score_flops(self, visible: float) -> float:
        """Forward FLOPs per token beyond its matrices, when a query sees `visible` keys on average."""

    @abstractmethod
    def cache_bytes(self, itemsize: int) -> int:
        """Bytes of decode state per cached position of `itemsize`-byte elements."""


@dataclass
class LayerCache:
    """Decode state of a layer: tensors with the rows first. Which axis holds the slots is the mixer's own affair."""

    tensors: tuple[Tensor, ...]

    def select(self, rows: Tensor) -> "LayerCache":
        """A copy of the given rows [b] only, in that order."""
        return LayerCache(tuple(tensor[rows] for tensor in self.tensors))
