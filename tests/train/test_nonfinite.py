"""Steps whose gradient is not finite: stopped or skipped, counted, and never without end."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.tiny_training import assert_same, config, lines, start, weights

from inlay.train.guards import GuardStop
from inlay.train.nonfinite import NonFiniteSteps
from inlay.train.trainer import Trainer


def spoiled(store: Path, out: Path, steps: set[int], **train: Any) -> Trainer:
    """A run whose gradients have a NaN at some steps."""
    trainer = start(config(store, train={"steps": 10, **train}), out)
    honest = trainer._gradients

    def gradients(batch: Any) -> Any:
        measured = honest(batch)
        if trainer.step in steps:
            next(trainer.model.parameters()).grad.view(-1)[3] = math.nan  # type: ignore[union-attr]
        return measured

    trainer._gradients = gradients  # type: ignore[method-assign]
    return trainer


def test_it_stops_by_default(store: Path, tmp_path: Path) -> None:
    trainer = spoiled(store, tmp_path / "run", {6})
    with pytest.raises(GuardStop, match="the gradient is not finite at step 6") as caught:
        trainer.run_to_end()
    assert caught.value.rule == "nonfinite"
    assert trainer.run.steps() == [5]
    (warning,) = [line["warning"] for line in lines(tmp_path / "run") if "warning" in line]
    assert warning["stops"]


def test_a_skipped_step_changes_nothing_and_is_counted(store: Path, tmp_path: Path) -> None:
    trainer = spoiled(store, tmp_path / "run", {4, 7}, nonfinite="skip")
    before: dict[int, Any] = {}
    honest = trainer._train_step

    def watched(batch: Any) -> None:
        before[trainer.step] = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        honest(batch)

    trainer._train_step = watched  # type: ignore[method-assign]
    trainer.run_to_end()
    assert_same(before[5], before[4])
    assert_same(before[8], before[7])
    assert not torch.equal(before[6]["embedding.weight"], before[5]["embedding.weight"])
    assert [line["train/nonfinite"] for line in lines(tmp_path / "run") if "train/loss" in line] == [0.2]
    assert trainer.run.steps()[-1] == 10
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run", 10).values())


def test_skipping_has_an_end(store: Path, tmp_path: Path) -> None:
    trainer = spoiled(store, tmp_path / "run", {5, 6, 7}, nonfinite="skip", nonfinite_in_a_row=1)
    with pytest.raises(GuardStop, match="at step 6, after 1 skipped steps in a row"):
        trainer.run_to_end()
    assert trainer.run.steps() == [5]


def test_only_steps_in_a_row_count(tmp_path: Path) -> None:
    steps = NonFiniteSteps("skip", 1)
    for step in (1, 3, 5):
        assert not steps.finding(math.inf, step, tmp_path).stops
        steps.in_a_row = 0
    assert NonFiniteSteps("stop", 1).finding(math.nan, 1, tmp_path).stops


def test_the_share_of_clipped_steps_is_logged(store: Path, tmp_path: Path) -> None:
    for limit, share in ((1e-6, 1.0), (1e6, 0.0)):
        out = tmp_path / str(limit)
        start(config(store, train={"steps": 10, "clip": limit}), out).run_to_end()
        assert [line["train/clipped"] for line in lines(out) if "train/loss" in line] == [share]
