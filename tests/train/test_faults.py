"""Whatever is done to a run and its checkpoints, it goes on from what is whole to the weights of an undisturbed one."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from tests.train.tiny_training import assert_same, config, lines, weights

from inlay.config import InlayError, files
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.train.config import TrainRun
from inlay.train.run import resume, train
from inlay.train.trainer import Trainer

FILES = (checkpoint.RECORD, checkpoint.WEIGHTS, checkpoint.OPTIMIZER)
CHECKPOINTS = {"kind": "checkpoints", "every_seconds": None, "every_steps": 4, "keep": 2, "keep_before_cooldown": False}


def in_a_fork(work: Callable[[], Any]) -> int:
    """The exit status of a copy of this process that does `work`; negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            # What catches output for the tests writes to files too, and limits are for all of them.
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            torch.set_num_threads(1)
            work()
            status = 0
        except InlayError as error:
            status = error.exit_status
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_whole(run: Path) -> None:
    """Every folder under a final name proves itself, to the last byte."""
    for folder in checkpoint.folders(run):
        checkpoint.read_record(folder, checkpoint.ALL)


def check_end(run: Path, expected: Path, step: int = 20) -> None:
    """The run has ended like the undisturbed one: weights, optimizer state, each logged step once; nothing is left."""
    assert_same(weights(run, step), weights(expected, step))
    assert [line["step"] for line in lines(run)] == [line["step"] for line in lines(expected)]
    assert not list((run / "checkpoints").glob(".*"))
    check_whole(run)


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRun, Path]:
    torch.set_num_threads(1)
    run = config(store, callbacks={"checkpoints": CHECKPOINTS})
    return run, train(run, str(tmp_path_factory.mktemp("undisturbed") / "run")).path


# ---- killed while a checkpoint is being written ----------------------------------------------------------------------

MOMENTS = ("_put", "fsync", "rename", "rmtree")
"""Each byte range, each sync, each rename and each deletion is a moment at which a process may be killed."""


def kill_at(count: int) -> None:
    """Kills this process at the moment number `count`, in whichever thread it comes."""
    left = [count]

    def then(function: Callable[..., Any], half: bool = False) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if half:
                    file, part = arguments
                    file.write(part[: len(part) // 2])
                    file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return watched

    files._put = then(files._put, half=True)
    os.fsync = then(os.fsync)  # type: ignore[assignment]
    Path.rename = then(Path.rename)  # type: ignore[method-assign]
    shutil.rmtree = then(shutil.rmtree)  # type: ignore[assignment]


def kill_while_saving(run: TrainRun, expected: Path, out: Path, counts: Iterator[int], kills: int) -> None:
    RunDir.create(out, run)
    killed, highest = 0, 0
    while True:
        count = next(counts) if killed < kills else 10**9

        def work(count: int = count) -> None:
            kill_at(count)
            resume(str(out))

        status = in_a_fork(work)
        check_whole(out)
        found = [*RunDir.open(out).steps(), 0]
        assert max(found) >= highest  # nothing that was saved is lost
        highest = max(found)
        if status != -signal.SIGKILL:
            assert status == 0
            break
        killed += 1
    assert killed >= kills // 2
    check_end(out, expected)


def test_killed_inside_a_checkpoint(undisturbed: tuple[TrainRun, Path], tmp_path: Path) -> None:
    draw = random.Random(5)
    counts = iter(lambda: draw.randint(2, 45), None)
    kill_while_saving(*undisturbed, tmp_path / "run", counts, kills=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_moment_of_a_checkpoint(undisturbed: tuple[TrainRun, Path], tmp_path: Path) -> None:
    """One after the other: all that happens in the first two checkpoints of the run and in the removal of an old one.
    A run that is killed early begins again there, so that later moments come with those that follow."""
    run, expected = undisturbed
    for count in range(1, 46):
        kill_while_saving(run, expected, tmp_path / str(count), iter([count]), kills=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("optim", [{"kind": "muon"}, {"kind": "adamw"}])
def test_killed_at_twenty_random_steps(store: Path, tmp_path: Path, optim: dict[str, Any]) -> None:
    """SIGKILL behind twenty random steps, each in the real command in a process of its own, a checkpoint under way
    more often than not."""
    run = config(
        store,
        optim=optim,
        train={"steps": 60},
        callbacks={"checkpoints": {**CHECKPOINTS, "every_steps": 2, "keep": 1}, "validation": None},
    )
    straight = train(run, str(tmp_path / "straight")).path
    out = RunDir.create(tmp_path / "run", run).path
    draw = random.Random(11)
    survived = 0
    for _ in range(20):
        newest = max(RunDir.open(out).steps(), default=0)
        at = newest + draw.randint(1, 6)
        code = KILLED.format(at=at)
        done = subprocess.run(
            [sys.executable, "-c", code, f"resume={out}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        survived += 1
        check_whole(out)
        assert max(RunDir.open(out).steps(), default=0) >= newest
    else:
        resume(str(out))
    assert survived >= 15
    check_end(out, straight, 60)


KILLED = """
import os, signal, sys
from inlay.train.callbacks.checkpoints import Checkpoints
step = Checkpoints.step
def then_die(self, trainer):
    step(self, trainer)
    if trainer.step == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.step = then_die
from inlay.cli.main import main
sys.argv = ["inlay", "train", *sys.argv[1:]]
sys.exit(main())
"""


# ---- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_disk_that_fills_up_inside_a_checkpoint(
    undisturbed: tuple[TrainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    """At the first byte, inside, and at the last byte of each of its files."""
    _, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    shutil.rmtree(out / "checkpoints" / "step-20")
    put = files._put

    def fill(file: BinaryIO, part: memoryview) -> None:
        if Path(file.name).name == name:
            # The record is one part; its size differs by the digits of the seconds in it.
            whole = (expected / "checkpoints" / "step-16" / name).stat().st_size
            size = len(part) if name == checkpoint.RECORD else whole
            room = max(0, int(share * (size - 1)) - file.tell())
            if room < len(part):
                file.write(part[:room])
                raise OSError(errno.ENOSPC, "No space left on device")
        put(file, part)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_put", fill)
        with pytest.raises(InlayError, match=r"^cannot write '.*step-20': the disk is full; free some space") as caught:
            resume(str(out))
    assert caught.value.exit_status == 1
    assert RunDir.open(out).steps() == [16]
    check_whole(out)
    assert not list((out / "checkpoints").glob(".*"))
    resume(str(out))
    check_end(out, expected)


@pytest.mark.parametrize("name", FILES)
def test_a_device_that_is_full(
    undisturbed: tuple[TrainRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The kernel's own error, from a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    begin = checkpoint.begin

    def on_it(temporary: Path) -> None:
        begin(temporary)
        (temporary / name).symlink_to("/dev/full")

    _, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    shutil.rmtree(out / "checkpoints" / "step-20")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "begin", on_it)
        with pytest.raises(InlayError, match="step-20': the disk is full"):
            resume(str(out))
    assert RunDir.open(out).steps() == [16]
    resume(str(out))
    check_end(out, expected)


@pytest.mark.parametrize("limit", [0, 3000, 40_000])
def test_a_process_that_may_write_no_more(undisturbed: tuple[TrainRun, Path], tmp_path: Path, limit: int) -> None:
    """A limit of the kernel on the size of files, which only the larger ones reach."""
    _, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    shutil.rmtree(out / "checkpoints" / "step-20")
    sizes = {path.name: path.stat().st_size for path in (out / "checkpoints" / "step-16").iterdir()}
    assert max(sizes.values()) > 40_000

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        (out / "metrics.jsonl").unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resume(str(out))

    assert in_a_fork(limited) == 1
    assert RunDir.open(out).steps() == [16]
    shutil.copyfile(expected / "metrics.jsonl", out / "metrics.jsonl")
    resume(str(out))
    check_end(out, expected)


# ---- damaged checkpoints ---------------------------------------------------------------------------------------------


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))


def cut(file: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])


def lose(file: Path, draw: random.Random) -> None:
    file.unlink()


def lengthen(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


DAMAGES = (flip, cut, lose, lengthen)


def damaged(expected: Path, out: Path, damage: Callable[..., None], name: str, draw: random.Random) -> Trainer:
    """A trainer of the run without its last checkpoint, the one before damaged."""
    if not out.exists():
        shutil.copytree(expected, out)
    folder = out / "checkpoints" / "step-20"
    for file in folder.iterdir():
        shutil.copyfile(expected / "checkpoints" / "step-20" / file.name, file)
    shutil.copyfile(expected / "checkpoints" / "step-20" / name, folder / name)
    damage(folder / name, draw)
    return Trainer(config_of(out), RunDir.open(out))


def config_of(run: Path) -> TrainRun:
    from inlay.config import validate

    return validate(TrainRun, RunDir.open(run).load_config())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    undisturbed: tuple[TrainRun, Path], tmp_path: Path, damage: Callable[..., None], name: str
) -> None:
    """A few random places each; the record is JSON, where a flipped bit of the layout says the same as before."""
    _, expected = undisturbed
    draw = random.Random(f"{name}{damage.__name__}")
    out = tmp_path / "run"
    for _ in range(4 if damage in (flip, cut) else 1):
        trainer = damaged(expected, out, damage, name, draw)
        harmless = name == checkpoint.RECORD and same_record(out, expected)
        if harmless:
            continue
        trainer.load()
        assert trainer.step == 16
        line = next(line for line in trainer.notices if "skipped" in line)
        assert "step-20" in line
        assert name in line
        assert line.endswith("taking step-16")
        assert "\n" not in line
    if not harmless:
        resume(str(out))
    check_end(out, expected)


def same_record(out: Path, expected: Path) -> bool:
    """Whether what the records say is the same, the name of the seal apart."""
    file = Path("checkpoints") / "step-20" / checkpoint.RECORD
    try:
        found, wanted = (json.loads((run / file).read_text()) for run in (out, expected))
    except (OSError, ValueError):
        return False
    wanted.pop(checkpoint.SEAL)
    return {key: found.get(key) for key in wanted} == wanted


@pytest.mark.parametrize(("key", "value"), [("step", 4), ("tokens", 0), ("total_steps", 25), ("hashes", {})])
def test_an_edited_record_is_seen(undisturbed: tuple[TrainRun, Path], tmp_path: Path, key: str, value: Any) -> None:
    run, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    file = out / "checkpoints" / "step-20" / checkpoint.RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    trainer = Trainer(run, RunDir.open(out))
    trainer.load()
    assert trainer.step == 16
    assert any("skipped" in line and checkpoint.RECORD in line for line in trainer.notices)


def test_nothing_good_is_one_line(undisturbed: tuple[TrainRun, Path], tmp_path: Path) -> None:
    run, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    draw = random.Random(1)
    for folder in checkpoint.folders(out):
        flip(folder / checkpoint.WEIGHTS, draw)
    with pytest.raises(InlayError, match=r"^none of the 2 checkpoints in .* can be read; the last: weights") as caught:
        Trainer(run, RunDir.open(out)).load()
    assert "\n" not in str(caught.value)


def test_an_empty_folder_of_a_checkpoint_is_passed_over(undisturbed: tuple[TrainRun, Path], tmp_path: Path) -> None:
    _, expected = undisturbed
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    shutil.rmtree(out / "checkpoints" / "step-20")
    (out / "checkpoints" / "step-18").mkdir()
    resume(str(out))
    check_end(out, expected)
    assert RunDir.open(out).steps() == [16, 20]  # what is damaged counts for nothing when old ones are removed
