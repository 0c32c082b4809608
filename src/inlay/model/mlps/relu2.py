"""Squared ReLU (2109.08668): down(relu(up(x))^2). Two matrices, so half as wide again as SwiGLU at equal parameters."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from inlay.model.mlp import MLP, MLPConfig, mlps
from inlay.model.parts import Linear


@mlps.register
class ReLU2Config(MLPConfig):
    """Two matrices of width x inner."""

    kind: Literal["relu2"] = "relu2"
    inner: int = Field(ge=1, le=1 << 22)
    """Channels between up and down."""

    def build(self, width: int) -> "ReLU2":
        return ReLU2(self, width)


class ReLU2(MLP):
    """The module of ReLU2Config."""

    HF: ClassVar[dict[str, str]] = {"up": "mlp.up_proj", "down": "mlp.down_proj"}
    GGUF: ClassVar[dict[str, str]] = {"up": "ffn_up", "down": "ffn_down"}

    def __init__(self, config: ReLU2Config, width: int) -> None:
        super().__init__()
        self.up = Linear(width, config.inner)
        self.down = Linear(config.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.relu(self.up(x)).square())

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        self.up.initialise(std, generator)
        self.down.initialise(out_std, generator)
