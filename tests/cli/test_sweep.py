"""`inlay sweep`: how a command line becomes a sweep, and what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inlay.cli.sweep import read
from inlay.config import BadInput, ConfigError


def test_overrides_are_those_of_the_runs_and_the_sweeps_own() -> None:
    config = read(["data.path=s", "experiment=architecture", "seeds=[5]", "arms=[mla,base]"], None)
    assert list(config.arms) == ["mla", "base"]
    assert config.seeds == (5,)
    assert config.base[-1] == "data.path=s"
    assert "train.tokens=409600" in config.base
    assert config.arms["mla"] == ("model=mla-nano",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"give either experiment=NAME \(architecture, architecture-0.69b\) or --config FILE"),
        (["experiment=archi"], "unknown choice 'archi' for 'experiment'; did you mean 'architecture'"),
        (["experiment=architecture", "arms=[base,mal]"], "there is no arm 'mal'; did you mean 'mla'"),
        (["experiment=architecture", "seeds=3"], "seeds"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises((BadInput, ConfigError), match=message):
        read(words, None)


def test_a_plan_needs_no_store_and_makes_nothing(
    inlay: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nbase: [train.steps=3, train.rows=2, train.sequence_length=64]\n"
        "arms: {slow: [optim.lr=0.01], fast: [optim.lr=0.04]}\nseeds: [0, 1]\nmeasures: [loss]\n"
    )
    outcome = inlay("sweep", "--config", str(file), "--plan")
    assert (outcome.status, outcome.err) == (0, "")
    assert "2 arms x 2 seeds = 4 runs" in outcome.out
    assert "fast: optim.lr=0.04" in outcome.out
    assert f"{4 * 3 * 2 * 64:,} tokens in all" in outcome.out
    assert list(tmp_path.iterdir()) == [file]


def test_a_resumed_sweep_takes_nothing_else(inlay: Callable[..., Any], tmp_path: Path) -> None:
    assert inlay("sweep", f"resume={tmp_path}", "seeds=[1]").status == 2
    outcome = inlay("sweep", f"resume={tmp_path}")
    assert outcome.status == 2
    assert "no sweep at" in outcome.err
