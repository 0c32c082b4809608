"""GELU in its tanh form (1606.08415): down(gelu(up(x))), the network of StarCoder2."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from inlay.model.mlp import MLP, MLPConfig, mlps
from inlay.model.parts import Linear


@mlps.register
class GELUConfig(MLPConfig):
    """Two matrices of width x inner."""

    kind: Literal["gelu"] = "gelu"
    inner: int = Field(ge=1, le=1 << 22)
    """Channels between up and down."""
    bias: bool = False
    """Whether both projections have a bias, for imported models (StarCoder2)."""

    def build(self, width: int) -> "GELU":
        return GELU(self, width)


class GELU(MLP):
    """The module of GELUConfig."""

    HF: ClassVar[dict[str, str]] = {"up": "mlp.c_fc", "down": "mlp.c_proj"}
    GGUF: ClassVar[dict[str, str]] = {"up": "ffn_up", "down": "ffn_down"}

    def __init__(self, config: GELUConfig, width: int) -> None:
        super().__init__()
        self.up = Linear(width, config.inner, config.bias)
        self.down = Linear(config.inner, width, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        self.up.initialise(std, generator)
        self.down.initialise(out_std, generator)
