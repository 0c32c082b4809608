"""A run directory with a tiny untrained model, written the way training writes one: for tests of what comes after
training."""

from pathlib import Path
from typing import Any

import yaml

from inlay.config import validate
from inlay.infer.open import Opened, in_memory
from inlay.model import ModelConfig, Transformer, build, checkpoint
from inlay.text.tokenizer import Tokenizer

SENTENCES = [
    "def add(first, second):\n    return first + second\n\n\nclass Table:\n    rows: list[int]\n",
    'for index, value in enumerate(values):\n    print(f"{index}: {value}")  # naïve → größer 日本語 🙂\n',
    "import os\n\nif os.path.exists(path):\n    with open(path) as file:\n        data = file.read()\n",
]

MODEL: dict[str, Any] = {
    "width": 32,
    "layers": 2,
    "blocks": {
        "full": {
            "mixer": {"kind": "attention", "heads": 2, "kv_heads": 1, "head_size": 16},
            "mlp": {"kind": "swiglu", "inner": 48},
        }
    },
    "pattern": ["full"],
    # A head of its own and wide embeddings make an untrained model choose differently at every step.
    "tie_embeddings": False,
    "embedding_std": 1.0,
    "init_std": 0.2,
}


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES * 4, vocab_size=320)


def tiny_config(sequence_length: int = 128, store: str = "nowhere") -> dict[str, Any]:
    return {
        "data": {"path": store},
        "fim": {"family": "inlay", "orders": {"psm": 0.5, "spm": 0.5}},
        "model": MODEL,
        "train": {"sequence_length": sequence_length},
    }


def tiny_model(vocab_size: int, seed: int = 0) -> Transformer:
    return build(validate(ModelConfig, MODEL), vocab_size, seed=seed).eval().requires_grad_(False)


def tiny_opened(tokenizer: Tokenizer, sequence_length: int = 128, seed: int = 0) -> Opened:
    # A vocabulary padded beyond the tokenizer's, as real ones are.
    model = tiny_model(tokenizer.vocab_size + 16, seed)
    return in_memory(model, tokenizer, tiny_config(sequence_length), step=7)


def write_run(folder: Path, tokenizer: Tokenizer, steps: tuple[int, ...] = (10, 20), store: str = "nowhere") -> Path:
    """A run at `folder` with a checkpoint (its own weights) for each step."""
    folder.mkdir(parents=True)
    config = tiny_config(store=store)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    tokenizer.save(folder / "tokenizer")
    for step in steps:
        vocab_size = tokenizer.vocab_size + 16
        weights = dict(tiny_model(vocab_size, seed=step).state_dict())
        record = {"step": step, "model": MODEL, "vocab_size": vocab_size}
        checkpoint.write(folder / "checkpoints" / f"step-{step}", {checkpoint.WEIGHTS: weights}, record)
    return folder
