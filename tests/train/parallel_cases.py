"""What the processes of the parallel tests do: a run, and what it leaves to compare."""

import dataclasses
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_training import MODEL, config
from torch import Tensor

from inlay.config import InlayError, validate
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch
from inlay.train import trainer as trainer_module
from inlay.train.callback import Callback
from inlay.train.config import TrainRun
from inlay.train.parallel import Parallel, ParallelConfig
from inlay.train.trainer import Trainer

ATTENTION = {"kind": "attention", "heads": 2, "kv_heads": 1, "head_size": 16}
MLA = {"kind": "mla", "heads": 2, "kv_rank": 8, "nope_size": 8, "rope_size": 8, "value_size": 16}
SWIGLU = {"kind": "swiglu", "inner": 48}
BOTH = {"mtp": {"weight": 0.3}, "horizon": {"weight": 0.5}}
# Every way in which blocks differ, an odd width of some weight included, and one layer that reads another's K/V.
MIXED = {
    **BOTH,
    "layers": 5,
    "pattern": ["window", "window", "latent", "conv", "full"],
    "blocks": {
        "window": {"mixer": {**ATTENTION, "window": 32}, "mlp": SWIGLU},
        "latent": {"mixer": MLA, "mlp": {"kind": "gelu", "inner": 47, "bias": True}},
        "conv": {"mixer": {"kind": "short_conv", "kernel": 3}, "mlp": {"kind": "relu2", "inner": 50}},
        "full": {"mixer": {**ATTENTION, "softcap": 30.0}, "mlp": SWIGLU},
    },
    "kv_share": {"kind": "pairs"},
    "tie_embeddings": False,
    "head_softcap": 20.0,
}
MEASURED = ("train/loss", "train/mtp_loss", "train/horizon_error", "train/gradient_norm")
CHECKPOINTS = {"checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 3, "keep": 9}}


def case(store: Path, steps: int = 5, parallel: dict[str, Any] | None = None, **changes: Any) -> TrainRun:
    """A short run that writes nothing of itself; `changes` are those of `tiny_training.config`."""
    model = {**MODEL, **changes.pop("model", {})}
    train = {"steps": steps, "clip": 0.5, **changes.pop("train", {})}
    run = config(store, train=train, **changes).to_dict()
    callbacks = changes.get("callbacks", {})
    return validate(TrainRun, {**run, "model": model, "callbacks": callbacks, "parallel": parallel or {}})


class Watch(Callback):
    """Keeps what is logged and which rows were read."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.rows: list[list[str]] = []

    def update(self, trainer: Trainer, batch: Batch) -> None:
        self.rows.append([hashlib.sha256(row.tobytes()).hexdigest()[:12] for row in batch.tokens])

    def record(self, trainer: Trainer, values: dict[str, Any]) -> None:
        self.logged.append({name: value for name, value in values.items() if name.startswith(MEASURED)})


def untrained(trainer: Trainer, wanted: str) -> None:
    """Takes weights away: those of every second row, which is all that rank 1 of 2 has; or of all rows."""
    backward, parallel = trainer.objectives.backward, trainer.parallel

    def without(batch: Batch, rows: int) -> Any:
        number = np.arange(len(batch.weights)) * parallel.world + parallel.rank
        keep = (number % 2 == 0)[:, None] if wanted == "odd" else np.zeros((len(number), 1), bool)
        weights = (batch.weights * keep).astype(np.float32)
        return backward(dataclasses.replace(batch, weights=weights), rows)

    trainer.objectives.backward = without  # type: ignore[method-assign]


def train(run: TrainRun, out: Path, *, resumed: bool = False, without: str = "", until: int = 0) -> dict[str, Any]:
    """Trains `run`, in the processes that this one is part of; `until` ends it there as a SIGTERM to the last rank
    would. The log of each step, the rows of this rank, the whole weights at the end."""
    parallel = Parallel.join(run.parallel)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(run, RunDir(out), parallel=parallel)
    if resumed:
        trainer.load()
    if without:
        untrained(trainer, without)
    watch = Watch()
    trainer.callbacks.append(watch)
    if until and parallel.rank == parallel.world - 1:
        trainer.callbacks.append(Stop(until))
    said = ""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer_module, "LOG_EVERY", 1)
            trainer.run_to_end()
    except InlayError as error:
        if not until:
            raise
        said = str(error)
    with trainer.whole_model() as model:
        weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return {"logged": watch.logged, "rows": watch.rows, "weights": weights, "said": said, "step": trainer.step}


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def all_of(cases: dict[str, tuple[TrainRun, dict[str, Any]]], out: Path) -> dict[str, Any]:
    """Each case in a folder of its name."""
    return {name: train(run, out / name, **options) for name, (run, options) in cases.items()}


def agreements() -> dict[str, Any]:
    """What ranks tell each other, without a run."""
    parallel = Parallel.join(ParallelConfig())
    rank = parallel.rank
    found: dict[str, Any] = {
        "sum": parallel.sum(np.array([1.0, rank])).tolist(),
        "first": parallel.first(0.1 + rank),
        "gather": parallel.gather({"rank": rank}),
        "strategy": parallel.strategy,
    }
    for name, failing in (("all", range(9)), ("last", [parallel.world - 1])):
        try:
            with parallel.together():
                if rank in failing:
                    raise InlayError(f"rank {rank} failed")
        except InlayError as error:
            found[name] = (type(error).__name__, str(error), error.exit_status)
    return found


def assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    """The same curve and the same weights, up to rounding."""
    assert len(found["logged"]) == len(expected["logged"])
    for ours, theirs in zip(found["logged"], expected["logged"], strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert abs(ours[name] - value) < tolerance * max(1.0, abs(value)), name
    weights: dict[str, Tensor] = expected["weights"]
    assert found["weights"].keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(found["weights"][name], value, atol=tolerance, rtol=tolerance, msg=name)
