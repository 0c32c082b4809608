"""Tiny models of every shape that llama.cpp knows, with weights that make every part matter."""

from pathlib import Path
from typing import Any

import torch
import yaml
from tests.tiny_run import MODEL, tiny_config

from inlay.config import validate
from inlay.infer.open import Opened, in_memory
from inlay.model import ModelConfig, build, checkpoint
from inlay.text.tokenizer import Tokenizer

ATTENTION: dict[str, Any] = {
    "kind": "attention",
    "heads": 4,
    "kv_heads": 2,
    "head_size": 32,
    "rope_theta": 500.0,
}
SQUARE = {**ATTENTION, "head_size": 16}
"""With as many channels in its heads as the model has: some of llama.cpp's graphs ask for that."""
SWIGLU: dict[str, Any] = {"kind": "swiglu", "inner": 96}
MLA: dict[str, Any] = {
    "kind": "mla",
    "heads": 4,
    "q_rank": None,
    "kv_rank": 32,
    "nope_size": 16,
    "rope_size": 8,
    "value_size": 24,
    "rope_theta": 500.0,
}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_factor": 1.0, "high_factor": 4.0, "original_context": 32}


def shape(mixer: dict[str, Any], mlp: dict[str, Any] = SWIGLU, **options: Any) -> dict[str, Any]:
    return {
        **MODEL,
        "width": 64,
        "layers": 3,
        "blocks": {"main": {"mixer": mixer, "mlp": mlp}, **options.pop("blocks", {})},
        "pattern": ["main"],
        **options,
    }


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", shape(ATTENTION)),
    "qwen3 tied": ("qwen3", shape(ATTENTION, tie_embeddings=True, embedding_std=0.2)),
    "qwen3 linear": ("qwen3", shape({**ATTENTION, "rope_scaling": {"kind": "linear", "factor": 3.0}})),
    "qwen3 with training heads": ("qwen3", shape(ATTENTION, mtp={"weight": 0.1}, horizon={"weight": 0.1})),
    "qwen2": ("qwen2", shape({**SQUARE, "qk_norm": False, "bias": "qkv"})),
    "llama": ("llama", shape({**ATTENTION, "qk_norm": False}, norm_eps=1e-5)),
    "llama 3": ("llama", shape({**ATTENTION, "qk_norm": False, "rope_scaling": LLAMA3})),
    "arcee": ("arcee", shape({**ATTENTION, "qk_norm": False}, {"kind": "relu2", "inner": 96})),
    "starcoder2": (
        "starcoder2",
        shape({**SQUARE, "qk_norm": False, "bias": "all"}, {"kind": "gelu", "inner": 96, "bias": True}, norm="layer"),
    ),
    "deepseek2": ("deepseek2", shape(MLA)),
    "deepseek2 with a query rank": ("deepseek2", shape({**MLA, "q_rank": 40})),
    "lfm2": (
        "lfm2",
        shape(
            SQUARE,
            blocks={"conv": {"mixer": {"kind": "short_conv", "kernel": 3}, "mlp": SWIGLU}},
            layers=4,
            pattern=["conv", "conv", "main", "conv"],
        ),
    ),
}


def config(data: dict[str, Any]) -> ModelConfig:
    return validate(ModelConfig, data)


def opened(data: dict[str, Any], tokenizer: Tokenizer, seed: int = 0) -> Opened:
    """A model in memory; its gains and biases are drawn too, so that one that is forgotten shows."""
    # A vocabulary padded beyond the tokenizer's, as real ones are.
    model = build(config(data), tokenizer.vocab_size + 16, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.normal_(0.0, 0.3, generator=generator)
        elif parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("kernel"):
            parameter.data.normal_(0.0, 0.5, generator=generator)
    return in_memory(model.eval().requires_grad_(False), tokenizer, tiny_config(128), step=7, weights_hash="0" * 32)


def write_run(folder: Path, data: dict[str, Any], tokenizer: Tokenizer, padding: int = 0) -> Path:
    """A run of that model at `folder`, with two checkpoints. Its head has `padding` rows more than the tokenizer has
    ids: none as training makes it, some where it starts from a published model."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**tiny_config(128), "model": data}), encoding="utf-8")
    tokenizer.save(folder / "tokenizer")
    for step in (10, 20):
        rows = tokenizer.vocab_size + padding
        weights = dict(build(config(data), rows, seed=step).state_dict())
        record = {"step": step, "model": data, "vocab_size": rows}
        checkpoint.write(folder / "checkpoints" / f"step-{step}", {checkpoint.WEIGHTS: weights}, record)
    return folder
