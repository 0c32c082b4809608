"""SwiGLU (2002.05202): down(silu(gate(x)) * up(x))."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from inlay.model.mlp import MLP, MLPConfig, mlps
from inlay.model.parts import Linear


@mlps.register
class SwiGLUConfig(MLPConfig):
    """Three matrices of width x inner."""

    kind: Literal["swiglu"] = "swiglu"
    inner: int = Field(ge=1)
    """Channels between up and down."""

    def build(self, width: int) -> "SwiGLU":
        return SwiGLU(self, width)


class SwiGLU(MLP):
    """The module of SwiGLUConfig."""

    def __init__(self, config: SwiGLUConfig, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, config.inner)
        self.up = Linear(width, config.inner)
        self.down = Linear(config.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        for linear in (self.gate, self.up):
            nn.init.normal_(linear.weight, std=std, generator=generator)
        nn.init.normal_(self.down.weight, std=out_std, generator=generator)
