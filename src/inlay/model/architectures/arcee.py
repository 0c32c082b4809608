"""Arcee: Llama's attention with the two-matrix squared ReLU network."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from inlay.model.architecture import architectures
from inlay.model.architectures.llama import Llama, LlamaLike


@architectures.register
class Arcee(LlamaLike):
    """`ArceeForCausalLM`."""

    kind: Literal["arcee"] = "arcee"
    CLASS: ClassVar[str] = "ArceeForCausalLM"
    MLP: ClassVar[str] = "relu2"
    ACTIVATION: ClassVar[str] = "relu2"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        **Llama.DEFAULTS,
        "hidden_act": "relu2",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
