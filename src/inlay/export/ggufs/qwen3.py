"""Qwen3: grouped-query attention with a gain on every query and key head, SwiGLU. Our default model exactly."""

from typing import ClassVar, Literal

from inlay.export.llama_cpp import Architecture, ggufs


@ggufs.register
class Qwen3(Architecture):
    """Rotates halves, as we do: rows stay in order."""

    kind: Literal["qwen3"] = "qwen3"
    QK_NORM: ClassVar[bool] = True
