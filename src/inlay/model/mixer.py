"""The contract of a mixer: what mixes information between positions. One file a mixer in `inlay.model.mixers`.

A mixer owns all its aspects: training forward, cached decode, cache, initialisation, FLOPs and cache bytes. K/V that
layers share are explicit inputs and outputs of a block, never a side channel.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inlay.config import Config, Registry

mixers = Registry("mixer", "inlay.model.mixers")

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Context:
    """What a batch's positions imply, computed once and shared by all layers.

    `masks`: additive mask by window (None = no window), each [B, 1, T, S] in the activation dtype: 0 visible, -inf not.
    `rotations`: (cos, sin) by (theta, head size), each [B, 1, T, D/2] fp32.
    """

    masks: dict[int | None, Tensor]
    rotations: dict[tuple[float, int], tuple[Tensor, Tensor]]


class MixerConfig(Config):
    """Options of a mixer; `build` makes the module."""

    kind: str

    @abstractmethod
    def build(self, width: int, eps: float) -> "Mixer":
        """The module for a model of `width` channels."""

    @property
    @abstractmethod
    def window(self) -> int | None:
        """Keys visible to a query, itself included; None for all."""

    @property
    @abstractmethod
    def rotation(self) -> tuple[float, int] | None:
        """(theta, head size) of its rotary embedding, None without."""


class Mixer(nn.Module):
    """Mixes positions. Legend: B rows, T positions, d channels."""

    @abstractmethod
    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        """x [B, T, d] to (output [B, T, d], the K/V it owns). `shared` is the owner's K/V when this layer has none."""

    @abstractmethod
    def decode(self, x: Tensor, context: Context, slots: Tensor, cache: "LayerCache") -> Tensor:
        """As forward for T new positions per row whose states are written to cache slots `slots` [B, T]."""

    @abstractmethod
    def new_cache(self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype) -> "LayerCache":
        """Decode state for `batch` rows of up to `capacity` positions."""

    @abstractmethod
    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        """Draws all weights: `std` for inner projections, `out_std` for the projection back to the residual stream."""

    @abstractmethod
    def score_flops(self, visible: float) -> float:
        """Forward FLOPs per token beyond its matrices, when a query sees `visible` keys on average."""

    @abstractmethod
    def cache_bytes(self, itemsize: int) -> int:
        """Bytes of decode state per token of `itemsize`-byte elements."""


@dataclass
class LayerCache:
    """Decode state of an attention layer: `keys`, `values` [B, G, S + 1, D]; padding writes to the last slot."""

    keys: Tensor
    values: Tensor
