"""SIGKILL at random moments: the run goes on from what is on the disk, to the same weights bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.tiny_training import config

from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.train.config import TrainRun
from inlay.train.run import train

# One process imports torch once; each attempt is a fork of it that is killed from outside after a random time.
ATTEMPTS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from inlay.config import InlayError
from inlay.train.run import resume

path, kills, longest = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
draw = random.Random(7)
killed = 0
while True:
    child = os.fork()
    if child == 0:
        try:
            resume(path)
        except InlayError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    if killed < kills:
        time.sleep(draw.uniform(0.02, longest))
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        print("ended", status, "after", killed)
        break
    killed += 1
"""


def kill_often(run: TrainRun, folder: Path, kills: int, longest: float) -> int:
    """Trains `run` into `folder` under SIGKILLs; how many it survived."""
    RunDir.create(folder, run)
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(folder), str(kills), str(longest)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[-1].split()
    assert words[:2] == ["ended", "0"], done.stdout + done.stderr
    return int(words[-1])


def check(run: TrainRun, tmp_path: Path, kills: int, longest: float) -> None:
    torch.set_num_threads(1)
    assert run.train.steps is not None
    name = f"step-{run.train.steps}"
    straight = train(run, str(tmp_path / "straight")).path
    assert kill_often(run, tmp_path / "killed", kills, longest) >= kills // 2
    for file in (checkpoint.WEIGHTS, checkpoint.OPTIMIZER):
        found, expected = (
            checkpoint.read_tensors(path / "checkpoints" / name, file) for path in (tmp_path / "killed", straight)
        )
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    steps = [
        [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (tmp_path / "killed", straight)
    ]
    assert steps[0] == steps[1]
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


def test_killed_at_random_moments(store: Path, tmp_path: Path) -> None:
    callbacks = {"checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 3, "keep": 2}}
    check(config(store, train={"steps": 60}, callbacks=callbacks), tmp_path, kills=6, longest=0.6)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("optim", [{"kind": "muon"}, {"kind": "adamw"}])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_killed_twenty_times(store: Path, tmp_path: Path, optim: dict[str, object], precision: str) -> None:
    callbacks = {"checkpoints": {"kind": "checkpoints", "every_seconds": 0.05, "every_steps": None, "keep": 1}}
    run = config(store, optim=optim, train={"steps": 200, "precision": precision}, callbacks=callbacks)
    check(run, tmp_path, kills=20, longest=0.8)
