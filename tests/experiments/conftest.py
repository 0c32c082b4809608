from pathlib import Path

import pytest
import torch
from tests.train.tiny_training import write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("experiment_store") / "store")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
