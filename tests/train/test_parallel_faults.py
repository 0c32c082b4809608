"""Runs under torchrun that somebody disturbs: one line says what happened, nothing hangs, and the run goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.train.parallel_cases import CHECKPOINTS, case
from tests.train.ranks import free_port
from tests.train.tiny_training import assert_same
from torch import Tensor

from inlay.config.run_dir import RunDir
from inlay.config.yaml_file import dump_yaml
from inlay.model import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MUON: dict[str, Any] = {"kind": "muon", "momentum_warmup": 10}


def command(world: int, *words: str) -> list[str]:
    """What a user types, with a port of its own."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world)),
        *("--master-port", str(free_port()), "-m", "inlay", "train", *words),
    ]


def launch(world: int, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(world, *words), capture_output=True, text=True, check=False, timeout=300)


def ours(text: str) -> list[str]:
    """The lines of `inlay`, without torchrun's own."""
    return [line for line in text.splitlines() if line.startswith("inlay: ")]


def config_file(store: Path, folder: Path, steps: int = 12, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    file.write_text(dump_yaml(case(store, steps=steps, callbacks=CHECKPOINTS, optim=MUON, **changes).to_dict()))
    return file


def children(process: int) -> list[int]:
    """The processes that torchrun has started, in order of rank."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().split(b"\0")
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(status[1]) == process and b"train" in words:
                rank = next((part for part in variables if part.startswith(b"RANK=")), b"RANK=9")
                found.append((int(rank.removeprefix(b"RANK=")), int(entry.name)))
    return [number for _, number in sorted(found)]


def wait_for(run: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Returns when the run has a checkpoint of `step` or later."""
    until = time.monotonic() + 200
    while not any(found >= step for found in RunDir(run).steps()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def everything(run: Path, step: int) -> dict[str, Tensor]:
    """All tensors of a checkpoint, each rank's part of the optimizer's state included."""
    folder = RunDir(run).checkpoint(step)
    files = checkpoint.read_record(folder, checkpoint.ALL)["hashes"]
    return {
        f"{file}:{name}": tensor
        for file in files
        if file.endswith(".safetensors")
        for name, tensor in checkpoint.read_tensors(folder, file).items()
    }


def test_a_directory_that_is_taken_is_one_line_and_nobody_waits(store: Path, tmp_path: Path) -> None:
    file = config_file(store, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    done = launch(2, "--config", str(file), f"out={tmp_path / 'run'}")
    assert done.returncode == 1  # torchrun's, whatever its processes say
    assert done.stdout == ""
    (line,) = ours(done.stderr)
    assert "is not empty" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["note.txt"]


def test_rows_that_cannot_be_shared_are_one_line(store: Path, tmp_path: Path) -> None:
    file = config_file(store, tmp_path, train={"rows": 3})
    done = launch(2, "--config", str(file), f"out={tmp_path / 'run'}")
    (line,) = ours(done.stderr)
    assert "train.rows 3 cannot be shared by 2 processes x 1 micro-batches = 2" in line


def test_an_unknown_key_is_one_line(store: Path, tmp_path: Path) -> None:
    done = launch(2, "--config", str(config_file(store, tmp_path)), "train.stepz=3")
    (line,) = ours(done.stderr)
    assert "stepz" in line


@linux
@pytest.mark.parametrize(("strategy", "victim"), [("ddp", 1), ("fsdp", 0)])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(
    strategy: str, victim: int, store: Path, tmp_path: Path
) -> None:
    steps = 60
    file = config_file(store, tmp_path, steps=steps, parallel={"strategy": strategy, "timeout_seconds": 60.0})
    straight = launch(2, "--config", str(file), f"out={tmp_path / 'straight'}")
    assert (straight.returncode, straight.stdout) == (0, f"{tmp_path / 'straight'}\n"), straight.stderr
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(2, "--config", str(file), f"out={run}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(run, 6, process)
    began = time.monotonic()
    os.kill(children(process.pid)[victim], signal.SIGKILL)
    said, errors = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert (process.returncode, said) == (1, "")
    (line,) = ours(errors)
    assert re.search(
        r"another process of this run has ended, or does not answer, at step \d+; go on with: inlay train resume=", line
    )
    for folder in checkpoint.folders(run):
        assert checkpoint.read_record(folder)
    for world in (1, 2):
        copy = tmp_path / f"on{world}"
        shutil.copytree(run, copy)
        (copy / ".lock").unlink(missing_ok=True)
        done = launch(world, f"resume={copy}", *(["parallel.strategy=auto"] if world == 1 else []))
        assert done.returncode == 0, done.stderr
        assert RunDir(copy).steps()[-1] == steps
    assert_same(everything(tmp_path / "on2", steps), everything(tmp_path / "straight", steps))


@linux
def test_a_scheduler_s_signal_reaches_only_the_trainers(store: Path, tmp_path: Path) -> None:
    """What docs/slurm/train.sbatch relies on: torchrun ignores SIGUSR1, and each process that trains takes it."""
    file = config_file(store, tmp_path, steps=5000)
    run = tmp_path / "run"
    process = subprocess.Popen(
        ["bash", "-c", 'trap "" USR1; exec "$@"', "bash", *command(2, "--config", str(file), f"out={run}")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(run, 3, process)
    for number in (process.pid, *children(process.pid)):
        os.kill(number, signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    (line,) = ours(errors)
    found = re.search(r"SIGUSR1 at step (\d+); go on with: inlay train resume=", line)
    assert found is not None
    assert RunDir(run).steps()[-1] == int(found[1])
