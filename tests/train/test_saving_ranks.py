"""Checkpoints of several processes: each writes its share, any number of them reads it, and one that fails or dies
leaves nothing that is taken for a checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.train.tiny_training import config

from inlay.model import checkpoint

pytestmark = pytest.mark.timeout(600)
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
        if "copy" in more:
            more["copy"] = str(self.folder / more["copy"])
        return {"run": run, "kind": kind, "world": world, "steps": steps, "config": str(self.config), **more}

    def run(self, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("saver_ranks.py")), json.dumps(jobs)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(jobs), done.stderr
        return [{**result, "stderr": done.stderr} for result in found]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("jobs"), store)


@pytest.fixture(scope="module")
def done(jobs: Jobs) -> dict[str, dict[str, Any]]:
    """The quick jobs by name, in one process that imports torch once."""
    job = jobs.job
    wanted = {
        "straight": job("straight", "plain", 1, 6),
        "two": job("two", "fsdp", 2, 3),
        "two on one": job("two-on-one", "plain", 1, 3, load=True, copy="two"),
        "two on four": job("two-on-four", "fsdp", 4, 3, load=True, copy="two"),
        "full": job("full", "fsdp", 2, 1, saves=3, harm="full", harm_at=1, harm_rank=1),
        "after full": job("full", "plain", 1, 3, load=True),
        "dies": job("dies", "fsdp", 2, 2, saves=2, harm="dies", harm_at=1, harm_rank=1),
        "after dies": job("dies", "plain", 1, 4, load=True),
    }
    return dict(zip(wanted, jobs.run(*wanted.values()), strict=True))


@pytest.mark.parametrize(("name", "now"), [("two on one", 1), ("two on four", 4)])
def test_saved_on_two_ranks_goes_on_with_others(
    jobs: Jobs, done: dict[str, dict[str, Any]], name: str, now: int
) -> None:
    """Six steps straight on one process are three on some and three on others, in weights and optimizer state."""
    result = done[name]
    assert result["status"] == [0] * now, result["stderr"]
    for rank in result["ranks"]:
        assert (rank["began"], rank["step"]) == (3, 6)
        assert rank["state"] == done["straight"]["ranks"][0]["state"]
    assert any("step-3 was saved by 2 processes and goes on with" in line for line in result["ranks"][0]["notices"])
    folder = jobs.folder / name.replace(" ", "-") / "checkpoints" / "step-6"
    record = checkpoint.read_record(folder, checkpoint.ALL)
    assert record["world"] == now
    assert record["sums"]["ranks"] == 3 * 2 + 3 * now  # what ranks noted is added up once


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("reader", [("plain", 1), ("ddp", 2), ("fsdp", 2), ("fsdp", 4), ("ddp", 4)])
def test_every_way_to_share_reads_every_other(jobs: Jobs, reader: tuple[str, int]) -> None:
    kind, world = reader
    name = f"for-{kind}{world}"
    writers = [("plain", 1), ("ddp", 2), ("fsdp", 2), ("fsdp", 4)]
    results = jobs.run(
        jobs.job(f"{name}-straight", "plain", 1, 6),
        *[jobs.job(f"{name}-{by}{count}", by, count, 3) for by, count in writers],
        *[jobs.job(f"{name}-{by}{count}", kind, world, 3, load=True) for by, count in writers],
    )
    expected = results[0]["ranks"][0]["state"]
    for (_, count), result in zip(writers, results[1 + len(writers) :], strict=True):
        assert result["status"] == [0] * world, result["stderr"]
        for rank in result["ranks"]:
            assert rank["began"] == 3
            assert rank["state"] == expected
            assert any("goes on with" in line for line in rank["notices"]) == (count != world)


def whole(folder: Path) -> dict[str, list[float]]:
    """What the optimizer's files of a checkpoint hold, parts put together by hand."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("optimizer*")):
        with safe_open(path, framework="pt") as file:
            shards = json.loads((file.metadata() or {}).get("shards", "{}"))
            for name in file.keys():  # noqa: SIM118
                part = file.get_tensor(name)
                offsets, shape = shards.get(name, ([0] * part.ndim, list(part.shape)))
                target = found.setdefault(name, torch.full(shape, -99.0, dtype=torch.float64))
                target[tuple(slice(at, at + size) for at, size in zip(offsets, part.shape, strict=True))] = part
    return {name: value.flatten().tolist() for name, value in found.items()}


def check_files(folder: Path, state: dict[str, list[float]], count: int) -> None:
    """Weights once and whole, the optimizer's state shared out; nothing that only one program reads."""
    parts = [f"optimizer-{number}-of-{count}.safetensors" for number in range(1, count + 1)]
    expected = parts if count > 1 else [checkpoint.OPTIMIZER]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", *expected, checkpoint.WEIGHTS]
    weights = load_file(folder / checkpoint.WEIGHTS)
    found = {name: value.double().flatten().tolist() for name, value in weights.items()}
    assert {**found, **whole(folder)} == state
    sizes = [sum(tensor.nbytes for tensor in load_file(folder / name).values()) for name in expected]
    # Nothing is written twice, and no process writes much more than its share.
    assert sum(sizes) == 2 * sum(tensor.nbytes for tensor in weights.values()) + 4 * len(weights) + 3 * 8
    assert max(sizes) < 1.5 * sum(sizes) / count


def test_what_lies_on_the_disk(jobs: Jobs, done: dict[str, dict[str, Any]]) -> None:
    check_files(jobs.folder / "two" / "checkpoints" / "step-3", done["two"]["ranks"][0]["state"], 2)
    check_files(jobs.folder / "straight" / "checkpoints" / "step-6", done["straight"]["ranks"][0]["state"], 1)


def check_full(harmed: dict[str, Any], after: dict[str, Any], state: dict[str, list[float]]) -> None:
    assert harmed["status"] == [0, 0], harmed["stderr"]
    for found in harmed["ranks"]:
        assert len(found["errors"]) == 1
        assert "step-2': the disk is full; free some space" in found["errors"][0]
    assert (harmed["there"], harmed["left"]) == (["step-3", "step-1"], [])
    for found in after["ranks"]:
        assert found["began"] == 3
        assert found["state"] == state


def check_dead(harmed: dict[str, Any], after: dict[str, Any], state: dict[str, list[float]], rank: int) -> None:
    assert sorted(harmed["status"]) == [0, 9], harmed["stderr"]
    assert harmed["status"][rank] == 9
    survivor = harmed["ranks"][1 - rank]
    assert len(survivor["errors"]) == 1
    assert "step-4': another process of the run has ended or does not answer" in survivor["errors"][0]
    assert harmed["seconds"] < 60.0  # parallel.timeout_seconds is 20
    assert harmed["there"] == ["step-2"]
    assert set(after["status"]) == {0}, after["stderr"]
    for found in after["ranks"]:
        assert found["began"] == 2
        assert found["state"] == state
    assert (after["there"], after["left"]) == (["step-6", "step-2"], [])


def test_a_rank_whose_disk_is_full_fails_the_checkpoint_on_all(done: dict[str, dict[str, Any]]) -> None:
    check_full(done["full"], done["after full"], done["straight"]["ranks"][0]["state"])


def test_a_rank_that_dies_while_saving_leaves_the_last_checkpoint(done: dict[str, dict[str, Any]]) -> None:
    check_dead(done["dies"], done["after dies"], done["straight"]["ranks"][0]["state"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_rank_0_and_copies_too(jobs: Jobs, kind: str) -> None:
    """The same for the rank that decides, and where each process has the whole state."""
    job = jobs.job
    straight, full, after_full, dies, after_dies = jobs.run(
        job(f"{kind}-straight", "plain", 1, 6),
        job(f"{kind}-full", kind, 2, 1, saves=3, harm="full", harm_at=1, harm_rank=0),
        job(f"{kind}-full", kind, 2, 3, load=True),
        job(f"{kind}-dies", kind, 2, 2, saves=2, harm="dies", harm_at=1, harm_rank=0),
        job(f"{kind}-dies", kind, 2, 4, load=True),
    )
    state = straight["ranks"][0]["state"]
    check_full(full, after_full, state)
    check_dead(dies, after_dies, state, 0)
    check_files(jobs.folder / f"{kind}-full" / "checkpoints" / "step-6", state, 2)
