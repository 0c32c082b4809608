"""Stands for `inlay train` in tests of sweeps: a process without torch whose loss is a known function of its rate.

The valley's bottom is at a rate of 0.02; rates above 0.1 diverge. A file `halt` beside the runs makes it wait in the
middle of one, as a run that is under way.
"""

import math
import sys
from typing import Any

import pytest

from inlay.config import validate
from inlay.train.sweep import Sweep, SweepConfig

TINY = (
    "model=pico",
    "model.layers=1",
    "train.steps=6",
    "train.sequence_length=64",
    "train.rows=2",
    "train.precision=float32",
    "train.compile=false",
    "schedule.warmup_steps=2",
    "callbacks.samples=null",
)
SMALL = (*TINY, "data.path=none")
TRAINER = """
import json, math, os, pathlib, re, signal, sys, time
run = pathlib.Path(sys.argv[1].removeprefix("resume="))
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
with (run.parent / "order.txt").open("a") as file:
    file.write(f"{run.name} {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
text = (run / "config.yaml").read_text()
rate = float(re.search(r"^optim:\\n(?:  .*\\n)*?  lr: (\\S+)", text, re.M)[1])
seed = int(re.search(r"^seed: (\\d+)", text, re.M)[1])
loss = 3.0 + 0.1 * math.log2(rate / 0.02) ** 2 + 0.01 * seed
if rate > 0.1:
    sys.exit("inlay: the gradient is not finite at step 3: start a new run with a smaller learning rate")
with (run / "metrics.jsonl").open("w") as file:
    for step in (0, 3, 6):
        row = {"step": step, "tokens": step * 128, "validation/l2r/loss": loss + 1.0 - step / 6}
        file.write(json.dumps(row) + "\\n")
        file.flush()
        if step == 3:
            (run / "halfway").touch()
            while (run.parent / "halt").exists() and not asked:
                time.sleep(0.02)
            if asked:
                sys.exit(130)
folder = run / "checkpoints" / "step-6"
folder.mkdir(parents=True)
record = {"step": 6, "total_steps": 6, "complete": True, "model": {}, "vocab_size": 400, "hashes": {}}
(folder / "checkpoint.json").write_text(json.dumps(record))
"""
FAKE = [sys.executable, "-S", "-c", TRAINER]


def expected_loss(rate: float, seed: int = 0) -> float:
    return 3.0 + 0.1 * math.log2(rate / 0.02) ** 2 + 0.01 * seed


def search_config(search: dict[str, Any] | None = None, **options: Any) -> SweepConfig:
    return validate(SweepConfig, {"name": "test", "base": list(SMALL), "search": search, **options})


def trained(sweep: Sweep) -> list[str]:
    """The runs that were started, in order."""
    return [line.split()[0] for line in (sweep.path / "order.txt").read_text().splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at runs more often than one has to."""
    from inlay.train.launchers.local import LocalLauncher

    monkeypatch.setattr(LocalLauncher, "poll_seconds", 0.02)
