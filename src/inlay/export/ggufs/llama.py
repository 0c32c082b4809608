"""Llama: plain grouped-query attention, SwiGLU, and Llama 3.1's stretched rotary embedding."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch

from inlay.export.llama_cpp import Architecture, NamedTensor, ggufs
from inlay.model import ModelConfig
from inlay.model.layout import resolve
from inlay.model.mixers.attention import AttentionConfig
from inlay.model.parts import rotation


def rope_factors(config: ModelConfig) -> Iterator[NamedTensor]:
    """`rope_freqs.weight` [D / 2], by which llama.cpp divides each frequency; nothing where none is stretched so."""
    mixer = next(spec.block.mixer for spec in resolve(config) if isinstance(spec.block.mixer, AttentionConfig))
    scaling = mixer.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return
    one = torch.ones(1, 1, dtype=torch.int64)  # the angles at position 1 are the frequencies
    angles = [torch.atan2(sin, cos) for cos, sin in (_rotation(one, mixer, None), _rotation(one, mixer, scaling.key))]
    yield "rope_freqs.weight", (angles[0] / angles[1]).flatten()


def _rotation(
    positions: torch.Tensor, mixer: AttentionConfig, scaling: tuple[float, ...] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    return rotation(positions, mixer.rope_theta, mixer.head_size, scaling)


@ggufs.register
class Llama(Architecture):
    """Rotates neighbouring channels: rows of query and key are reordered."""

    kind: Literal["llama"] = "llama"
    SCALINGS: ClassVar[frozenset[str]] = frozenset({"linear", "llama3"})
    INTERLEAVED: ClassVar[bool] = True

    def extra_tensors(self, config: ModelConfig) -> Iterator[NamedTensor]:
        return rope_factors(config)
