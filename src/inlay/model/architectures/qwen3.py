"""Qwen3: grouped-query attention with QK-norm, SwiGLU, windows in the layers that a list names. Our default."""

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
from inlay.model.architectures.qwen2 import Qwen2
from inlay.model.config import ModelConfig
from inlay.model.hf_keys import HFKeys


@architectures.register
class Qwen3(Architecture):
    """`Qwen3ForCausalLM`; vLLM and llama.cpp know it too (llama.cpp without windows)."""

    kind: Literal["qwen3"] = "qwen3"
    CLASS: ClassVar[str] = "Qwen3ForCausalLM"
    QK_NORM: ClassVar[bool] = True
    BIASES: ClassVar[frozenset[str]] = frozenset({"none", "all"})
    BIAS_KEY: ClassVar[bool] = True
    WINDOWS: ClassVar[Literal["none", "uniform", "layers"]] = "layers"
    # Its config has a size of heads of its own where none is given, whatever the width.
    DEFAULTS: ClassVar[Mapping[str, Any]] = {**Qwen2.DEFAULTS, "head_dim": 128, "attention_bias": False}

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().layer_keys(config), **window_keys(config)}

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        bias = "all" if keys.flag("attention_bias") else "none"
        mixer = read_attention(keys, width, qk_norm=True, bias=bias)
        return windowed_blocks(mixer, self.read_mlp(keys), read_windows(keys, layers))
