"""Llama 2 and 3, with the rotary scaling of 3.1: grouped-query attention without QK-norm, SwiGLU."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from inlay.model.architecture import Architecture, architectures, read_attention, windowed_blocks
from inlay.model.config import ModelConfig
from inlay.model.hf_keys import HFKeys


class LlamaLike(Architecture):
    """Llama's attention and keys, with a network of any kind."""

    BIASES: ClassVar[frozenset[str]] = frozenset({"none", "all"})
    BIAS_KEY: ClassVar[bool] = True
    HEADS_DIVIDE_WIDTH: ClassVar[bool] = True

    def mlp_keys(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().mlp_keys(config), "mlp_bias": False}

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        keys.only("mlp_bias", False)
        bias = "all" if keys.flag("attention_bias") else "none"
        return windowed_blocks(read_attention(keys, width, bias=bias), self.read_mlp(keys), [None] * layers)


@architectures.register
class Llama(LlamaLike):
    """`LlamaForCausalLM`."""

    kind: Literal["llama"] = "llama"
    CLASS: ClassVar[str] = "LlamaForCausalLM"
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "mlp_bias": False,
    }
