"""The contract of a llama.cpp architecture: what it can express, its keys and its tensors. One file each in `ggufs`.

An architecture lists every reason why llama.cpp would compute something else than this model does; none means that the
file is exact. Windows as long as the trained context are no reason: they never hide a key there. Keys and tensor names
are those of llama.cpp's own converter (ggml-org/llama.cpp, `conversion/` and `gguf-py`).

Legend: d width, H query heads, D head size, r rank of a latent.
"""

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from inlay.config import BadInput, Registry
from inlay.model import ModelConfig, Transformer
from inlay.model.expressible import Expressible, Reason, refusal_by_nearest
from inlay.model.layout import resolve
from inlay.model.mixer import Mixer
from inlay.model.mixers.attention import AttentionConfig
from inlay.model.mlp import MLP
from inlay.model.parts import interleave

ggufs = Registry("GGUF architecture", "inlay.export.ggufs")

Value = bool | int | float | str | list[int]
NamedTensor = tuple[str, Tensor]


class Architecture(Expressible):
    """One architecture of llama.cpp. What a class attribute does not allow is a reason to refuse."""

    kind: str
    """`general.architecture`."""

    NO_SOFTCAP: ClassVar[str] = ", and its graph has none"
    SCALINGS: ClassVar[frozenset[str]] = frozenset({"linear"})
    """Kinds of rope scaling that its graph applies."""
    INTERLEAVED: ClassVar[bool] = False
    """Whether it rotates neighbouring channels; rows of query and key are then reordered."""
    SQUARE: ClassVar[bool] = False
    """Whether it takes a query projection from width to width only."""
    FINAL_NORM: ClassVar[str] = "output_norm"

    def metadata(self, config: ModelConfig, context: int) -> dict[str, Value]:
        """Its keys without the architecture's name in front."""
        spec = resolve(config)[0].block
        eps = "attention.layer_norm_rms_epsilon" if self.NORM == "rms" else "attention.layer_norm_epsilon"
        common: dict[str, Value] = {
            "context_length": context,
            "embedding_length": config.width,
            "block_count": config.layers,
            "feed_forward_length": int(getattr(spec.mlp, "inner")),  # noqa: B009 (every kind of network has it)
            eps: float(config.norm_eps),
        }
        return common | self.mixer_metadata(config)

    def mixer_metadata(self, config: ModelConfig) -> dict[str, Value]:
        """The keys of its mixers: here those of attention, equal in all layers."""
        mixer = next(spec.block.mixer for spec in resolve(config) if isinstance(spec.block.mixer, AttentionConfig))
        return attention_metadata(mixer)

    def tensors(self, model: Transformer) -> Iterator[NamedTensor]:
        """Every tensor of the file, made when it is asked for. Rows of the vocabulary are cut by the writer."""
        for name, tensor, mixer in self.sources(model):
            if mixer is None:
                yield name, tensor
                continue
            block = ".".join(name.split(".")[:2])
            for converted, part in self.convert(name.removeprefix(f"{block}."), tensor, mixer):
                yield f"{block}.{converted}", part
        yield from self.extra_tensors(model.config)

    def sources(self, model: Transformer) -> Iterator[tuple[str, Tensor, Mixer | None]]:
        """Our weights by their GGUF names, before any conversion, and the mixer that each belongs to."""
        yield "token_embd.weight", model.embedding.weight, None
        for name, tensor in _of_module(model.final_norm, self.FINAL_NORM):
            yield name, tensor, None
        if model.head is not None:
            yield "output.weight", model.head.weight, None
        for index, block in enumerate(model.layers):
            for name, tensor in _of_module(block.mixer_norm, "attn_norm"):
                yield f"blk.{index}.{name}", tensor, None
            for name, tensor in _named(block.mixer):
                yield f"blk.{index}.{name}", tensor, block.mixer
            for name, tensor in (*_of_module(block.mlp_norm, "ffn_norm"), *_named(block.mlp)):
                yield f"blk.{index}.{name}", tensor, None

    def notices(self, config: ModelConfig) -> list[str]:
        """What the file does a little otherwise than the model; exact architectures have none."""
        return []

    def extra_tensors(self, config: ModelConfig) -> Iterator[NamedTensor]:
        """Tensors that belong to no weight of ours."""
        return iter(())

    def convert(self, name: str, tensor: Tensor, mixer: Mixer) -> Iterator[NamedTensor]:
        """A mixer's tensor as this architecture stores it; `name` is its GGUF name inside the block."""
        if self.INTERLEAVED and name.partition(".")[0] in ("attn_q", "attn_k"):
            tensor = interleave(tensor, int(mixer.config.head_size))  # pyrefly: ignore
        yield name, tensor

    def attention_reasons(
        self, mixer: AttentionConfig, where: str, width: int, context: int | None
    ) -> Iterator[Reason]:
        yield from super().attention_reasons(mixer, where, width, context)
        if mixer.window is not None and (context is None or mixer.window < context):
            yield Reason(
                "mixer.window",
                f"{where}: mixer.window = {mixer.window} of {context} positions, and its graph ignores windows",
            )
        scaling = mixer.rope_scaling
        if scaling is not None and scaling.kind not in self.SCALINGS:
            yield Reason(
                "mixer.rope_scaling", f"{where}: mixer.rope_scaling.kind = {scaling.kind}, and its graph has none"
            )
        if self.SQUARE and mixer.heads * mixer.head_size != width:
            product = f"mixer.heads x mixer.head_size = {mixer.heads * mixer.head_size}"
            yield Reason("mixer.head_size", f"{where}: {product}, where it has the width, {width}")


def refusal(config: ModelConfig, context: int) -> str | None:
    """One line that says why no architecture can express this model, by those that come nearest; None when one can."""
    reason = refusal_by_nearest(architectures(), config, context)
    return None if reason is None else f"llama.cpp has no architecture for this model ({reason})"


def architecture_of(config: ModelConfig, context: int) -> Architecture:
    """The architecture that expresses a model exactly. Raises BadInput that says what stands in the way."""
    for architecture in architectures().values():
        if not architecture.reasons(config, context):
            return architecture
    raise BadInput(str(refusal(config, context)))


def architectures() -> dict[str, Architecture]:
    """Every architecture by its name, in the order in which they are tried."""
    made = {}
    for kind in ggufs.members():
        architecture = ggufs.get(kind)()
        assert isinstance(architecture, Architecture)
        made[kind] = architecture
    return made


def attention_metadata(mixer: AttentionConfig) -> dict[str, Value]:
    """The keys of grouped-query attention."""
    found: dict[str, Value] = {
        "attention.head_count": mixer.heads,
        "attention.head_count_kv": mixer.kv_heads,
        "attention.key_length": mixer.head_size,
        "attention.value_length": mixer.head_size,
        "rope.dimension_count": mixer.head_size,
        "rope.freq_base": float(mixer.rope_theta),
    }
    scaling = mixer.rope_scaling
    if scaling is not None and scaling.kind == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    return found


def _named(module: Mixer | MLP) -> Iterator[NamedTensor]:
    """The parameters of a mixer or network by their GGUF names."""
    for path, parameter in module.named_parameters():
        part, _, leaf = path.rpartition(".")
        if path in module.GGUF:  # a parameter of its own, without a module around it
            part, leaf = path, "weight"
        yield f"{module.GGUF[part]}.{leaf}", parameter


def _of_module(module: nn.Module, name: str) -> Iterator[NamedTensor]:
    for leaf, parameter in module.named_parameters():
        yield f"{name}.{leaf}", parameter
