"""docs/evaluation.md names every task, metric, harness and flag there is."""

import inspect
from pathlib import Path

import pytest

from inlay.cli.judge import evaluate
from inlay.evaluate.harnesses import harnesses
from inlay.evaluate.metrics import METRICS
from inlay.evaluate.subject import Decoding
from inlay.evaluate.task import tasks

PAGE = (Path(__file__).parent.parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
NOT_FLAGS = {"target", "overrides", "as_json"}


@pytest.mark.parametrize("kind", sorted(tasks.members()))
def test_tasks(kind: str) -> None:
    assert f"`{kind}`" in PAGE


@pytest.mark.parametrize("title", [metric.title for metric in METRICS])
def test_metrics(title: str) -> None:
    assert title in PAGE


@pytest.mark.parametrize("title", [one.title for one in harnesses(tasks.get("humaneval_infilling")())])  # type: ignore[arg-type]
def test_harnesses(title: str) -> None:
    assert title in PAGE


@pytest.mark.parametrize("name", sorted(set(inspect.signature(evaluate).parameters) - NOT_FLAGS))
def test_flags(name: str) -> None:
    flag = name.replace("_", "-")
    assert f"--{flag}" in PAGE or f"--no-{flag}" in PAGE


@pytest.mark.parametrize("name", sorted(Decoding.model_fields))
def test_decoding(name: str) -> None:
    assert f"`{name}`" in PAGE
