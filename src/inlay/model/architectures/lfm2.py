"""LFM2: gated short convolutions between layers of attention with QK-norm.

Its "embedding norm" is the final norm. Its config can scale the size of the network; that is switched off, so that the
size means what it says. Its class lets packed documents leak into each other; ours does not, and they agree on rows of
one document.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from inlay.model.architecture import (
    Architecture,
    architectures,
    attention_keys,
    first_attention,
    read_attention,
)
from inlay.model.config import ModelConfig
from inlay.model.expressible import Reason
from inlay.model.hf_keys import HFKeys
from inlay.model.layout import resolve
from inlay.model.mixers.short_conv import ShortConvConfig


@architectures.register
class Lfm2(Architecture):
    """`Lfm2ForCausalLM`."""

    kind: Literal["lfm2"] = "lfm2"
    CLASS: ClassVar[str] = "Lfm2ForCausalLM"
    MIXERS: ClassVar[frozenset[str]] = frozenset({"attention", "short_conv"})
    NORM_EPS: ClassVar[str] = "norm_eps"
    QK_NORM: ClassVar[bool] = True
    HEAD_DIM: ClassVar[bool] = False
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 8,
        "head_dim": None,
        "max_position_embeddings": 128_000,
        "initializer_range": 0.02,
        "norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
        "full_attn_idxs": None,
        "layer_types": None,
    }
    RENAMED: ClassVar[dict[str, str]] = {
        "model.norm": "model.embedding_norm",
        "input_layernorm": "operator_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "self_attn.out_proj",
        "self_attn.q_norm": "self_attn.q_layernorm",
        "self_attn.k_norm": "self_attn.k_layernorm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
    }

    def layer_keys(self, config: ModelConfig) -> dict[str, Any]:
        specs = resolve(config)
        kernels = [spec.block.mixer.kernel for spec in specs if isinstance(spec.block.mixer, ShortConvConfig)]
        return {
            **attention_keys(first_attention(config), head_dim=False),
            "layer_types": ["conv" if spec.block.mixer.kind == "short_conv" else "full_attention" for spec in specs],
            "conv_L_cache": kernels[0],
            "conv_bias": False,
            "intermediate_size": specs[0].block.mlp.inner,
            "block_auto_adjust_ff_dim": False,
        }

    def read_blocks(self, keys: HFKeys, width: int, layers: int) -> list[tuple[str, dict[str, Any]]]:
        keys.only("conv_bias", False)
        mlp = {"kind": "swiglu", "inner": _inner(keys)}
        attention = {"mixer": read_attention(keys, width, qk_norm=True), "mlp": mlp}
        conv = {"mixer": {"kind": "short_conv", "kernel": keys.integer("conv_L_cache")}, "mlp": mlp}
        kinds = keys.names("layer_types", layers)
        if kinds is None:
            chosen = keys.data.get("full_attn_idxs")
            chosen = range(layers) if chosen is None else chosen
            kinds = ["full_attention" if index in chosen else "conv" for index in range(layers)]
        for kind in kinds:
            if kind not in ("full_attention", "conv"):
                raise keys.error("layer_types", "where full_attention or conv belongs")
        return [("full", attention) if kind == "full_attention" else ("conv", conv) for kind in kinds]

    def read(self, data: dict[str, Any], where: str) -> ModelConfig:
        older = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"}
        return super().read({**data, **{new: data[old] for old, new in older.items() if old in data}}, where)

    def model_reasons(self, config: ModelConfig) -> Iterator[Reason]:
        yield from super().model_reasons(config)
        kinds = {spec.block.mixer.kind for spec in resolve(config)}
        for kind in sorted(self.MIXERS - kinds):
            yield Reason(f"no {kind}", f"no layer's mixer.kind is {kind}, of which it has some")


def _inner(keys: HFKeys) -> int:
    """The size of the network after its config's own adjustment: two thirds, times a factor, rounded up."""
    inner = keys.integer("intermediate_size")
    if not keys.flag("block_auto_adjust_ff_dim"):
        return inner
    inner, factor = int(2 * inner / 3), "block_ffn_dim_multiplier"
    if factor in keys.data and keys.data[factor] is None:
        return inner
    inner, multiple = int(keys.number(factor) * inner), keys.integer("block_multiple_of")
    return multiple * ((inner + multiple - 1) // multiple)
