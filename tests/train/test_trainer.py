"""The loop: it learns, keeps its plan, and its callbacks only watch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_training import CALLBACKS, At, assert_same, config, iter_batches, lines, start, weights
from torch import Tensor

from inlay.config import BadInput, InlayError, validate
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch
from inlay.infer.open import open_model
from inlay.train.callback import Callback, drop_lines_behind
from inlay.train.config import TrainRun
from inlay.train.run import train
from inlay.train.trainer import Trainer

# ---- it learns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optim", [{"kind": "muon"}, {"kind": "adamw", "lr": 0.01}])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_loss_falls(store: Path, tmp_path: Path, optim: dict[str, Any], precision: str) -> None:
    run = config(store, optim=optim, train={"steps": 40, "precision": precision})
    out = train(run, str(tmp_path / "run")).path
    logged = [line for line in lines(out) if "train/loss" in line]
    assert [line["step"] for line in logged] == [10, 20, 30, 40]
    assert [line["tokens"] for line in logged] == [step * 4 * 128 for step in (10, 20, 30, 40)]
    assert logged[-1]["train/loss"] < 0.75 * logged[0]["train/loss"]
    held_out = [line["validation/l2r/loss"] for line in lines(out) if "validation/l2r/loss" in line]
    assert len(held_out) == 3
    assert held_out[0] == pytest.approx(np.log(400), abs=0.3)
    assert held_out[-1] < 0.75 * held_out[0]
    assert open_model(out).step == 40  # what training writes is what inference opens


def test_accumulation_changes_nothing(store: Path, tmp_path: Path) -> None:
    """1 or 4 micro-batches: the same gradients up to rounding, though their trained tokens differ in number."""
    found = []
    for parts in (1, 4):
        run = config(store, train={"steps": 1, "accumulation": parts, "clip": None}, optim={"kind": "adamw"})
        trainer = start(run, tmp_path / f"run{parts}")
        gradients: dict[str, Tensor] = {}

        def keep(*_: float, trainer: Trainer = trainer, into: dict[str, Tensor] = gradients) -> None:
            into |= {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}

        trainer.optimizer.step = keep  # type: ignore[method-assign]
        trainer.run_to_end()
        found.append(gradients)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_gradient_is_clipped_to_the_limit(store: Path, tmp_path: Path) -> None:
    norms = []
    for limit in (None, 0.05):
        trainer = start(config(store, train={"steps": 1, "clip": limit}), tmp_path / f"run{limit}")

        def keep(*_: float, trainer: Trainer = trainer) -> None:
            squares = [p.grad.square().sum() for p in trainer.model.parameters() if p.grad is not None]
            norms.append(float(sum(squares)) ** 0.5)

        trainer.optimizer.step = keep  # type: ignore[method-assign]
        trainer.run_to_end()
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.05, rel=1e-3)


def test_a_batch_without_trained_tokens_moves_nothing_by_its_gradient(store: Path, tmp_path: Path) -> None:
    run = config(store, train={"steps": 1}, optim={"kind": "adamw", "weight_decay": 0.0})
    trainer = start(run, tmp_path / "run")
    batch = next(iter_batches(trainer))
    empty = Batch(**{**batch.__dict__, "weights": np.zeros_like(batch.weights)})
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer._train_step(empty)
    assert_same(trainer.model.state_dict(), before)


# ---- plans -----------------------------------------------------------------------------------------------------------


def test_tokens_are_rounded_up_to_steps(store: Path, tmp_path: Path) -> None:
    run = config(store, train={"steps": None, "tokens": 4 * 128 * 2 + 1})
    assert start(run, tmp_path / "run").total_steps == 3


def test_a_time_budget_is_planned_once_and_kept(store: Path, tmp_path: Path) -> None:
    """Killed right after the plan: the resumed run makes none of its own, though the machine may be slower by then."""
    run = config(
        store,
        train={"steps": None, "minutes": 2.0},
        callbacks={"checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 1000}},
    )

    class Killed(Exception):
        pass

    def kill(trainer: Trainer) -> None:
        trainer.savable = False  # what a SIGKILL would leave: nothing is saved on the way out
        raise Killed

    out = tmp_path / "run"
    trainer = start(run, out, At(12, kill))
    with pytest.raises(Killed):
        trainer.run_to_end()
    planned = trainer.total_steps
    assert planned is not None
    assert planned > 12
    steps = [line["plan/total_steps"] for line in lines(out) if "plan/total_steps" in line]
    assert steps == [planned]
    resumed = Trainer(run, RunDir.open(out))
    resumed.load()
    assert (resumed.step, resumed.total_steps) == (9, planned)
    resumed.plan = resumed.plan.planned(15)
    resumed.run_to_end()
    assert [line["plan/total_steps"] for line in lines(out) if "plan/total_steps" in line] == [planned]


def test_a_spent_time_budget_ends_the_run(store: Path, tmp_path: Path) -> None:
    out = train(config(store, train={"steps": None, "minutes": 1e-6}), str(tmp_path / "run")).path
    assert RunDir.open(out).steps()[-1] == 9  # the timed steps


# ---- callbacks ------------------------------------------------------------------------------------------------------


def test_every_callback_ends_although_one_fails(store: Path, tmp_path: Path) -> None:
    ended: list[str] = []

    class Failing(Callback):
        def finish(self, trainer: Trainer, completed: bool) -> None:
            ended.append("failing")
            raise InlayError("cannot write: the disk is full")

    trainer = start(config(store, train={"steps": 3}), tmp_path / "run", Failing())
    with pytest.raises(InlayError, match="the disk is full"):
        trainer.run_to_end()
    assert ended == ["failing"]
    assert trainer.run.steps() == [3]  # the checkpoint of the end was saved all the same


def test_a_callback_that_cannot_start_leaves_no_checkpoint(store: Path, tmp_path: Path) -> None:
    class Failing(Callback):
        def start(self, trainer: Trainer) -> None:
            raise BadInput("nothing to measure")

    trainer = start(config(store), tmp_path / "run", Failing())
    with pytest.raises(BadInput, match="nothing to measure"):
        trainer.run_to_end()
    assert trainer.run.steps() == []


def test_null_takes_a_callback_away(store: Path, tmp_path: Path) -> None:
    run = config(store, callbacks={"validation": None, "progress": None}, train={"steps": 2})
    out = train(run, str(tmp_path / "run")).path
    assert not any("validation/l2r/loss" in line for line in lines(out))


def test_callbacks_change_no_weight(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    run, expected = straight
    bare = {**dict.fromkeys(CALLBACKS), "checkpoints": {"kind": "checkpoints", "every_seconds": None}}
    out = train(validate(TrainRun, {**run.to_dict(), "callbacks": bare}), str(tmp_path / "run")).path
    assert_same(weights(out, 20), weights(expected, 20))


def test_lines_behind_a_step_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    drop_lines_behind(file, 3)
    assert not file.exists()
    text = '{"step": 0}\n{"step": 3, "a": 1}\nhalf\n[]\n{"step": 4}\n{"step": 3, "b": 2}\n{"ste'
    file.write_text(text)
    drop_lines_behind(file, 3)
    assert file.read_text() == '{"step": 0}\n{"step": 3, "a": 1}\n{"step": 3, "b": 2}\n'
    drop_lines_behind(file, 0)
    assert file.read_text() == ""
