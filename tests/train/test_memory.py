"""What cannot fit is refused before anything is allocated; what fits is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.train.tiny_training import config

from inlay.config import BadInput, validate
from inlay.data.loader import usable_workers
from inlay.train import memory
from inlay.train.config import TrainRun
from inlay.train.run import train

MEASURE = """
import re, sys
from pathlib import Path
from tests.train.tiny_training import config
from inlay.train.memory import least_bytes
from inlay.train.run import train
def peak():  # of this program alone: ru_maxrss has the parent's, from before exec
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
train_options, model = {"steps": 2, "rows": 16, "sequence_length": 256}, {"width": 256, "layers": 8}
run = config(Path(sys.argv[1]), train=train_options, model=model)
train(run, sys.argv[2])
print(least_bytes(run, 400), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not say a process's peak")
def test_the_least_is_less_than_what_a_run_takes(store: Path, tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    found = os.pathsep.join([root, os.environ["PYTHONPATH"]])  # the tests themselves, whatever the folder
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(store), str(tmp_path / "run")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": found},
    )  # fmt: skip
    least, taken = map(int, done.stdout.split()[-2:])
    assert 0.05 * taken < least < taken


def test_a_run_that_no_memory_holds_is_refused_before_it_has_a_folder(store: Path, tmp_path: Path) -> None:
    for changes in (
        {"train": {"sequence_length": 1 << 24, "rows": 1 << 10}},
        {"model": {"width": 1 << 17, "layers": 2000}},
    ):
        with pytest.raises(BadInput, match=r"needs at least [\d,.]+ GiB a process, and this machine has"):
            train(config(store, **changes), str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_each_part_counts(store: Path) -> None:
    run = config(store)
    least = memory.least_bytes(run, 400)
    memory.check_memory(run, 400, here=least)
    with pytest.raises(BadInput, match=r"fewer train\.rows"):
        memory.check_memory(run, 400, here=least - 1)
    stages = [
        {"name": "short", "share": 0.5},
        {"name": "long", "share": 0.5, "sequence_length": 4 * run.train.sequence_length},
    ]
    staged = validate(TrainRun, {**run.to_dict(), "stages": stages})
    assert memory.least_bytes(staged, 400) > least
    assert memory.least_bytes(run, 800) > least
    huge = run.model.model_copy(update={"layers": 4096, "width": 1 << 20})
    with pytest.raises(BadInput, match="more than any machine holds"):
        memory.check_size(huge)


def test_the_machine_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    assert memory.machine_bytes(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal:  1000 kB\nMemFree: 1 kB\nSwapTotal: 24 kB\n")
    assert memory.machine_bytes(tmp_path) == 1024 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert memory.machine_bytes(tmp_path) == 1024 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("5000\n")
    assert memory.machine_bytes(tmp_path) == 5000


def test_workers_are_as_many_as_there_are_processors_for() -> None:
    assert usable_workers(0) == 0
    assert usable_workers(1) == 1
    assert 2 <= usable_workers(1000) < 1000
