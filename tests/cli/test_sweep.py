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


def test_a_grid_or_a_search_needs_no_file() -> None:
    config = read(["grid={optim.lr:[1e-3,2e-3],model:[pico,micro]}", "data.path=s", "seeds=[0,1]"], None)
    assert config.search is not None
    assert config.search.axes == {"optim.lr": (1e-3, 2e-3), "model": ("pico", "micro")}
    assert (config.base, config.arms, config.most_runs) == (("data.path=s",), {}, 8)
    refined = read(["search=refine", "search.points=7", "launcher=slurm", "launcher.partition=gpu"], None)
    assert (refined.search.points, refined.launcher.kind, refined.launcher.partition) == (7, "slurm", "gpu")
    aimed = read(["experiment=lr-proxy", "target.model=base-1b", "target.batch=65536"], None)
    assert (aimed.target.model, aimed.target.batch, aimed.target.tokens) == ("base-1b", 65536, None)
    both = read(["experiment=architecture", "arms=[base,mla]", "grid={optim.lr:[0.01,0.02]}"], None)
    assert (both.search.kind, both.most_runs) == ("grid", 8)


def test_a_file_need_not_name_a_launcher(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\narms: {a: [optim.lr=0.1]}\n")
    assert read(["launcher.processes=2"], file).launcher.slots == 2
    assert read([], file).launcher.slots == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"give experiment=NAME \(architecture, architecture-0.69b.*\), --config FILE, or grid="),
        (["experiment=architecture", "grid={optim.lr:[0.1]}", "search=refine"], "grid and search are both given"),
        (["search=refined"], "unknown choice 'refined' for 'search'; did you mean 'refine'|unknown choice 'refined'"),
        (["grid={optim.lr:[0.1]}", "target.modl=base-1b"], "did you mean 'target.model'"),
        (["grid={optim.lr:[0.1]}", "target.tokens=5"], "target.model"),
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


def test_the_plan_of_a_search_says_what_it_costs_at_most(inlay: Callable[..., Any], tmp_path: Path) -> None:
    words = ["search=refine", "train.steps=10", "train.rows=2", "train.sequence_length=64", "--plan"]
    outcome = inlay("sweep", *words)
    assert (outcome.status, outcome.err) == (0, "")
    assert "refine, 1 seeds: at most 11 runs" in outcome.out
    assert "optim.lr=0.005, 0.01, 0.02, 0.04, 0.08" in outcome.out
    assert f"{11 * 10 * 2 * 64:,} tokens in all, 1,280 a run" in outcome.out
    wrong = inlay("sweep", "grid={optim.lrr:[1]}", "train.steps=10", "--plan")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert "unknown key 'optim.lrr'" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["target.model=base-1b"], "no sweep at"),
        (["seeds=[1]"], "no sweep at"),
        (["--plan"], "reads a sweep that has been trained"),
    ],
)
def test_a_transfer_reads_a_sweep_that_is_there(
    inlay: Callable[..., Any], tmp_path: Path, words: list[str], message: str
) -> None:
    outcome = inlay("sweep", f"transfer={tmp_path}", *words)
    assert outcome.status == 2
    assert message in outcome.err
