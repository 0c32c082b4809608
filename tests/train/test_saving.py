"""Saving while training goes on: of one step, one at a time, kept by rule, and by one process alone."""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from tests.train.tiny_training import At, assert_same, config, lines, start, stop_with, weights

from inlay.config import BadInput, InlayError, files, validate
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.train.callback import Callback
from inlay.train.callbacks.checkpoints import CheckpointsConfig, clear
from inlay.train.config import TrainRun
from inlay.train.parallel import Parallel
from inlay.train.run import resume, train
from inlay.train.saving import share
from inlay.train.trainer import Interrupted, Trainer


class SlowDisk:
    """Holds back everything that is written into files of one name until `let` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = checkpoint.WEIGHTS) -> None:
        self.let = threading.Event()
        self.reached = threading.Event()
        put = files._put

        def wait(file: BinaryIO, part: memoryview) -> None:
            if Path(file.name).name == name:
                self.reached.set()
                assert self.let.wait(30.0)
            put(file, part)

        monkeypatch.setattr(files, "_put", wait)


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    parameters = {f"{checkpoint.WEIGHTS}:{name}": value.detach() for name, value in trainer.model.named_parameters()}
    moments = {f"{checkpoint.OPTIMIZER}:{name}": value for name, value in trainer.optimizer.state().items()}
    return {name: value.clone() for name, value in {**parameters, **moments}.items()}


# ---- in the background -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optim", [{"kind": "muon"}, {"kind": "adamw"}])
def test_what_is_written_is_of_one_step(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optim: dict[str, Any]
) -> None:
    """Weights, optimizer and counters change right after `save`, before the first byte is on the disk."""
    disk = SlowDisk(monkeypatch)
    found = {}

    def save(trainer: Trainer) -> None:
        found["state"] = state(trainer)
        found["sums"] = dict(trainer.meters.sums)
        found["loader"] = trainer.loader_state.to_dict()
        trainer.save()

    def look(trainer: Trainer) -> None:
        assert disk.reached.wait(30.0)
        assert not RunDir.open(tmp_path / "run").steps()  # nothing is there before it is whole
        assert not all(torch.equal(value, found["state"][name]) for name, value in state(trainer).items())
        disk.let.set()

    run = config(store, optim=optim, train={"steps": 8}, callbacks={"checkpoints": None})
    start(run, tmp_path / "run", At(3, save), At(6, look)).run_to_end()
    assert_same(weights(tmp_path / "run", 3), found["state"])
    record = checkpoint.read_record(tmp_path / "run" / "checkpoints" / "step-3")
    assert (record["step"], record["sums"], record["loader"]) == (3, found["sums"], found["loader"])


def test_one_checkpoint_at_a_time_and_its_cost_is_logged(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, most = [], []
    put = files._put

    def watch(file: BinaryIO, part: memoryview) -> None:
        writing.append(Path(file.name).parent.name)
        most.append(sum(thread.name.startswith("writes step-") for thread in threading.enumerate()))
        put(file, part)

    monkeypatch.setattr(files, "_put", watch)
    train(config(store, callbacks={"checkpoints": {**CHECKPOINTS, "every_steps": 2}}), str(tmp_path / "run"))
    assert max(most) == 1
    order = [name for index, name in enumerate(writing) if index == 0 or writing[index - 1] != name]
    steps = [int(name.split("-")[1].split(".")[0]) for name in order if name.startswith(".step")]
    assert steps == sorted(steps)
    logged = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    assert all(line["train/checkpoint_stall"] > 0.0 and line["train/checkpoint_write"] > 0.0 for line in logged)


CHECKPOINTS = {"kind": "checkpoints", "every_seconds": None, "every_steps": 5, "keep": 3}


class Disk:
    """Is full for the checkpoints of some steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
        put = files._put

        def fail(file: BinaryIO, part: memoryview) -> None:
            if any(f".step-{step}." in file.name for step in steps):
                raise OSError(28, "No space left on device")
            put(file, part)

        monkeypatch.setattr(files, "_put", fail)


def test_a_full_disk_ends_the_run_at_the_next_checkpoint(
    straight: tuple[TrainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and what was trained since is saved if there is room again by then."""
    run, expected = straight
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        Disk(patch, 10)
        with pytest.raises(InlayError, match=r"^cannot write '.*step-10': the disk is full; free some space") as caught:
            train(run, str(out))
    assert caught.value.exit_status == 1
    assert RunDir.open(out).steps() == [5, 11]  # 11 is where the next one was due: the cooldown begins
    assert not list((out / "checkpoints").glob(".*"))
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


def test_a_last_checkpoint_that_fails_fails_the_run(
    straight: tuple[TrainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = straight
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        Disk(patch, 20)
        with pytest.raises(InlayError, match="step-20': the disk is full"):
            train(run, str(out))
    assert RunDir.open(out).steps() == [10, 11, 15]
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


def test_another_error_of_the_thread_is_one_line_too(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: BinaryIO, part: memoryview) -> None:
        raise ValueError("not\nexpected")

    monkeypatch.setattr(files, "_put", fail)
    with pytest.raises(InlayError, match=r"cannot write '.*step-11': ValueError: not$"):
        train(config(store, callbacks={"checkpoints": {**CHECKPOINTS, "every_steps": None}}), str(tmp_path / "run"))


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_the_record(straight: tuple[TrainRun, Path]) -> None:
    run, path = straight
    folder = path / "checkpoints" / "step-20"
    record = checkpoint.read_record(folder, checkpoint.ALL)
    assert sorted(record["hashes"]) == [checkpoint.OPTIMIZER, checkpoint.WEIGHTS]
    expected = {"step": 20, "total_steps": 20, "tokens": 20 * 4 * 128, "world": 1, "format": 2}
    assert {key: record[key] for key in expected} == expected
    assert record["config"] == run.to_dict()
    assert record["torch"] == torch.__version__
    assert record["loader"]["store"]
    assert record["seconds"] > 0.0


def test_a_checkpoint_from_before_goes_on(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    """As they were written before there was a format number: the same files, a record without the new entries."""
    run, expected = straight
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run, out, At(8, stop_with(signal.SIGTERM))).run_to_end()
    folder = out / "checkpoints" / "step-8"
    record = checkpoint.read_record(folder, checkpoint.ALL)
    for key in ("format", "world", "callbacks", "kept_for"):
        record.pop(key, None)
    (folder / checkpoint.RECORD).write_text(checkpoint.seal(record))
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


class Counts(Callback):
    """A callback with a state of its own."""

    name = "counts"

    def __init__(self) -> None:
        self.seen = 0

    def step(self, trainer: Trainer) -> None:
        self.seen += 1

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_callbacks_get_their_state_back(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(straight[0], out, Counts(), At(8, stop_with(signal.SIGTERM))).run_to_end()
    trainer = Trainer(straight[0], RunDir.open(out))
    again = Counts()
    trainer.callbacks.insert(0, again)
    trainer.load()
    assert again.seen == 8
    trainer.run_to_end()
    assert again.seen == 20


def test_weights_that_are_not_the_models_are_one_line(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(straight[1], out)
    for folder in checkpoint.folders(out):
        tensors = {name: checkpoint.read_tensors(folder, name) for name in (checkpoint.WEIGHTS, checkpoint.OPTIMIZER)}
        tensors[checkpoint.WEIGHTS]["head.weight"] = tensors[checkpoint.WEIGHTS].pop("final_norm.weight")
        checkpoint.write(folder, tensors, checkpoint.read_record(folder))
    with pytest.raises(InlayError, match=r"2 weights in .*step-20 are not those of the model, the first: 'final_norm"):
        Trainer(straight[0], RunDir.open(out)).load()


# ---- which ones stay -------------------------------------------------------------------------------------------------


def saved(tmp_path: Path, records: dict[int, dict[str, Any]], damaged: tuple[int, ...], **options: Any) -> list[int]:
    """The steps that stay of checkpoints with these records."""
    run = RunDir(tmp_path)
    for step, record in records.items():
        checkpoint.write(run.checkpoint(step), {}, {"step": step, "model": {}, "vocab_size": 1, **record})
    clear(run, CheckpointsConfig(**options), damaged)
    return run.steps()


LOSS = "validation/l2r/loss"
SCORED: dict[int, dict[str, Any]] = {
    10: {"scores": {LOSS: 3.0}},
    20: {"scores": {LOSS: 1.0}},
    30: {"scores": {LOSS: 2.0, "x": 9}},
    40: {},
    50: {"kept_for": []},
}


@pytest.mark.parametrize(
    ("records", "damaged", "options", "expected"),
    [
        ({5: {}, 10: {}, 15: {}}, (), {"keep": 2}, [10, 15]),
        ({5: {}, 10: {}, 100: {}}, (100,), {"keep": 1}, [10]),
        ({5: {}, 10: {}, 12: {}, 15: {}}, (12,), {"keep": 2}, [10, 15]),
        ({5: {"kept_for": ["before the cooldown"]}, 10: {}, 15: {}}, (), {"keep": 1}, [5, 15]),
        (SCORED, (), {"keep": 1}, [50]),
        (SCORED, (), {"keep": 1, "best": LOSS}, [20, 50]),
        (SCORED, (20,), {"keep": 1, "best": LOSS}, [30, 50]),
        (SCORED, (), {"keep": 1, "best": LOSS, "best_is": "highest"}, [10, 50]),
        (SCORED, (), {"keep": 2, "best": "x"}, [30, 40, 50]),
        ({10: {"scores": {LOSS: 1.0}}, 20: {"scores": {LOSS: 1.0}}, 30: {}}, (), {"keep": 1, "best": LOSS}, [10, 30]),
    ],
)
def test_the_rule(
    tmp_path: Path,
    records: dict[int, dict[str, Any]],
    damaged: tuple[int, ...],
    options: dict[str, Any],
    expected: list[int],
) -> None:
    assert saved(tmp_path, records, damaged, **options) == expected


def test_a_damaged_record_keeps_nothing(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    record = {"step": 5, "model": {}, "vocab_size": 1, "kept_for": ["every 5 steps"], "scores": {LOSS: 0.1}}
    checkpoint.write(run.checkpoint(5), {}, record)
    file = run.checkpoint(5) / checkpoint.RECORD
    file.write_text(file.read_text().replace("0.1", "0.2"))
    assert saved(tmp_path, {10: {}, 15: {}}, (), keep=1, best=LOSS) == [15]


class Validates(Callback):
    """Logs a made-up validation loss by step, before the checkpoints of that step."""

    def __init__(self, losses: dict[int, float]) -> None:
        self.losses = losses

    def start(self, trainer: Trainer) -> None:
        if trainer.step == 0:
            trainer.log({LOSS: 0.5})  # of weights that nobody wants back

    def step(self, trainer: Trainer) -> None:
        if trainer.step in self.losses:
            trainer.log({LOSS: self.losses[trainer.step]})


def test_the_best_one_is_saved_when_it_is_found_and_stays(store: Path, tmp_path: Path) -> None:
    """Also over an interruption: the record of the best one says what was reached."""
    options = {**CHECKPOINTS, "every_steps": None, "keep": 1, "best": LOSS, "keep_before_cooldown": False}
    run = config(store, callbacks={"checkpoints": options, "validation": None})
    losses = {3: 4.0, 6: 3.0, 9: float("nan"), 12: 3.5, 15: 3.2, 18: 3.0}
    with pytest.raises(Interrupted):
        start(run, tmp_path / "run", Validates(losses), At(10, stop_with(signal.SIGTERM))).run_to_end()
    assert RunDir.open(tmp_path / "run").steps() == [6, 10]
    trainer = Trainer(run, RunDir.open(tmp_path / "run"))
    trainer.load()
    found = []

    def look(trainer: Trainer) -> None:
        trainer.saver.wait()
        found.extend(trainer.run.steps())

    trainer.callbacks[:0] = [Validates(losses), At(17, look)]
    trainer.run_to_end()
    assert found == [6, 10]  # 3.5 and 3.2 are no news
    assert RunDir.open(tmp_path / "run").steps() == [6, 20]
    assert checkpoint.read_record(tmp_path / "run" / "checkpoints" / "step-6")["scores"] == {LOSS: 3.0}


def test_every_nth_and_borders_of_the_plan_stay(store: Path, tmp_path: Path) -> None:
    options = {**CHECKPOINTS, "every_steps": None, "keep": 1, "keep_every": 8}
    run = config(store, callbacks={"checkpoints": options})
    data = run.to_dict()
    data["stages"] = [
        {"name": "first", "share": 0.7},
        {"name": "last", "share": 0.3, "sequence_length": 256, "rows": 2},
    ]
    path = train(validate(TrainRun, data), str(tmp_path / "run")).path
    kept = {step: checkpoint.read_record(path / "checkpoints" / f"step-{step}")["kept_for"] for step in (8, 11, 14, 16)}
    assert kept == {
        8: ["every 8 steps"],
        11: ["before the cooldown"],
        14: ["end of stage first"],
        16: ["every 8 steps"],
    }
    assert RunDir.open(path).steps() == [8, 11, 14, 16, 20]


def test_a_schedule_without_a_plateau_has_no_such_checkpoint(store: Path, tmp_path: Path) -> None:
    options = {**CHECKPOINTS, "every_steps": None, "keep": 1}
    run = config(store, schedule={"kind": "cosine", "warmup_steps": 4}, callbacks={"checkpoints": options})
    assert RunDir.open(train(run, str(tmp_path / "run")).path).steps() == [20]


# ---- one process at a time -------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from inlay.config.lock import Lock
lock = Lock.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_refused(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    """With the name of that process, before anything is touched; killed, it leaves the run to others at once."""
    run, expected = straight
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        start(run, out, At(7, stop_with(signal.SIGTERM))).run_to_end()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        unfinished = out / "checkpoints" / f".step-9.{checkpoint.own_name().split('.')[0]}.{other.pid}.tmp"
        unfinished.mkdir()
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(
            BadInput, match=rf"^process {other.pid} on \S+ is at work on '{out}': wait for it, or end it"
        ):
            resume(str(out))
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
        other.kill()
    resume(str(out))
    assert not unfinished.exists()
    assert_same(weights(out, 20), weights(expected, 20))


def test_a_file_system_without_locks_is_a_notice(
    straight: tuple[TrainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def none(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    shutil.copytree(straight[1], tmp_path / "run")
    trainer = Trainer(straight[0], RunDir.open(tmp_path / "run"))
    elsewhere = tmp_path / "run" / "checkpoints" / ".step-9.elsewhere.1.tmp"
    elsewhere.mkdir()
    trainer.load()
    assert any("is not locked, its file system has no locks (no locks available)" in line for line in trainer.notices)
    assert elsewhere.exists()  # whoever writes it may be alive


def test_shares_are_even_and_cover_all() -> None:
    """What all ranks have is copied and written by one of them each."""
    draw = torch.Generator().manual_seed(2)
    sizes = torch.randint(1, 500, (60,), generator=draw).tolist()
    tensors = {f"{number}|momentum": torch.zeros(size) for number, size in enumerate(sizes)}
    for world in (1, 2, 7):
        shares = [share(tensors, Parallel(torch.device("cpu"), rank, world)) for rank in range(world)]
        assert sorted(name for names in shares for name in names) == sorted(tensors)
        loads = [sum(tensors[name].nbytes for name in names) for names in shares]
        assert max(loads) - min(loads) <= 4 * max(sizes)


def test_the_lock_is_released_at_the_end(straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        (trainer := start(straight[0], out, At(7, stop_with(signal.SIGTERM)))).run_to_end()
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, str(out)], input="", capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\n", done.stderr
    assert trainer.step == 7  # it is still there, and nothing but its end has released the run
