"""Gated short convolution, the LIV operator of LFM2 (2511.23404): output(C * conv(B * x)), with B, C and x projected
from the input. No activation, no rotary embedding; a depthwise causal kernel of a few taps.

The convolution is a sum of shifted terms, each switched off where it would reach into another document (two of three
at a document's first position): exact isolation from `positions` alone, in terms that a compiler fuses.
Legend: B rows, T positions, S slots, d channels, K taps; u = B * x is what the taps see.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from inlay.model.mixer import Context, Fused, KeyValue, LayerCache, Mixer, MixerConfig, mixers
from inlay.model.parts import Linear, Rotation


@mixers.register
class ShortConvConfig(MixerConfig):
    """A causal convolution inside each document."""

    kind: Literal["short_conv"] = "short_conv"
    kernel: int = Field(3, ge=2, le=1 << 16)
    """Taps: positions that an output sees, itself included."""

    def build(self, width: int, eps: float, *, owns_kv: bool = True) -> "ShortConv":
        if not owns_kv:
            raise ValueError("short_conv has no K/V that it could read from another layer")
        return ShortConv(self, width)

    @property
    def reach(self) -> int | None:
        return self.kernel

    @property
    def rotation(self) -> Rotation | None:
        return None

    @property
    def masked(self) -> bool:
        return False


class ShortConv(Mixer):
    """The module of ShortConvConfig."""

    HF: ClassVar[dict[str, str]] = {"input": "conv.in_proj", "kernel": "conv.conv", "output": "conv.out_proj"}
    GGUF: ClassVar[dict[str, str]] = {
        "input": "shortconv.in_proj",
        "kernel": "shortconv.conv",
        "output": "shortconv.out_proj",
    }

    def __init__(self, config: ShortConvConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.input = Linear(width, 3 * width)
        self.kernel = nn.Parameter(torch.zeros(width, 1, config.kernel))
        """[d, 1, K] as in a grouped Conv1d: the last column weighs the position itself."""
        self.output = Linear(width, width)

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        u, gate = self._gated(x)
        length, before = x.shape[1], self.config.kernel - 1
        padded = functional.pad(u, (0, 0, before, 0))
        mixed = self._convolve(u, context.positions, lambda tap: padded[:, before - tap :][:, :length])
        return self.output(gate * mixed), None

    def decode(
        self, x: Tensor, context: Context, cache: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        if cache is None:
            raise ValueError("a short convolution decodes from a cache of its own")
        u, gate = self._gated(x)
        (held,) = cache.tensors
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        held[rows, context.slots[self.config.memory]] = u.to(held.dtype)
        slots = held.shape[1] - 1
        mixed = self._convolve(
            u, context.positions, lambda tap: held[rows, (context.positions - tap) % slots].to(u.dtype)
        )
        return self.output(gate * mixed), None

    def new_cache(self, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        return LayerCache((torch.zeros(batch, slots + 1, self.output.in_features, device=device, dtype=dtype),))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        self.input.initialise(std, generator)
        # The taps keep the variance of u: it is a product of two small numbers already.
        nn.init.normal_(self.kernel, std=self.config.kernel**-0.5, generator=generator)
        self.output.initialise(out_std, generator)

    def fused(self) -> dict[str, Fused]:
        return {"input": Fused(0, 1, (self.output.in_features,) * 3)}

    def score_flops(self, visible: float) -> float:
        return 2.0 * visible * self.output.in_features

    def cache_bytes(self, itemsize: int) -> int:
        return self.output.in_features * itemsize

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(u, C), each [B, T, d]."""
        gate_in, gate_out, value = self.input(x).chunk(3, dim=-1)
        return gate_in * value, gate_out

    def _convolve(self, u: Tensor, positions: Tensor, earlier: Callable[[int], Tensor]) -> Tensor:
        """y[t] = sum of kernel[K-1-j] u[t-j] over the taps j <= positions[t]; `earlier(j)` is u[t-j], [B, T, d]."""
        *before, present = self.kernel[:, 0].to(u.dtype).unbind(-1)
        mixed = u * present
        for tap, weight in enumerate(reversed(before), start=1):
            inside = (positions >= tap)[..., None]
            mixed = mixed + torch.where(inside, earlier(tap), 0.0) * weight
        return mixed
