"""Arcee: Llama's attention with the two-matrix squared ReLU network."""

from typing import Any, ClassVar, Literal

from inlay.model.architecture import (
    Architecture,
    architectures,
    attention_keys,
    first_attention,
    read_attention,
    windowed_blocks,
)
from inlay.model.config import ModelConfig
from inlay.model.hf_keys import HFKeys
from inlay.model.layout import resolve


@architectures.register
class Arcee(Architecture):
    """`ArceeForCausalLM`."""

    kind: Literal["arcee"] = "arcee"
    CLASS: ClassVar[str] = "ArceeForCausalLM"
    MLP: ClassVar[str] = "relu2"
    BIASES: ClassVar[frozenset[str]] = frozenset({"none", "all"})
    HEADS_DIVIDE_WIDTH: ClassVar[bool] = True

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        mixer = first_attention(config)
        return {
            **attention_keys(mixer),
            "attention_bias": mixer.bias == "all",
            "intermediate_size": resolve(config)[0].block.mlp.inner,
            "hidden_act": "relu2",
            "mlp_bias": False,
        }

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        keys.only("hidden_act", "relu2", "relu2")
        keys.only("mlp_bias", False, False)
        bias = "all" if keys.flag("attention_bias", False) else "none"
        mlp = {"kind": "relu2", "inner": keys.integer("intermediate_size")}
        return windowed_blocks(read_attention(keys, width, bias=bias), mlp, [None] * layers)
