"""DeepSeek-V3 (2412.19437) with every layer dense: multi-head latent attention and SwiGLU, no experts.

Its class rotates neighbouring channels and ours halves, so rotary rows change places on the way. (The class can be told
to rotate halves, `rope_interleave: false`, a key that not every reader of the architecture looks at.) The norms on its
latents have an eps of their own, which is ours too.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from inlay.model.architecture import Architecture, architectures
from inlay.model.config import ModelConfig
from inlay.model.hf_keys import HFKeys, rope_keys
from inlay.model.layout import resolve
from inlay.model.mixers.mla import MLAConfig, reorder_rotary
from inlay.model.parts import halve, interleave


@architectures.register
class DeepSeekV3(Architecture):
    """`DeepseekV3ForCausalLM`."""

    kind: Literal["deepseek_v3"] = "deepseek_v3"
    CLASS: ClassVar[str] = "DeepseekV3ForCausalLM"
    MIXERS: ClassVar[frozenset[str]] = frozenset({"mla"})
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 10_000.0,
        "rope_interleave": True,
        "attention_bias": False,
        "first_k_dense_replace": 3,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        specs = resolve(config)
        mixer = next(spec.block.mixer for spec in specs if isinstance(spec.block.mixer, MLAConfig))
        return {
            "num_attention_heads": mixer.heads,
            "num_key_value_heads": mixer.heads,
            "q_lora_rank": mixer.q_rank,
            "kv_lora_rank": mixer.kv_rank,
            "qk_nope_head_dim": mixer.nope_size,
            "qk_rope_head_dim": mixer.rope_size,
            "v_head_dim": mixer.value_size,
            "rope_interleave": True,
            **rope_keys(mixer.rope_theta, None),
            "attention_bias": False,
            "attention_dropout": 0.0,
            "first_k_dense_replace": config.layers,
            "num_nextn_predict_layers": 0,
            "intermediate_size": specs[0].block.mlp.inner,
            "hidden_act": "silu",
        }

    def to_file(self, name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
        return _reordered(name, tensor, config, interleave)

    def from_file(self, name: str, tensor: Tensor, config: ModelConfig, data: dict[str, Any]) -> Tensor:
        return (
            _reordered(name, tensor, config, halve)
            if data.get("rope_interleave", self.DEFAULTS["rope_interleave"])
            else tensor
        )

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        keys.only("hidden_act", "silu")
        keys.only("attention_bias", False)
        keys.flag("rope_interleave")
        if keys.integer("first_k_dense_replace") < layers:
            raise keys.error(
                "first_k_dense_replace", f"so that later layers have experts; inlay opens {layers} of {layers}"
            )
        theta, scaling = keys.rope()
        if scaling is not None:
            raise keys.error("rope_parameters", "and inlay has no scaling in mla")
        no_rank = "q_lora_rank" in keys.data and keys.data["q_lora_rank"] is None
        mixer = {
            "kind": "mla",
            "heads": keys.integer("num_attention_heads"),
            "q_rank": None if no_rank else keys.integer("q_lora_rank"),
            "kv_rank": keys.integer("kv_lora_rank"),
            "nope_size": keys.integer("qk_nope_head_dim"),
            "rope_size": keys.integer("qk_rope_head_dim"),
            "value_size": keys.integer("v_head_dim"),
            "rope_theta": theta,
        }
        mlp = {"kind": "swiglu", "inner": keys.integer("intermediate_size")}
        return [("full", {"mixer": mixer, "mlp": mlp})] * layers


def _reordered(name: str, tensor: Tensor, config: ModelConfig, reorder: Callable[[Tensor, int], Tensor]) -> Tensor:
    """blocks.N.mixer.PART.weight with its rotary rows in the other order."""
    _, _, path = name.partition(".mixer.")
    if not path:
        return tensor
    mixer = resolve(config)[int(name.split(".")[1])].block.mixer
    return reorder_rotary(mixer, path.partition(".")[0], tensor, reorder) if isinstance(mixer, MLAConfig) else tensor
