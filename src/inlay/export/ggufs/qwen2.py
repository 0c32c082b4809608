"""Qwen2 and Qwen2.5-Coder: attention with biases on query, key and value, SwiGLU."""

from typing import ClassVar, Literal

from inlay.export.llama_cpp import Architecture, ggufs


@ggufs.register
class Qwen2(Architecture):
    """Rotates halves, as we do: rows stay in order."""

    kind: Literal["qwen2"] = "qwen2"
    SQUARE: ClassVar[bool] = True
    BIASES: ClassVar[frozenset[str]] = frozenset({"qkv"})
