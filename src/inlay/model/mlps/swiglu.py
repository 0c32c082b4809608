"""SwiGLU (2002.05202): down(silu(gate(x)) * up(x))."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from inlay.model.mlp import MLP, MLPConfig, mlps
from inlay.model.parts import Linear


@mlps.register
class SwiGLUConfig(MLPConfig):
    """Three matrices of width x inner."""

    kind: Literal["swiglu"] = "swiglu"
    inner: int = Field(ge=1, le=1 << 22)
    """Channels between up and down."""

    def build(self, width: int) -> "SwiGLU":
        return SwiGLU(self, width)


class SwiGLU(MLP):
    """The module of SwiGLUConfig."""

    HF: ClassVar[dict[str, str]] = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    GGUF: ClassVar[dict[str, str]] = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}

    def __init__(self, config: SwiGLUConfig, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, config.inner)
        self.up = Linear(width, config.inner)
        self.down = Linear(config.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        for linear in (self.gate, self.up):
            linear.initialise(std, generator)
        self.down.initialise(out_std, generator)
