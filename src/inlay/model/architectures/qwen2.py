"""Qwen2 and 2.5, the Coder models among them: biases on query, key and value, no QK-norm."""

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

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().layer_keys(config), **window_keys(config)}

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        return windowed_blocks(read_attention(keys, width, bias="qkv"), self.read_mlp(keys), read_windows(keys, layers))
