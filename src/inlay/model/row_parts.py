"""Linear maps and norms of one row, for `inlay.model.decode_step`: the numbers of the modules they are made from, in
fewer operations. They share the modules' weights. Legend: K inputs, N outputs, H + G heads, D head size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inlay.model.parts import Linear, RMSNorm

PIECE_BYTES = 1 << 18
"""The least of a matrix that is worth a thread of its own: below, waking it costs more than it brings."""

RowMap = Callable[[Tensor], Tensor]
"""What maps rows of channels, [..., inputs] to [..., outputs]."""


class WeightProduct:
    """x [1, K] to x weight' + bias, weight [N, K], on all threads.

    MKL computes this in fp32 on one core; a batch of pieces runs on as many as there are. In bf16 torch has a kernel of
    its own that does so by itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.outputs, self.inputs = weight.shape
        self.dtype = weight.dtype
        self.weight, self.bias = weight, bias
        pieces = min(torch.get_num_threads(), weight.numel() * weight.element_size() // PIECE_BYTES)
        plain = weight.device.type != "cpu" or weight.dtype != torch.float32
        self.pieces = 1 if plain or pieces < 2 or self.outputs % pieces else pieces
        self.columns = weight.view(self.pieces, -1, self.inputs).transpose(1, 2)

    def __call__(self, x: Tensor) -> Tensor:
        if self.pieces == 1:
            return functional.linear(x, self.weight, self.bias)
        y = torch.bmm(x.expand(self.pieces, 1, self.inputs), self.columns).view(1, self.outputs)
        return y if self.bias is None else y + self.bias


def joined(linears: Sequence[Linear]) -> WeightProduct:
    """Linear maps of one input as one map; their weights become views of its matrix."""
    weights = [linear.weight.data for linear in linears]
    sizes = [linear.out_features for linear in linears]
    if _follow(weights):
        joined = weights[0].as_strided((sum(sizes), linears[0].in_features), weights[0].stride())
    else:
        joined = torch.cat(weights)
        for linear, part in zip(linears, joined.split(sizes), strict=True):
            linear.weight.data = part
    biases = [linear.bias.data for linear in linears if linear.bias is not None]
    return WeightProduct(joined, torch.cat(biases) if biases else None)


def _follow(weights: Sequence[Tensor]) -> bool:
    """Whether each matrix follows the one before it in the same memory, as another step of this model has left them."""
    end = weights[0].storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        if not same or weight.storage_offset() != end or not weight.is_contiguous():
            return False
        end += weight.numel()
    return True


def product_of(linear: Linear) -> WeightProduct:
    """A linear map of one row."""
    return WeightProduct(linear.weight.data, None if linear.bias is None else linear.bias.data)


def norm_of(module: nn.Module, dtype: torch.dtype) -> RowMap:
    """A norm for one row of `dtype`."""
    if not isinstance(module, RMSNorm) or dtype != torch.float32:
        return module
    return RootMeanSquare(module.weight.data, module.eps)


def head_norms(norms: Sequence[nn.Module], counts: Sequence[int], dtype: torch.dtype) -> RowMap:
    """The norms of query and key heads as one, over heads [H + G, D]."""
    modules = [norm for norm in norms if isinstance(norm, RMSNorm)]
    gains = torch.cat([norm.weight.data.expand(count, -1) for norm, count in zip(modules, counts, strict=True)])
    if dtype == torch.float32:
        return RootMeanSquare(gains, modules[0].eps)
    joined = RMSNorm(gains.shape[-1], modules[0].eps)
    joined.weight = nn.Parameter(gains, requires_grad=False)
    return joined


class RootMeanSquare:
    """RMSNorm in fp32 by four operations, half the time of torch's: x / sqrt(|x|^2 + d eps) times sqrt(d) gain."""

    def __init__(self, gain: Tensor, eps: float) -> None:
        size = gain.shape[-1]
        self.gain = gain * size**0.5
        self.floor = torch.tensor((size * eps) ** 0.5, device=gain.device)

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / torch.hypot(length, self.floor) * self.gain
