"""The environment for CPU work: set once, never against the user, and only for our own entry points."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inlay.cli.runtime import (
    MARK,
    OPT_OUT,
    SPIN_COUNT,
    TUNABLES,
    available_cores,
    is_entry_point,
    launched,
    local_processes,
    merge_tunables,
    runtime_changes,
)

PROGRAM = """
import json, os, sys
print("start", os.getpid(), file=sys.stderr, flush=True)
from inlay.cli.runtime import ensure_runtime
ensure_runtime()
names = ("GLIBC_TUNABLES", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "INLAY_RUNTIME")
print(json.dumps([os.getpid(), sys.argv[1:], sys.stdin.read(), {name: os.environ.get(name) for name in names}]))
"""
OURS = ("GLIBC_TUNABLES", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", OPT_OUT, MARK)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process replaces itself on Linux only")


def start(path: Path, **extra: str) -> tuple[list[int], list[object]]:
    """Runs PROGRAM at `path`; the process ids that it started with, and what it printed."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | extra
    done = subprocess.run(
        [sys.executable, str(path), "train", "a b=c"],
        input="typed", capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return [int(line.split()[1]) for line in done.stderr.splitlines()], json.loads(done.stdout)


@linux
@pytest.mark.parametrize("name", ["inlay", "inlay/__main__.py"])
def test_replaces_itself_once(tmp_path: Path, name: str) -> None:
    starts, (process, words, typed, variables) = start(tmp_path / "bin" / name if "/" not in name else tmp_path / name)
    assert len(starts) == 2
    assert starts == [process, process]
    assert (words, typed) == (["train", "a b=c"], "typed")
    assert isinstance(variables, dict)
    assert variables["INLAY_RUNTIME"] == "1"
    assert variables["OMP_NUM_THREADS"] == str(available_cores())
    assert variables["GOMP_SPINCOUNT"] == SPIN_COUNT
    if os.confstr("CS_GNU_LIBC_VERSION"):
        assert variables["GLIBC_TUNABLES"] == merge_tunables("")


@linux
def test_leaves_others_alone(tmp_path: Path) -> None:
    assert len(start(tmp_path / "another.py")[0]) == 1
    assert len(start(tmp_path / "inlay", **{OPT_OUT: "1"})[0]) == 1
    assert len(start(tmp_path / "inlay", **{MARK: "1"})[0]) == 1
    assert len(start(tmp_path / "inlay", **{OPT_OUT: "0"})[0]) == 2
    everything = {
        "GLIBC_TUNABLES": merge_tunables(""), "GOMP_SPINCOUNT": "5", "OMP_NUM_THREADS": "7",
    }  # fmt: skip
    starts, (_, _, _, variables) = start(tmp_path / "inlay", **everything)
    assert len(starts) == 1
    assert variables == {**everything, "INLAY_RUNTIME": None}


def test_changes_respect_what_is_set() -> None:
    every = runtime_changes({}, glibc=True, cores=3)
    assert every == {
        "GLIBC_TUNABLES": ":".join(f"{name}={value}" for name, value in TUNABLES.items()),
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "OMP_NUM_THREADS": "3",
    }
    assert "GLIBC_TUNABLES" not in runtime_changes({}, glibc=False, cores=3)
    assert "GOMP_SPINCOUNT" not in runtime_changes({"OMP_WAIT_POLICY": "active"}, glibc=True, cores=3)
    assert runtime_changes({"OMP_NUM_THREADS": "1"} | every, glibc=True, cores=3) == {}
    merged = merge_tunables("glibc.malloc.top_pad=1:glibc.cpu.x=2").split(":")
    assert merged[:2] == ["glibc.malloc.top_pad=1", "glibc.cpu.x=2"]
    assert len(merged) == 1 + len(TUNABLES)


def test_entry_points() -> None:
    assert is_entry_point("/x/.venv/bin/inlay")
    assert is_entry_point("/x/src/inlay/__main__.py")
    assert not is_entry_point("/x/other/__main__.py")
    assert not is_entry_point("/x/bin/pytest")
    assert not is_entry_point("-c")


def write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")


def test_cores_count_siblings_once_and_heed_the_quota(tmp_path: Path) -> None:
    for number in range(8):
        write(
            tmp_path, f"devices/system/cpu/cpu{number}/topology/thread_siblings_list", f"{number % 4},{number % 4 + 4}"
        )
    assert available_cores(tmp_path, set(range(8))) == 4
    assert available_cores(tmp_path, {0, 4}) == 1
    assert available_cores(tmp_path, {0, 1, 5}) == 2
    write(tmp_path, "fs/cgroup/cpu.max", "max 100000")
    assert available_cores(tmp_path, set(range(8))) == 4
    write(tmp_path, "fs/cgroup/cpu.max", "150000 100000")
    assert available_cores(tmp_path, set(range(8))) == 2
    write(tmp_path, "fs/cgroup/cpu.max", "10000 100000")
    assert available_cores(tmp_path, set(range(8))) == 1
    (tmp_path / "fs/cgroup/cpu.max").unlink()
    write(tmp_path, "fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path, "fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert available_cores(tmp_path, set(range(8))) == 4
    write(tmp_path, "fs/cgroup/cpu/cpu.cfs_quota_us", "300000")
    assert available_cores(tmp_path, set(range(8))) == 3
    assert available_cores(tmp_path / "nothing", {0, 1}) == 2


def test_processes_of_torchrun_share_the_cores() -> None:
    """It sets one thread where the user has set nothing; another number is the user's."""
    several = {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    assert runtime_changes(several, glibc=False, cores=4)["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in runtime_changes(several | {"OMP_NUM_THREADS": "3"}, glibc=False, cores=4)
    assert "OMP_NUM_THREADS" not in runtime_changes({"OMP_NUM_THREADS": "1"}, glibc=False, cores=4)
    assert "OMP_NUM_THREADS" not in runtime_changes(several, glibc=False, cores=1)
    assert (local_processes(several), local_processes({}), local_processes({"LOCAL_WORLD_SIZE": "x"})) == (2, 1, 1)
    assert launched({"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8)
    assert launched({}) == launched({"RANK": "x"}) == (0, 1)
