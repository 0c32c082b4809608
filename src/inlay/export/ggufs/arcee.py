"""Arcee: Llama with a squared-ReLU network of two matrices."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from inlay.export.ggufs.llama import rope_factors
from inlay.export.llama_cpp import Architecture, NamedTensor, ggufs
from inlay.model import ModelConfig


@ggufs.register
class Arcee(Architecture):
    """Rotates neighbouring channels: rows of query and key are reordered."""

    kind: Literal["arcee"] = "arcee"
    MLP: ClassVar[str] = "relu2"
    SCALINGS: ClassVar[frozenset[str]] = frozenset({"linear", "llama3"})
    INTERLEAVED: ClassVar[bool] = True

    def extra_tensors(self, config: ModelConfig) -> Iterator[NamedTensor]:
        return rope_factors(config)
