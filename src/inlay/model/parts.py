"""Parts every block shares: linear maps with a cast, norms, rotary embedding.

Master weights stay fp32; a linear casts its weight to the activation dtype (no autocast). Norm statistics and rotary
angles are fp32. Legend: B rows, T positions, H heads, D head size.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from inlay.config import Config

Rotation = tuple[float, int, tuple[float, ...] | None]
"""A rotary embedding: theta, head size, and the numbers of its scaling (`RopeScaling.key`)."""


class Linear(nn.Linear):
    """A linear map that computes in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return functional.linear(input, self.weight.to(input.dtype), bias)

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draws the weight from a normal distribution; a bias starts at zero."""
        nn.init.normal_(self.weight, std=std, generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class RMSNorm(nn.Module):
    """Root mean square norm with a plain gain (1910.07467), [..., d]; cast back before the gain, as in Llama."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return scaled.to(x.dtype) * self.weight.to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer norm with gain and bias (1607.06450), [..., d], computed in fp32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        return super().forward(input.float()).to(input.dtype)


def make_norm(kind: Literal["rms", "layer"], size: int, eps: float) -> nn.Module:
    """The norm of the residual stream that a model asks for."""
    return RMSNorm(size, eps) if kind == "rms" else LayerNorm(size, eps)


class RopeScaling(Config):
    """Stretched rotary frequencies. `linear` divides all by `factor` (2306.15595); `llama3` divides those whose wave is
    longer than original_context / low_factor, keeps those shorter than original_context / high_factor, and blends in
    between (the rule of the Llama 3.1 release)."""

    kind: Literal["linear", "llama3"]
    factor: float = Field(ge=1.0, le=1e6)
    low_factor: float = Field(1.0, gt=0.0, le=1e6)
    high_factor: float = Field(4.0, gt=0.0, le=1e6)
    original_context: int = Field(8192, ge=1, le=1 << 24)

    @property
    def key(self) -> tuple[float, ...]:
        """Its numbers, as part of a `Rotation`."""
        if self.kind == "linear":
            return (self.factor,)
        return (self.factor, self.low_factor, self.high_factor, float(self.original_context))


def rotation(
    positions: Tensor, theta: float, head_size: int, scaling: tuple[float, ...] | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, sin) [B, 1, T, D/2] fp32 of rotary embedding (2104.09864) for positions [B, T]."""
    exponents = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    frequencies = theta**-exponents
    if scaling is not None:
        frequencies = _scaled(frequencies, *scaling)
    angles = positions[:, None, :, None].float() * frequencies
    return angles.cos(), angles.sin()


def _scaled(frequencies: Tensor, factor: float, *bounds: float) -> Tensor:
    if not bounds:
        return frequencies / factor
    low, high, context = bounds
    turns = context * frequencies / (2 * math.pi)  # within the original context
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return keep * frequencies + (1.0 - keep) * frequencies / factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies rotary embedding in the rotate-half layout: x [B, H, T, D], cos and sin as `rotation` gives them."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def interleave(rows: Tensor, head_size: int) -> Tensor:
    """Rows [H D, ...] of a weight in the rotate-half layout to the layout that rotates neighbours, head by head."""
    return rows.unflatten(0, (-1, 2, head_size // 2)).transpose(1, 2).flatten(0, 2)


def halve(rows: Tensor, head_size: int) -> Tensor:
    """The way back from `interleave`."""
    return rows.unflatten(0, (-1, head_size // 2, 2)).transpose(1, 2).flatten(0, 2)
