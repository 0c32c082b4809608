"""Arcee: Llama's attention with the two-matrix squared ReLU network."""

from typing import ClassVar, Literal

from inlay.model.architecture import architectures
from inlay.model.architectures.llama import LlamaLike


@architectures.register
class Arcee(LlamaLike):
    """`ArceeForCausalLM`."""

    kind: Literal["arcee"] = "arcee"
    CLASS: ClassVar[str] = "ArceeForCausalLM"
    MLP: ClassVar[str] = "relu2"
    ACTIVATION: ClassVar[str] = "relu2"
