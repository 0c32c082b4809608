"""The contract of a position-wise network. One file a kind in `inlay.model.mlps`."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from inlay.config import Config, Registry

mlps = Registry("mlp", "inlay.model.mlps")


class MLPConfig(Config):
    """Options of a position-wise network; `build` makes the module."""

    kind: str

    @abstractmethod
    def build(self, width: int) -> "MLP":
        """The module for a model of `width` channels."""


class MLP(nn.Module):
    """Maps every position alone: [..., d] to [..., d]."""

    HF: ClassVar[dict[str, str]] = {}
    """Our submodule to its usual name inside a Hugging Face layer, without `.weight` or `.bias`."""
    GGUF: ClassVar[dict[str, str]] = {}
    """The same inside a GGUF block (`blk.N.`)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] to [..., d]."""

    @abstractmethod
    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        """Draws all weights: `std` inside, `out_std` for the projection back to the residual stream."""
