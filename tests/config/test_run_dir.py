"""Run directories: their layout, that the resolved configuration reads back the same, and what is refused."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput, Config, validate
from inlay.config.run_dir import RunDir, config_text, default_path
from inlay.config.yaml_file import load_yaml


class Settings(Config):
    """A little of every type that YAML could mangle."""

    seed: int = 0
    lr: float = 1e-5
    name: str = "x"
    names: tuple[str, ...] = ()
    maybe: float | None = None
    table: dict[str, float] = {}


def test_create_writes_a_configuration_that_starts_again(tmp_path: Path) -> None:
    config = Settings(seed=3, names=("a", "2026-01-01", "1e-3", "no", "${seed}"))
    run = RunDir.create(tmp_path / "runs" / "one", config, verb="train")
    first = run.config_file.read_text().splitlines()[0]
    assert first == f"# Starts the same run again: inlay train --config {run.config_file} out=DIR"
    assert validate(Settings, RunDir.open(run.path).load_config()) == config


@given(
    st.builds(
        Settings,
        seed=st.integers(-(2**62), 2**62),
        lr=st.floats(allow_nan=False, allow_infinity=False),
        name=st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        names=st.lists(st.text("0123456789e-_:.ynotrufals~# '\"", max_size=8), max_size=3).map(tuple),
        maybe=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        table=st.dictionaries(st.text("abc1 :-.", max_size=4), st.floats(-1, 1), max_size=2),
    )
)
def test_the_written_configuration_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: Settings
) -> None:
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    path.write_text(config_text(config, "train", path), encoding="utf-8", newline="")
    assert validate(Settings, load_yaml(path)) == config


def test_layout_and_steps(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, Settings())
    assert run.steps() == []
    for name in ("step-5", "step-10", ".step-15.tmp", "step-x"):
        (run.checkpoints / name).mkdir(parents=True)
    (run.checkpoints / "step-20").write_text("a file is no checkpoint")
    assert run.steps() == [5, 10]
    assert run.checkpoint(10).is_dir()
    assert str(run) == str(tmp_path)
    names = [run.metrics_file, run.samples_file, run.tokenizer, run.evaluations, run.report_file]
    assert [path.name for path in names] == [
        "metrics.jsonl",
        "samples.jsonl",
        "tokenizer",
        "evaluations",
        "report.html",
    ]


def test_create_refuses_what_is_there(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", Settings())
    before = run.config_file.read_bytes()
    with pytest.raises(BadInput, match=rf"resume={run.path}\) or choose another out=DIR"):
        RunDir.create(run.path, Settings(seed=9))
    assert run.config_file.read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(BadInput, match="is not empty"):
        RunDir.create(tmp_path / "other", Settings())
    with pytest.raises(BadInput, match="is a file"):
        RunDir.create(tmp_path / "other" / "notes.txt", Settings())
    with pytest.raises(BadInput, match="cannot write"):
        RunDir.create(tmp_path / "other" / "notes.txt" / "run", Settings())
    (tmp_path / "empty").mkdir()
    assert RunDir.create(tmp_path / "empty", Settings()).config_file.is_file()


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "runs" / "a", Settings())
    with pytest.raises(BadInput, match=r"^no run at "):
        RunDir.open(tmp_path / "nope")
    with pytest.raises(BadInput, match="is a file; a run is a directory"):
        RunDir.open(tmp_path / "runs" / "a" / "config.yaml")
    with pytest.raises(BadInput, match=r"is not a run directory.*holds the runs a$"):
        RunDir.open(tmp_path / "runs")


def test_default_names_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 11, 20, 7, 8, 9)
    assert default_path("train", now) == Path("runs/train-20261120-070809")
    default_path("train", now).mkdir(parents=True)
    assert default_path("train", now) == Path("runs/train-20261120-070809-2")
    assert RunDir.create(None, Settings(), "tune").path.name.startswith("tune-")
