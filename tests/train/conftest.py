import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.train.tiny_training import config, write_store

from inlay.model import precision
from inlay.train.config import TrainRun
from inlay.train.run import train


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def fp32_products() -> Iterator[None]:
    """No bf16 anywhere, in this process and in those that it starts: on a machine with units for it Muon iterates in
    bf16, where sums in another order differ by 1e-2 and not by 1e-6."""
    before = os.environ[precision.VARIABLE]
    os.environ[precision.VARIABLE] = "0"
    precision.has_bfloat16_units.cache_clear()
    yield
    os.environ[precision.VARIABLE] = before
    precision.has_bfloat16_units.cache_clear()


@pytest.fixture(scope="session")
def straight_runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainRun, Path]]:
    """Twenty steps that nobody disturbed, by precision."""
    torch.set_num_threads(1)
    runs = {name: config(store, train={"precision": name}) for name in ("float32", "bfloat16")}
    return {name: (run, train(run, str(tmp_path_factory.mktemp(name) / "run")).path) for name, run in runs.items()}


@pytest.fixture
def straight(straight_runs: dict[str, tuple[TrainRun, Path]]) -> tuple[TrainRun, Path]:
    return straight_runs["float32"]
