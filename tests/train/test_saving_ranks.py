"""Checkpoints of several processes: each writes its share, any number of them reads it, and one that fails or dies
leaves nothing that is taken for a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from tests.train.tiny_training import config

from inlay.model import checkpoint

ROOT = Path(__file__).parents[2]


class Jobs:
    """Runs jobs of `saver_ranks` for runs in one folder."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.config.write_text(json.dumps({**config(store).to_dict(), "parallel": {"timeout_seconds": 20.0}}))

    def job(self, run: str, kind: str, world: int, steps: int, **more: Any) -> dict[str, Any]:
        (self.folder / run).mkdir(exist_ok=True)
        run = str(self.folder / run)
        return {"run": run, "kind": kind, "world": world, "steps": steps, "config": str(self.config), **more}

    def run(self, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("saver_ranks.py")), json.dumps(jobs)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(jobs), done.stderr
        return [{**result, "stderr": done.stderr} for result in found]


@pytest.fixture
def jobs(tmp_path: Path, store: Path) -> Jobs:
    return Jobs(tmp_path, store)


def check_matrix(jobs: Jobs, writers: list[tuple[str, int]], readers: list[tuple[str, int]]) -> None:
    """Six steps straight on one process are three on some and three on others, in weights and optimizer state."""
    wanted = [jobs.job("straight", "plain", 1, 6)]
    for kind, world in writers:
        wanted.append(jobs.job(f"{kind}{world}", kind, world, 3))
    straight, *written = jobs.run(*wanted)
    assert straight["status"] == [0], straight["stderr"]
    expected = straight["ranks"][0]["state"]
    again = []
    for (kind, world), result in zip(writers, written, strict=True):
        assert result["status"] == [0] * world, result["stderr"]
        assert (result["there"], result["left"]) == (["step-3"], [])
        again += [
            jobs.job(f"{kind}{world}", reader, count, 3, load=True, writer=[kind, world]) for reader, count in readers
        ]
    for job, result in zip(again, jobs.run(*again), strict=True):
        assert result["status"] == [0] * job["world"], result["stderr"]
        for rank in result["ranks"]:
            # A later job of this run finds what an earlier one saved: each goes on from the newest.
            assert rank["step"] == rank["began"] + 3
            if rank["began"] == 3:
                assert rank["state"] == expected
            notice = job["writer"][1] != job["world"] and rank["began"] == 3
            assert any(f"goes on with {job['world']}" in line for line in rank["notices"]) == notice
        folder = Path(job["run"]) / "checkpoints" / f"step-{result['ranks'][0]['step']}"
        record = checkpoint.read_record(folder, checkpoint.ALL)
        assert record["world"] == job["world"]
        # Notes of all ranks are added up once, whatever number of ranks there were.
        assert record["sums"]["ranks"] == 3 * job["writer"][1] + 3 * job["world"] or record["step"] > 6


@pytest.mark.parametrize(
    ("writer", "reader"), [(("fsdp", 2), ("plain", 1)), (("fsdp", 2), ("fsdp", 4)), (("plain", 1), ("fsdp", 2))]
)
def test_saved_on_some_ranks_goes_on_with_others(jobs: Jobs, writer: tuple[str, int], reader: tuple[str, int]) -> None:
    check_matrix(jobs, [writer], [reader])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("reader", [("plain", 1), ("ddp", 2), ("fsdp", 2), ("fsdp", 4), ("ddp", 4)])
def test_every_way_to_share_reads_every_other(jobs: Jobs, reader: tuple[str, int]) -> None:
    check_matrix(jobs, [("plain", 1), ("ddp", 2), ("fsdp", 2), ("fsdp", 4)], [reader])


def test_what_lies_on_the_disk(jobs: Jobs) -> None:
    """Weights once and whole, the optimizer's state shared out; nothing that only one program reads."""
    results = jobs.run(jobs.job("one", "plain", 1, 3), jobs.job("ddp", "ddp", 2, 3), jobs.job("fsdp", "fsdp", 4, 3))
    names, sizes = {}, {}
    state = results[0]["ranks"][0]["state"]
    for run in ("one", "ddp", "fsdp"):
        folder = jobs.folder / run / "checkpoints" / "step-3"
        names[run] = sorted(path.name for path in folder.iterdir())
        weights = load_file(folder / checkpoint.WEIGHTS)
        assert {name: value.double().flatten().tolist() for name, value in weights.items()} == {
            name: value for name, value in state.items() if "|" not in name
        }
        sizes[run] = {}
        for path in folder.glob("optimizer*"):
            with safe_open(path, framework="pt") as file:
                sizes[run][path.name] = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert names["one"] == ["checkpoint.json", "optimizer.safetensors", "weights.safetensors"]
    shared = [f"optimizer-{number}-of-2.safetensors" for number in (1, 2)]
    assert names["ddp"] == ["checkpoint.json", *shared, "weights.safetensors"]
    shared = [f"optimizer-{number}-of-4.safetensors" for number in (1, 2, 3, 4)]
    assert names["fsdp"] == ["checkpoint.json", *shared, "weights.safetensors"]
    whole = sum(sizes["one"].values())
    assert all(sum(found.values()) == whole for found in sizes.values()), sizes
    assert max(sizes["ddp"].values()) < 0.6 * whole
    found = load_file(jobs.folder / "one" / "checkpoints" / "step-3" / checkpoint.OPTIMIZER)
    assert {name: value.double().flatten().tolist() for name, value in found.items()} == {
        name: value for name, value in state.items() if "|" in name
    }


@pytest.mark.parametrize("harm_rank", [0, 1])
def test_a_rank_whose_disk_is_full_fails_the_checkpoint_on_all(jobs: Jobs, harm_rank: int) -> None:
    harmed, after = jobs.run(
        jobs.job("run", "fsdp", 2, 1, saves=3, harm="full", harm_at=1, harm_rank=harm_rank),
        jobs.job("run", "plain", 1, 1, load=True),
    )
    assert harmed["status"] == [0, 0], harmed["stderr"]
    for rank in harmed["ranks"]:
        assert len(rank["errors"]) == 1
        assert "step-2': the disk is full; free some space" in rank["errors"][0]
    assert (harmed["there"], harmed["left"]) == (["step-3", "step-1"], [])
    assert after["ranks"][0]["began"] == 3


@pytest.mark.parametrize("harm_rank", [0, 1])
def test_a_rank_that_dies_while_saving_leaves_the_last_checkpoint(jobs: Jobs, harm_rank: int) -> None:
    harmed, after, straight = jobs.run(
        jobs.job("run", "fsdp", 2, 2, saves=2, harm="dies", harm_at=1, harm_rank=harm_rank),
        jobs.job("run", "fsdp", 2, 4, load=True),
        jobs.job("straight", "plain", 1, 6),
    )
    assert harmed["status"][harm_rank] == 9
    survivor = harmed["ranks"][1 - harm_rank]
    assert harmed["status"][1 - harm_rank] == 0, harmed["stderr"]
    assert len(survivor["errors"]) == 1
    assert "step-4': another process of the run has ended or does not answer" in survivor["errors"][0]
    assert harmed["seconds"] < 60.0  # parallel.timeout_seconds is 20
    assert harmed["there"] == ["step-2"]
    assert after["status"] == [0, 0], after["stderr"]
    assert [rank["began"] for rank in after["ranks"]] == [2, 2]
    assert after["ranks"][0]["state"] == straight["ranks"][0]["state"]
    assert (after["there"], after["left"]) == (["step-6", "step-2"], [])
