"""A token store of made-up modules and the configuration of a training run on it that takes milliseconds a step."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inlay.config import validate
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.text.document import document
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter
from inlay.train.callback import Callback
from inlay.train.config import TrainRun
from inlay.train.trainer import Trainer


def module(number: int) -> str:
    """A distinct Python module."""
    return (
        f'"""Module {number}: größer, 日本語."""\n\nimport os\n\n\ndef function_{number}(first: int) -> int:\n'
        f"    total_{number} = first + {number}\n    if total_{number} > {number}:\n        return os.getpid()\n"
        f"    return total_{number}\n\n\nclass Holder_{number}:\n    names = ['a{number}', 'b', \"c\"]\n\n"
        f"    def show(self) -> None:\n        for name in self.names:\n            print(f'{{name}} {number}')\n"
    )


def write_store(folder: Path, modules: int = 24, first: int = 0, tokenizer: Tokenizer | None = None) -> Path:
    """A store of `modules` documents, every sixth of them for validation."""
    texts = [module(first + number) for number in range(modules)]
    tokenizer = tokenizer or Tokenizer.train(texts, vocab_size=400)
    with StoreWriter(folder, tokenizer) as writer:
        for number, text in enumerate(texts):
            item = document(text, language="python", path=f"m{number}.py", repo="r", licence="MIT", source="test")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add("train" if number % 6 else "validation", item, np.asarray(ids), starts)
        writer.commit({})
    return folder


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
}
CALLBACKS: dict[str, Any] = {
    "progress": {"kind": "progress", "every_seconds": 1000.0},
    "metrics": {"kind": "metrics"},
    "validation": {"kind": "validation", "evaluations": 2, "rows": 2},
    "checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 5, "keep": 3},
}


def config(store: Path, **changes: Any) -> TrainRun:
    """A run; `changes` replace top-level groups, merged where both are mappings."""
    data: dict[str, Any] = {
        "seed": 0,
        "data": {"path": str(store)},
        "fim": {"family": "inlay", "rate": 0.7},
        "model": MODEL,
        "optim": {"kind": "muon", "momentum_warmup": 10},
        "schedule": {"kind": "wsd", "warmup_steps": 4},
        "train": {"steps": 20, "sequence_length": 128, "rows": 4, "precision": "float32", "compile": False},
        "callbacks": CALLBACKS,
    }
    for key, value in changes.items():
        replaces = isinstance(value, dict) and "kind" not in value and isinstance(data[key], dict)
        data[key] = {**data[key], **value} if replaces else value
    return validate(TrainRun, data)


def weights(run: Path, step: int) -> dict[str, Tensor]:
    """Weights and optimizer state of a checkpoint, by file and name."""
    folder = run / "checkpoints" / f"step-{step}"
    checkpoint.read_record(folder, checkpoint.WEIGHTS, checkpoint.OPTIMIZER)
    return {
        f"{file}:{name}": tensor
        for file in (checkpoint.WEIGHTS, checkpoint.OPTIMIZER)
        for name, tensor in checkpoint.read_tensors(folder, file).items()
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class At(Callback):
    """Does something after one step."""

    def __init__(self, step: int, action: Any) -> None:
        self.at, self.action = step, action

    def step(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            self.action(trainer)


def start(run: TrainRun, out: Path, *observers: Callback) -> Trainer:
    """A new run; observers come before the callbacks of the configuration."""
    trainer = Trainer(run, RunDir.create(out, run))
    trainer.callbacks[:0] = observers
    return trainer


def stop_with(number: signal.Signals) -> Any:
    return lambda _: os.kill(os.getpid(), number)


def iter_batches(trainer: Trainer) -> Any:
    from inlay.data.loader import Loader

    return Loader(trainer.rows, trainer.config.train.rows)
