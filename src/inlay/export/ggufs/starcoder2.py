"""StarCoder2: attention with biases, LayerNorm, a GELU network of two matrices."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from inlay.export.llama_cpp import Architecture, ggufs
from inlay.model.expressible import Reason
from inlay.model.layout import LayerSpec


@ggufs.register
class StarCoder2(Architecture):
    """Rotates halves, as we do: rows stay in order. Every matrix of a block has a bias."""

    kind: Literal["starcoder2"] = "starcoder2"
    MLP: ClassVar[str] = "gelu"
    NORM: ClassVar[str] = "layer"
    SQUARE: ClassVar[bool] = True
    BIASES: ClassVar[frozenset[str]] = frozenset({"all"})

    def layer_reasons(self, spec: LayerSpec, width: int, context: int | None) -> Iterator[Reason]:
        yield from super().layer_reasons(spec, width, context)
        if getattr(spec.block.mlp, "bias", True) is False:
            yield Reason("mlp.bias", f"layer {spec.index} ({spec.name}): mlp.bias = false, where it has a bias")
