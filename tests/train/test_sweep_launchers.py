"""Where trials run: several processes at once, jobs that outlive their sweep, and what a kill leaves."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.train.fake_runs import FAKE, SMALL, TRAINER, quick, search_config, trained  # noqa: F401 (a fixture)

from inlay.config import BadInput, validate
from inlay.train.launcher import on_devices
from inlay.train.launchers.local import LocalLauncher, environments
from inlay.train.launchers.slurm import SlurmLauncher
from inlay.train.sweep import Sweep, SweepConfig
from inlay.train.sweep_run import train_all

GRID = {"kind": "grid", "axes": {"optim.lr": [0.01, 0.02, 0.04, 0.08]}}
OPTUNA = {"kind": "optuna", "trials": 6, "space": {"optim.lr": {"low": 0.005, "high": 0.2, "log": True}}}
DRIVER = """
import sys
from inlay.train.launchers.local import LocalLauncher
from inlay.train.sweep import Sweep
from inlay.train.sweep_run import train_all
LocalLauncher.poll_seconds = 0.02
train_all(Sweep.open(sys.argv[1]), [sys.executable, "-S", "-c", sys.argv[2]])
"""


def wait_until(there: Callable[[], bool], seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if there():
            return
        time.sleep(0.05)
    pytest.fail("it did not come")


def test_several_runs_at_once(tmp_path: Path) -> None:
    sweep = Sweep.create(tmp_path / "sweep", search_config(GRID, launcher={"kind": "local", "processes": 2, "gpus": 1}))
    (sweep.path / "halt").touch()

    def say(line: str) -> None:
        pytest.fail(f"a run has ended while all wait: {line}")

    class Halted(Exception):
        pass

    polled = 0

    def look(self: LocalLauncher) -> float:
        nonlocal polled
        polled += 1
        halfway = sorted(path.parent.name for path in sweep.path.glob("*/halfway"))
        if len(halfway) == 2:
            assert halfway == ["lr-0.01-seed0", "lr-0.02-seed0"]
            raise Halted
        return 0.02

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalLauncher, "poll_seconds", property(look))
        with pytest.raises(Halted):
            train_all(sweep, FAKE, say=say)
    # Both were asked to save themselves, and waited for: nothing of them is left.
    (sweep.path / "halt").unlink()
    assert train_all(Sweep.open(sweep.path), FAKE) == {}
    assert sorted(trained(sweep)) == sorted(["lr-0.01-seed0", "lr-0.02-seed0"] * 2 + ["lr-0.04-seed0", "lr-0.08-seed0"])


def test_cores_and_gpus_are_divided() -> None:
    def of(visible: list[str], environment: dict[str, str], **options: Any) -> list[dict[str, str]]:
        return environments(validate(LocalLauncher, {"kind": "local", **options}), environment, visible)

    assert of([], {"OMP_NUM_THREADS": "8"}) == [{"OMP_NUM_THREADS": "8"}]
    assert of([], {"OMP_NUM_THREADS": "8"}, processes=3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert of([], {"OMP_NUM_THREADS": "2"}, processes=4) == [{"OMP_NUM_THREADS": "1"}] * 4
    two = of(["4", "5", "6", "7"], {"OMP_NUM_THREADS": "8"}, processes=2, gpus=2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in two] == ["4,5", "6,7"]
    assert of(["0", "1"], {})[0]["CUDA_VISIBLE_DEVICES"] == "0", "one run on one GPU sees one"
    with pytest.raises(BadInput, match="this machine shows 2: take fewer processes"):
        of(["0", "1"], {}, processes=3)
    command = (sys.executable, "-P", "-m", "inlay", "train")
    assert on_devices(command, 1) == command
    assert on_devices(command, 4)[1:] == (
        "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "inlay", "train",
    )  # fmt: skip


class Stopped(Exception):
    """Stands for a kill of the sweep itself."""


@pytest.mark.parametrize("search", [OPTUNA, {"kind": "refine", "points": 4, "seeds_for_best": 2}])
def test_a_sweep_that_stops_after_any_run_goes_on_exactly(tmp_path: Path, search: dict[str, Any]) -> None:
    straight = Sweep.create(tmp_path / "straight", search_config(search))
    train_all(straight, FAKE)
    stopped = Sweep.create(tmp_path / "stopped", search_config(search))

    def stop(line: str) -> None:
        if "/" in line.split(" ")[0]:
            raise Stopped

    for _ in range(20):
        with contextlib.suppress(Stopped):
            train_all(Sweep.open(stopped.path), FAKE, say=stop)
            break
    assert trained(stopped) == trained(straight)
    assert stopped.outcomes() == straight.outcomes()
    assert [slot.values for slot in stopped.slots()] == [slot.values for slot in straight.slots()]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_sweep_resumes_the_trial_in_flight(tmp_path: Path, processes: int) -> None:
    search = {**OPTUNA, "space": {"optim.lr": {"low": 0.005, "high": 0.09, "log": True}}}  # none diverges
    config = search_config(search, launcher={"kind": "local", "processes": processes, "gpus": 1})
    sweep = Sweep.create(tmp_path / "sweep", config)
    (sweep.path / "halt").touch()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(sweep.path), TRAINER])
    wait_until(lambda: len(list(sweep.path.glob("*/halfway"))) == processes)
    driver.kill()
    driver.wait()
    with pytest.raises(BadInput, match="still at work"):  # its runs live on
        train_all(sweep, FAKE)
    for line in (sweep.path / "order.txt").read_text().splitlines():
        os.kill(int(line.split()[1]), signal.SIGKILL)
    (sweep.path / "halt").unlink()
    flying = [f"trial-{number:03d}-seed0" for number in range(processes)]
    for _ in range(100):
        try:
            train_all(Sweep.open(sweep.path), FAKE)
            break
        except BadInput:
            time.sleep(0.05)
    assert sorted(trained(sweep)[:processes]) == flying
    assert sorted(trained(sweep)[processes:]) == sorted(f"trial-{number:03d}-seed0" for number in range(6))
    assert len(sweep.outcomes()) == 6
    if processes == 1:
        straight = Sweep.create(tmp_path / "straight", config)
        train_all(straight, FAKE)
        assert sweep.outcomes() == straight.outcomes()


def test_a_directory_that_was_being_made_is_made_anew(tmp_path: Path) -> None:
    sweep = Sweep.create(tmp_path / "sweep", search_config({"kind": "refine", "points": 3, "seeds_for_best": 2}))
    left = sweep.path / "lr-0.0283-seed0"
    left.mkdir()
    (left / ".config.yaml.123.tmp").write_text("half")
    assert train_all(sweep, FAKE) == {}
    assert (left / "config.yaml").is_file()
    assert not (left / ".config.yaml.123.tmp").exists()


def test_a_hopeless_run_is_stopped_and_told_as_pruned(tmp_path: Path) -> None:
    import optuna

    search = {
        "kind": "optuna", "trials": 3, "sampler": "qmc", "pruning": "median", "pruning_startup": 1,
        "space": {"optim.lr": [0.02, 0.09]},
    }  # fmt: skip
    sweep = Sweep.create(tmp_path / "sweep", search_config(search))
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        (sweep.path / "halt").touch()  # all but the first wait in their middle

    stop_waiting = time.monotonic() + 2.0

    def look(self: LocalLauncher) -> float:
        if time.monotonic() > stop_waiting:
            (sweep.path / "halt").unlink(missing_ok=True)
        return 0.05

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalLauncher, "poll_seconds", property(look))
        assert train_all(sweep, FAKE, say=say) == {}
    rates = [slot.values["optim.lr"] for slot in sweep.slots()]
    outcomes = [sweep.outcomes()[slot.name, 0] for slot in sweep.slots()]
    assert (rates[0], 0.09 in rates) == (0.02, True), "the seed of the sequence no longer suits this test"
    expected = ["pruned" if rate == 0.09 else "complete" for rate in rates]
    assert [outcome.state for outcome in outcomes] == expected
    assert any("pruned, l2r loss" in line for line in said)
    train_all(Sweep.open(sweep.path), FAKE)
    assert len(trained(sweep)) == 3, "what was pruned is not trained again"
    journal = str(sweep.path / "search" / "optuna.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    states = [trial.state.name.lower() for trial in optuna.load_study(study_name="sweep", storage=storage).trials]
    assert states == expected


# ---- jobs ------------------------------------------------------------------------------------------------------------

# As much of Slurm as submitit uses: a job is a process; squeue's part is played by files.
SBATCH = """#!/bin/sh
number=$(($(cat "$SLURM_FAKE/last" 2>/dev/null || echo 100) + 1))
echo $number > "$SLURM_FAKE/last"
echo "sbatch $*" >> "$SLURM_FAKE/calls"
cp "$1" "$SLURM_FAKE/$number.sh"
SLURM_JOB_ID=$number SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \\
  setsid sh "$1" > /dev/null 2>&1 < /dev/null &
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --output|--error) shift 2;; -*) shift;; *) break;; esac
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo "JobID|State"
for file in "$SLURM_FAKE"/*.state; do
  [ -e "$file" ] && echo "$(basename "$file" .state)|$(cat "$file")"
done
exit 0
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up Slurm in the PATH."""
    place = tmp_path / "fake-slurm"
    place.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (place / name).write_text(text)
        (place / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FAKE", str(place))
    return place


def jobs_config(cluster: str, **options: Any) -> SweepConfig:
    launcher = {"kind": "slurm", "cluster": cluster, "gpus": 0, "seconds": 0.05, "hours": 0.5, **options}
    axes = {"kind": "grid", "axes": {"optim.lr": [0.02, 0.04]}}
    return search_config(axes, launcher=launcher, base=[*SMALL])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_runs_are_jobs_that_outlive_the_sweep(tmp_path: Path, slurm: Path, cluster: str) -> None:
    sweep = Sweep.create(tmp_path / "sweep", jobs_config(cluster))
    (sweep.path / "halt").touch()

    def look(self: SlurmLauncher) -> float:
        if len(list(sweep.path.glob("*/halfway"))) == 2:
            raise Stopped
        return 0.05

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlurmLauncher, "poll_seconds", property(look))
        with pytest.raises(Stopped):
            train_all(sweep, FAKE)
    jobs = {path.parent.name: json.loads(path.read_text())["job"] for path in sweep.path.glob("jobs/*/job.json")}
    assert sorted(jobs) == ["lr-0.02-seed0", "lr-0.04-seed0"]
    (sweep.path / "jobs" / "lr-0.02-seed0" / "job.json").unlink()  # killed between the submission and the note of it
    (sweep.path / "halt").unlink()
    assert train_all(Sweep.open(sweep.path), FAKE) == {}
    assert sorted(trained(sweep)) == ["lr-0.02-seed0", "lr-0.04-seed0"], "a job was submitted twice"
    assert [outcome.state for outcome in sweep.outcomes().values()] == ["complete"] * 2
    if cluster == "slurm":
        assert (slurm / "calls").read_text().count("sbatch") == 2
        text = (slurm / "101.sh").read_text()
        assert "#SBATCH --time=30" in text
        assert "--cpus-per-task=8" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_a_node_lost_is_seen_and_submitted_again(tmp_path: Path, slurm: Path) -> None:
    import submitit

    config = jobs_config("slurm").model_copy(
        update={"search": search_config({"kind": "grid", "axes": {"optim.lr": [0.02]}}).search}
    )
    sweep = Sweep.create(tmp_path / "sweep", config)
    (sweep.path / "halt").touch()

    def look(self: SlurmLauncher) -> float:
        if (sweep.path / "lr-0.02-seed0" / "halfway").exists() and not (slurm / "101.state").exists():
            (slurm / "101.state").write_text("NODE_FAIL")
        return 0.05

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlurmLauncher, "poll_seconds", property(look))
        patch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0)
        assert train_all(sweep, FAKE) == {"lr-0.02-seed0": "ended by signal 9"}
    for line in (sweep.path / "order.txt").read_text().splitlines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[1]), signal.SIGKILL)
    (sweep.path / "halt").unlink()
    assert train_all(Sweep.open(sweep.path), FAKE) == {}
    assert trained(sweep) == ["lr-0.02-seed0"] * 2


def test_precision_is_not_decided_by_the_machine_that_submits(tmp_path: Path) -> None:
    base = [text for text in SMALL if "precision" not in text]
    options = {"launcher": {"kind": "slurm", "gpus": 1}, "base": base}
    with pytest.raises(BadInput, match=r"add train.precision=bfloat16"):
        Sweep.create(tmp_path / "sweep", search_config(GRID, **options))
    assert not (tmp_path / "sweep").exists()
    Sweep.create(tmp_path / "sweep", search_config(GRID, **{**options, "base": [*base, "train.precision=bfloat16"]}))
