"""The loop stops when told, resumes bit for bit, and says in one line what went wrong."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tests.train.tiny_training import (
    CALLBACKS,
    At,
    assert_same,
    config,
    iter_batches,
    lines,
    start,
    stop_with,
    weights,
    write_store,
)

from inlay.config import BadInput, InlayError, validate
from inlay.config.run_dir import RunDir
from inlay.infer.open import open_model
from inlay.train.config import TrainRun
from inlay.train.run import resume, train
from inlay.train.trainer import Interrupted, Trainer

# ---- it resumes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(10,), (3, 4, 17)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_is_straight(
    straight_runs: dict[str, tuple[TrainRun, Path]],
    tmp_path: Path,
    stops: tuple[int, ...],
    precision: str,
    number: signal.Signals,
) -> None:
    """Bit for bit: weights, optimizer state, and all that is logged but times. Epochs end in between."""
    run, expected = straight_runs[precision]
    out = tmp_path / "run"
    trainer = start(run, out, At(stops[0], stop_with(number)))
    shutil.copytree(expected / "tokenizer", out / "tokenizer")
    for following in (*stops[1:], None):
        at = trainer.callbacks[0].at  # type: ignore[attr-defined]
        with pytest.raises(Interrupted) as caught:
            trainer.run_to_end()
        assert str(caught.value) == f"{number.name} at step {at}; go on with: inlay train resume={out}"
        assert caught.value.exit_status == 128 + number
        trainer = Trainer(run, RunDir.open(out))
        trainer.load()
        assert trainer.step == at
        if following is not None:
            trainer.callbacks.insert(0, At(following, stop_with(number)))
    assert trainer.loader_state.epoch > 0
    trainer.run_to_end()
    assert_same(weights(out, 20), weights(expected, 20))
    timed = {"seconds", "tokens_per_second", "loader_share", "train/checkpoint_stall", "train/checkpoint_write"}
    found, wanted = (
        [{k: v for k, v in line.items() if k not in timed} for line in lines(path)] for path in (out, expected)
    )
    assert found == wanted


def test_signal_handlers_are_put_back(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    trainer = start(straight[0], tmp_path / "run", At(2, stop_with(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        trainer.run_to_end()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_inside_an_update_saves_no_half_of_it(
    straight: tuple[TrainRun, Path], tmp_path: Path
) -> None:
    """The user presses Ctrl-C twice, and the second one comes while the optimizer has updated only some parameters."""
    run, expected = straight
    out = tmp_path / "run"
    trainer = start(run, out)
    update = trainer.optimizer.step

    def interrupted(multiplier: float, step: int, remaining: float) -> None:
        update(multiplier, step, remaining)
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    trainer.optimizer.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match=f"interrupted at step 7; go on with: inlay train resume={out}"):
        trainer.run_to_end()
    assert RunDir.open(out).steps() == [5]
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


def test_the_configuration_of_the_run_alone_gives_the_same_weights(
    straight: tuple[TrainRun, Path], tmp_path: Path
) -> None:
    _, expected = straight
    again = validate(TrainRun, yaml.safe_load((expected / "config.yaml").read_text()))
    assert_same(weights(train(again, str(tmp_path / "again")).path, 20), weights(expected, 20))


def test_the_seed_decides_weights_and_rows(store: Path, tmp_path: Path) -> None:
    trainers = [start(config(store, seed=seed), tmp_path / str(index)) for index, seed in enumerate((3, 3, 4))]
    first, same, other = ((t.model.embedding.weight.detach(), next(iter_batches(t)).tokens) for t in trainers)
    assert torch.equal(first[0], same[0])
    assert np.array_equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_a_damaged_checkpoint_is_skipped_and_never_crowds_out_good_ones(
    straight: tuple[TrainRun, Path], tmp_path: Path
) -> None:
    run, expected = straight
    out = tmp_path / "run"
    run = validate(
        TrainRun, {**run.to_dict(), "callbacks": {"c": {**CALLBACKS["checkpoints"], "keep": 1, "every_steps": 3}}}
    )
    with pytest.raises(Interrupted):
        start(run, out, At(10, stop_with(signal.SIGTERM))).run_to_end()
    assert RunDir.open(out).steps() == [10]
    shutil.copytree(out / "checkpoints" / "step-10", out / "checkpoints" / "step-14")
    for file in (out / "checkpoints" / "step-14").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    trainer = Trainer(run, RunDir.open(out))
    trainer.load()
    assert trainer.step == 10
    assert any("skipped" in line and "step-14" in line for line in trainer.notices)
    trainer.callbacks.append(At(13, stop_with(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        trainer.run_to_end()
    assert RunDir.open(out).steps() == [11, 13]  # 11 stays: the last before the cooldown
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


def test_retention(straight: tuple[TrainRun, Path]) -> None:
    assert RunDir.open(straight[1]).steps() == [11, 15, 20]  # 11 is the last before the cooldown


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_one_line_and_keeps_the_last_checkpoint(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def break_it(trainer: Trainer) -> None:
        trainer.model.final_norm.weight.data[0] = float("nan")

    trainer = start(config(store), out, At(7, break_it))
    with pytest.raises(InlayError, match=r"gradient is not finite at step 7: .*smaller learning rate") as caught:
        trainer.run_to_end()
    assert caught.value.exit_status == 1
    assert "\n" not in str(caught.value)
    assert RunDir.open(out).steps() == [5]
    assert all(torch.isfinite(value).all() for value in weights(out, 5).values())


def test_another_store_is_refused(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    run, expected = straight
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    other = write_store(tmp_path / "other", first=100)
    data = {**run.to_dict(), "data": {"path": str(other)}, "train": {**run.train.to_dict(), "steps": 30}}
    (out / "config.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(BadInput, match=r"is not the one that .* was trained on"):
        resume(str(out))


def test_a_store_that_moved_is_the_same_store(straight: tuple[TrainRun, Path], store: Path, tmp_path: Path) -> None:
    run, expected = straight
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run, out, At(6, stop_with(signal.SIGTERM))).run_to_end()
    shutil.copytree(store, tmp_path / "moved")
    (out / "config.yaml").write_text(yaml.safe_dump({**run.to_dict(), "data": {"path": str(tmp_path / "moved")}}))
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


def test_a_changed_configuration_is_refused(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    run, expected = straight
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    data = run.to_dict()
    data["optim"]["lr"] = 0.5
    data["train"]["steps"] = 40
    (out / "config.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(BadInput, match="has changed in optim, train since step-20 was saved"):
        resume(str(out))


def test_a_complete_run_says_so(straight: tuple[TrainRun, Path]) -> None:
    with pytest.raises(BadInput, match="is complete: 20 of 20 steps"):
        resume(str(straight[1]))
    with pytest.raises(BadInput, match=r"keeps its configuration.*seed=3"):
        resume(str(straight[1]), ["seed=3"])


def test_an_occupied_directory_and_a_damaged_store_are_refused(
    straight: tuple[TrainRun, Path], store: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"exists: go on with it.*resume="):
        train(straight[0], str(straight[1]))
    shutil.copytree(store, tmp_path / "store")
    shard = next((tmp_path / "store" / "train").glob("tokens-*.bin"))
    data = bytearray(shard.read_bytes())
    data[3] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(InlayError, match="damaged token store"):
        train(config(tmp_path / "store"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_again(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    """Only config.yaml was written, and a first measurement: the resumed run is whole, and step 0 stands there once."""
    run, expected = straight
    out = RunDir.create(tmp_path / "run", run).path
    (out / "metrics.jsonl").write_text('{"step": 0, "tokens": 0}\n{"step": 3, "to')
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))
    assert [line["step"] for line in lines(out)] == [line["step"] for line in lines(expected)]
    assert open_model(out).step == 20
