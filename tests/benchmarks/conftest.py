from pathlib import Path

import pytest
import torch
from tests.train.tiny_training import MODEL, write_store

from inlay.config import validate
from inlay.model import ModelConfig


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("benchmark_store") / "store")


@pytest.fixture
def shape() -> ModelConfig:
    return validate(ModelConfig, MODEL)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
