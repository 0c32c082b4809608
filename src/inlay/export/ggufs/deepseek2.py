"""DeepSeek-V2 and V3 with every layer dense: multi-head latent attention, SwiGLU.

llama.cpp decodes in the absorbed form, so the up-projection of the latent is stored in its two halves: that of the keys
transposed, that of the values as it is.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import Tensor

from inlay.export.llama_cpp import Architecture, NamedTensor, Value, ggufs
from inlay.model import ModelConfig
from inlay.model.layout import resolve
from inlay.model.mixer import Mixer
from inlay.model.mixers.mla import LATENT_EPS, reorder_rotary
from inlay.model.parts import interleave


@ggufs.register
class DeepSeek2(Architecture):
    """Rotates neighbouring channels: the rotated rows of query and key are reordered."""

    kind: Literal["deepseek2"] = "deepseek2"
    MIXERS: ClassVar[frozenset[str]] = frozenset({"mla"})

    def mixer_metadata(self, config: ModelConfig) -> dict[str, Value]:
        block = resolve(config)[0].block
        mixer: Any = block.mixer
        inner = int(getattr(block.mlp, "inner"))  # noqa: B009 (every kind of network has it)
        return {
            "leading_dense_block_count": config.layers,
            "attention.head_count": mixer.heads,
            # The absorbed form is attention with one key/value head: the latent and the rotated key.
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": mixer.q_rank or 0,  # required; 0 is a query of one matrix
            "attention.kv_lora_rank": mixer.kv_rank,
            "attention.key_length": mixer.kv_rank + mixer.rope_size,
            "attention.value_length": mixer.kv_rank,
            "attention.key_length_mla": mixer.nope_size + mixer.rope_size,
            "attention.value_length_mla": mixer.value_size,
            "rope.dimension_count": mixer.rope_size,
            "rope.freq_base": float(mixer.rope_theta),
            # Required of every model of this architecture, also of one without experts.
            "expert_feed_forward_length": inner,
            "expert_shared_count": 0,
        }

    def notices(self, config: ModelConfig) -> list[str]:
        if config.norm_eps == LATENT_EPS:
            return []
        return [f"llama.cpp norms latents with norm_eps = {config.norm_eps:g} too, where ours has {LATENT_EPS:g}"]

    def convert(self, name: str, tensor: Tensor, mixer: Mixer) -> Iterator[NamedTensor]:
        config: Any = mixer.config
        part = next(part for part, theirs in mixer.GGUF.items() if name == f"{theirs}.weight")
        if part != "kv_up":
            yield name, reorder_rotary(config, part, tensor, interleave)
        else:
            heads = tensor.unflatten(0, (config.heads, -1))
            keys, values = heads.split([config.nope_size, config.value_size], dim=1)
            yield "attn_k_b.weight", keys.transpose(1, 2)  # [H, r, nope]
            yield "attn_v_b.weight", values  # [H, value, r]
