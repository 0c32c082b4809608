"""Qwen2 and 2.5, the Coder models among them: biases on query, key and value, no QK-norm."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from inlay.model.architecture import (
    Architecture,
    architectures,
    read_attention,
    read_windows,
    window_keys,
    windowed_blocks,
)
from inlay.model.config import ModelConfig
from inlay.model.hf_keys import HFKeys


@architectures.register
class Qwen2(Architecture):
    """`Qwen2ForCausalLM`."""

    kind: Literal["qwen2"] = "qwen2"
    CLASS: ClassVar[str] = "Qwen2ForCausalLM"
    BIASES: ClassVar[frozenset[str]] = frozenset({"qkv"})
    WINDOWS: ClassVar[Literal["none", "uniform", "layers"]] = "layers"
    HEAD_DIM: ClassVar[bool] = False
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 32,
        "head_dim": None,
        "hidden_act": "silu",
        "max_position_embeddings": 32_768,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 10_000.0,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": None,
    }

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().layer_keys(config), **window_keys(config)}

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        return windowed_blocks(read_attention(keys, width, bias="qkv"), self.read_mlp(keys), read_windows(keys, layers))
