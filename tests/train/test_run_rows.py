"""What `inlay inspect rows RUN` shows is what the run was trained on: batch by batch, over borders of stages."""

import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from tests.train.tiny_training import config, write_store

from inlay.cli.main import main
from inlay.config import BadInput, validate
from inlay.data.inspect import Shown
from inlay.data.loader import Batch, Loader, Rows
from inlay.data.rows import Placed, Row, assemble
from inlay.data.stats import stats
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.run import train
from inlay.train.run_rows import of_run

STAGES = [
    {"name": "short", "share": 0.4},
    {"name": "shares", "share": 0.2, "shares": {"code": 0.4, "more": 0.6}},
    {"name": "long", "share": 0.4, "sequence_length": 256, "rows": 2, "fim_rate": 1.0},
]
EVERY_STEP = {"checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 1, "keep": 40}}
Trained = tuple[Path, list[list[str]]]


def recorded(run: TrainRun, out: Path) -> list[list[str]]:
    """Trains, and gives the hash of every row by step: of its tokens and of what each of them is."""
    seen: list[list[str]] = []
    following = Loader.__next__

    def noted(loader: Loader) -> Batch:
        batch = following(loader)
        seen.append([row_hash(*row) for row in zip(batch.tokens, batch.regions, strict=True)])
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "__next__", noted)
        train(run, str(out))
    return seen


def row_hash(tokens: np.ndarray, regions: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(tokens.tobytes() + regions.tobytes())


def hashes(shown: Shown, count: int = 10**6) -> list[str]:
    return [
        row_hash(row.tokens, row.regions)
        for row in (made(part, examples) for _, _, part, examples in shown.walk(count))
    ]


def made(part: Rows, examples: list[Placed]) -> Row:
    maker = part.maker
    parts = [placed.example for placed in examples]
    return assemble(parts, maker.length, maker.transform.format, maker.transform.config.loss.table())


@pytest.fixture(scope="module")
def mixture(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Ten steps in three stages on two stores, with seed 3."""
    folder = tmp_path_factory.mktemp("rows")
    more = write_store(folder / "more", first=100, tokenizer=TokenStore.open(store).tokenizer)
    sources = {"code": {"path": str(store), "max_epochs": None}, "more": {"path": str(more), "max_epochs": None}}
    data = {"path": None, "sources": sources}
    changes = {"data": data, "stages": STAGES, "seed": 3, "callbacks": EVERY_STEP}
    return folder / "run", recorded(validate(TrainRun, {**config(store).to_dict(), **changes}), folder / "run")


def test_rows_of_each_stage(mixture: Trained) -> None:
    run, seen = mixture
    first = of_run(run, stage="short")
    steps = {stage["name"]: 0 for stage in STAGES}
    before = 0
    for name in steps:
        shown = of_run(run, stage=name)
        of_stage = hashes(shown)
        steps[name] = len(of_stage) // len(seen[before])
        assert of_stage == [one for step in seen[before : before + steps[name]] for one in step]
        before += steps[name]
    assert before == len(seen)
    assert min(steps.values()) > 0
    # By default the stage of the last step; of a checkpoint what it was trained on by then.
    assert hashes(of_run(run)) == hashes(of_run(run, stage="long"))
    early = run / "checkpoints" / "step-2"
    assert hashes(of_run(early)) == hashes(first)[: 2 * len(seen[0])]
    with pytest.raises(BadInput, match="--stage long begins at step"):
        of_run(early, stage="long")
    with pytest.raises(BadInput, match="--stage lang: the run has short, shares, long"):
        of_run(run, stage="lang")


def test_rows_of_one_source(mixture: Trained) -> None:
    run, _ = mixture
    both = [name for _, name, _, _ in of_run(run).walk(10**6)]
    assert set(both) == {"code", "more"}
    only = of_run(run, source="more")
    assert [name for _, name, _, _ in only.walk(10**6)] == ["more"] * both.count("more")
    assert set(hashes(only)) < set(hashes(of_run(run)))
    found = stats(of_run(run, one_source=True), [])
    assert found["rows_looked_at"] == both.count("code")
    assert found["nominal_fim_rate"] == 1.0  # that of the stage
    with pytest.raises(BadInput, match="--source mor: the run has code, more; did you mean 'more'"):
        of_run(run, source="mor")


def test_on_the_command_line(mixture: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(mixture[0])
    assert main(["inspect", "rows", run, "--stage", "short", "--count", "3", "--json"]) == 0
    shown = capsys.readouterr()
    items = [json.loads(line) for line in shown.out.splitlines()]
    assert {item["source"] for item in items} <= {"code", "more"}
    assert {item["row"] for item in items} == {0, 1, 2}
    assert "stage short" in shown.err
    assert main(["inspect", "stats", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_looked_at"] > 0
    assert main(["inspect", "rows", run, "fim.rate=1"]) == 2
    assert "leave out fim.rate=1, or name its store" in capsys.readouterr().err
    assert main(["inspect", "rows", run, "--count", "2"]) == 0
    assert "row 1 of " in capsys.readouterr().out


def test_a_store_has_no_stages(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "rows", str(store), "--stage", "short"]) == 2
    assert "--stage short: only a run has stages" in capsys.readouterr().err
