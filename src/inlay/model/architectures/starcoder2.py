"""StarCoder2 (2402.19173): LayerNorm, tanh GELU, one window for all layers, biases on all maps or on none."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from inlay.model.architecture import (
    Architecture,
    architectures,
    first_attention,
    read_attention,
    windowed_blocks,
    windows,
)
from inlay.model.config import ModelConfig
from inlay.model.expressible import Reason
from inlay.model.hf_keys import HFKeys
from inlay.model.layout import LayerSpec
from inlay.model.mixers.attention import AttentionConfig
from inlay.model.mlps.gelu import GELUConfig


@architectures.register
class StarCoder2(Architecture):
    """`Starcoder2ForCausalLM`."""

    kind: Literal["starcoder2"] = "starcoder2"
    CLASS: ClassVar[str] = "Starcoder2ForCausalLM"
    MLP: ClassVar[str] = "gelu"
    ACTIVATION: ClassVar[str] = "gelu_pytorch_tanh"
    NORM: ClassVar[str] = "layer"
    NORM_EPS: ClassVar[str] = "norm_epsilon"
    BIASES: ClassVar[frozenset[str]] = frozenset({"none", "all"})
    WINDOWS: ClassVar[Literal["none", "uniform", "layers"]] = "uniform"
    HEAD_DIM: ClassVar[bool] = False
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 2,
        "head_dim": None,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096,
        "initializer_range": 0.018042,
        "norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "rope_theta": 10_000.0,
        "sliding_window": None,
        "use_bias": True,
    }

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        return {
            **super().layer_keys(config),
            "sliding_window": windows(config)[0],
            "use_bias": first_attention(config).bias == "all",
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
        }

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        bias = keys.flag("use_bias")
        mixer = read_attention(keys, width, bias="all" if bias else "none")
        window = keys.integer("sliding_window") if keys.data.get("sliding_window") is not None else None
        mlp = {**self.read_mlp(keys), "bias": bias}
        return windowed_blocks(mixer, mlp, [window] * layers)

    def layer_reasons(self, spec: LayerSpec, width: int, context: int | None) -> Iterator[Reason]:
        yield from super().layer_reasons(spec, width, context)
        mixer, mlp = spec.block.mixer, spec.block.mlp
        if isinstance(mixer, AttentionConfig) and isinstance(mlp, GELUConfig) and mlp.bias != (mixer.bias == "all"):
            yield Reason(
                "mlp.bias",
                f"layer {spec.index} ({spec.name}): mlp.bias = {str(mlp.bias).lower()} beside mixer.bias ="
                f" {mixer.bias}, where it has biases everywhere or nowhere",
            )
