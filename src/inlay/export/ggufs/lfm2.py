"""LFM2: short convolutions with a few layers of attention between them, SwiGLU."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor

from inlay.export.llama_cpp import Architecture, NamedTensor, Value, attention_metadata, ggufs
from inlay.model import ModelConfig
from inlay.model.expressible import Reason
from inlay.model.layout import resolve
from inlay.model.mixer import Mixer
from inlay.model.mixers.attention import AttentionConfig


@ggufs.register
class Lfm2(Architecture):
    """Rotates halves, as we do. A layer without key/value heads is a convolution."""

    kind: Literal["lfm2"] = "lfm2"
    MIXERS: ClassVar[frozenset[str]] = frozenset({"attention", "short_conv"})
    QK_NORM: ClassVar[bool] = True
    SQUARE: ClassVar[bool] = True
    FINAL_NORM: ClassVar[str] = "token_embd_norm"
    """LFM2's own name for the norm before the head, which llama.cpp keeps."""

    def model_reasons(self, config: ModelConfig) -> Iterator[Reason]:
        yield from super().model_reasons(config)
        kinds = {spec.block.mixer.kind for spec in resolve(config)}
        if missing := self.MIXERS - kinds:
            yield Reason("pattern", f"pattern: it needs layers of {' and '.join(sorted(missing))}")

    def mixer_metadata(self, config: ModelConfig) -> dict[str, Value]:
        mixers = [spec.block.mixer for spec in resolve(config)]
        found = attention_metadata(next(mixer for mixer in mixers if isinstance(mixer, AttentionConfig)))
        heads = [mixer.kv_heads if isinstance(mixer, AttentionConfig) else 0 for mixer in mixers]
        kernel = next(int(getattr(mixer, "kernel")) for mixer in mixers if mixer.kind == "short_conv")  # noqa: B009
        return found | {"attention.head_count_kv": heads, "shortconv.l_cache": kernel}

    def convert(self, name: str, tensor: Tensor, mixer: Mixer) -> Iterator[NamedTensor]:
        # ggml's convolution takes [d, kernel].
        yield name, tensor.squeeze(1) if name == "shortconv.conv.weight" else tensor
