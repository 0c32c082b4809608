"""Tiny model configurations that the tests of this folder share, and rows of packed documents."""

from typing import Any

import torch
from torch import Tensor

from inlay.config import validate
from inlay.model import ModelConfig, Transformer, build

VOCAB = 53


def tiny(heads: int = 4, kv_heads: int = 2, head_size: int = 16, *, tied: bool = True, **options: Any) -> ModelConfig:
    """Two layers of width 32; weights wide enough that every position matters."""
    mixer = {
        "kind": "attention",
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": head_size,
        "qk_norm": options.pop("qk_norm", True),
        "rope_theta": options.pop("rope_theta", 10_000.0),
    }
    data = {
        "width": 32,
        "layers": 2,
        "blocks": {"full": {"mixer": mixer, "mlp": {"kind": "swiglu", "inner": 40}}},
        "pattern": ["full"],
        "tie_embeddings": tied,
        "init_std": 0.2,
        "embedding_std": 1.0,
    }
    return validate(ModelConfig, {**data, **options})


def tiny_model(config: ModelConfig | None = None, seed: int = 0) -> Transformer:
    """A model with gains that differ from one, so that a forgotten or doubled gain shows."""
    model = build(config or tiny(), VOCAB, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model


def packed(*rows: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random tokens [B, T] and their positions for rows of documents of the given lengths (equal sums)."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])
    return torch.randint(VOCAB, positions.shape, generator=generator), positions
