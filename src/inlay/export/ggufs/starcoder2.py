"""StarCoder2: attention with biases, LayerNorm, a GELU network of two matrices."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from inlay.export.llama_cpp import Architecture, Reason, ggufs
from inlay.model import ModelConfig
from inlay.model.layout import resolve


@ggufs.register
class StarCoder2(Architecture):
    """Rotates halves, as we do: rows stay in order. Every matrix of a block has a bias."""

    kind: Literal["starcoder2"] = "starcoder2"
    MLP: ClassVar[str] = "gelu"
    NORM: ClassVar[str] = "layer"
    SQUARE: ClassVar[bool] = True
    BIASES: ClassVar[frozenset[str]] = frozenset({"all"})

    def reasons(self, config: ModelConfig, context: int) -> list[Reason]:
        return [*super().reasons(config, context), *self._unbiased(config)]

    def _unbiased(self, config: ModelConfig) -> Iterator[Reason]:
        for spec in resolve(config):
            if getattr(spec.block.mlp, "bias", True) is False:
                yield Reason("mlp.bias", f"layer {spec.index} ({spec.name}): mlp.bias = false, where it has a bias")
                return
