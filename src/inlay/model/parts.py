"""Parts every block shares: linear maps with a cast, RMSNorm, rotary embedding.

Master weights stay fp32; a linear casts its weight to the activation dtype (no autocast). Norm statistics and rotary
angles are fp32. Legend: B rows, T positions, H heads, D head size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """A bias-free linear map that computes in the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class's name)
        return functional.linear(input, self.weight.to(input.dtype))


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


def rotation(positions: Tensor, theta: float, head_size: int) -> tuple[Tensor, Tensor]:
    """(cos, sin) [B, 1, T, D/2] fp32 of rotary embedding (2104.09864) for positions [B, T]."""
    exponents = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    angles = positions[:, None, :, None].float() * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies rotary embedding in the rotate-half layout: x [B, H, T, D], cos and sin as `rotation` gives them."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
