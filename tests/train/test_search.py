"""Searches: which points they want, that they say so again after a kill, and that every trial ends in their memory."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.train.fake_runs import FAKE, expected_loss, quick, search_config, trained  # noqa: F401 (a fixture)

from inlay.config import BadInput, ConfigError, validate
from inlay.train.search import Outcome, Search, Trial, override, point_name, searches
from inlay.train.searches import optuna as optuna_search
from inlay.train.sweep import Sweep, planned
from inlay.train.sweep_run import train_all

SPACE = {"optim.lr": {"low": 0.002, "high": 0.08, "log": True}, "model.layers": {"low": 1, "high": 4, "integer": True}}


def search_of(**options: Any) -> Search:
    return validate(searches.get(options["kind"]), options)


def values(trials: list[Trial]) -> list[float]:
    return [float(str(trial.values["optim.lr"])) for trial in trials]


def play(search: Search, folder: Path, loss: Any, seeds: tuple[int, ...] = (0,), forget: bool = False) -> list[Trial]:
    """Runs a search to its end, a trial at a time; `forget` reads it anew before each, as a killed sweep would."""
    outcomes: dict[tuple[str, int], Outcome] = {}
    while True:
        if forget:
            search = validate(type(search), search.to_dict())
        trials = search.wanted(seeds, outcomes, 1, folder)
        assert [trial.key for trial in trials][: len(outcomes)] == list(outcomes), "the list changed in its middle"
        waiting = [trial for trial in trials if trial.key not in outcomes]
        if not waiting:
            return trials
        value = loss(waiting[0])
        state = "complete" if math.isfinite(value) else "diverged"
        outcomes[waiting[0].key] = Outcome(state, value, ((0.0, 9.0), (1.0, value)))


def valley(trial: Trial) -> float:
    rate = float(str(trial.values["optim.lr"]))
    return math.inf if rate > 0.1 else expected_loss(rate, trial.seed)


def test_points_have_names_and_overrides_that_people_can_read() -> None:
    assert point_name({"optim.lr": 0.002, "model": "mla-nano"}) == "lr-0.002-model-mla-nano"
    assert point_name({"optim.lr": 1e-5, "schedule.lr": None}) == "optim.lr-1e-05-schedule.lr-null"
    assert [override("a", value) for value in (None, True, 0.1, 3, "x/y", "a b")] == [
        "a=null", "a=true", "a=0.1", "a=3", "a=x/y", "a='a b'",
    ]  # fmt: skip


def test_a_grid_is_every_combination_with_each_seed() -> None:
    grid = search_of(kind="grid", axes={"optim.lr": [0.01, 0.02], "model.layers": [1, 2]})
    trials = grid.first((0, 7))
    assert [trial.name for trial in trials[:4]] == [
        "lr-0.01-layers-1", "lr-0.01-layers-2", "lr-0.02-layers-1", "lr-0.02-layers-2",
    ]  # fmt: skip
    assert [trial.seed for trial in trials] == [0] * 4 + [7] * 4
    assert grid.most((0, 7)) == 8
    for wrong in ({}, {"optim.lr": []}, {"optim.lr": [0.1, 0.1]}, {"optim.lr": [0.01, 0.0100000001]}):
        with pytest.raises(ConfigError):
            search_of(kind="grid", axes=wrong)


def test_a_refinement_finds_the_valley(tmp_path: Path) -> None:
    search = search_of(kind="refine", center=0.01, points=5, refinements=2, seeds_for_best=3)
    trials = play(search, tmp_path, valley)
    # 0.0025 to 0.04 first; the best of them, 0.02, is inside; then its neighbours by 1.41 and 1.19, then seeds.
    assert values(trials) == [0.0025, 0.005, 0.01, 0.02, 0.04, 0.0141, 0.0283, 0.0168, 0.0238] + [0.02, 0.0238] * 2
    assert [trial.seed for trial in trials[-4:]] == [1, 1, 2, 2]
    assert len(trials) <= search.most((0,))


def test_a_refinement_goes_beyond_an_edge_and_comes_back_from_a_cliff(tmp_path: Path) -> None:
    low = search_of(kind="refine", center=0.32, points=3, extensions=4, refinements=0, seeds_for_best=1)
    assert values(play(low, tmp_path, valley)) == [0.16, 0.32, 0.64, 0.08, 0.04, 0.02, 0.01]
    high = search_of(kind="refine", center=0.005, points=3, extensions=1, refinements=0, seeds_for_best=1)
    assert values(play(high, tmp_path, valley)) == [0.0025, 0.005, 0.01, 0.02]  # as far as it was allowed to


def test_a_refinement_decides_nothing_from_what_came_later() -> None:
    """A second seed that turns the order round asks for no other point's seed."""
    search = search_of(kind="refine", points=5, refinements=0, seeds_for_best=2)
    outcomes = {trial.key: Outcome("complete", valley(trial)) for trial in search.first((0,))}
    before = search.wanted((0,), outcomes, 1, Path("unused"))
    outcomes |= {trial.key: Outcome("complete", 99.0) for trial in before[5:]}
    assert search.wanted((0,), outcomes, 1, Path("unused")) == before
    assert values(before[5:]) == [0.02, 0.01]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_optuna_goes_on_exactly_after_every_trial(tmp_path: Path, sampler: str) -> None:
    search = search_of(kind="optuna", trials=14, space={**SPACE, "model.norm": ["rms", "none"]}, sampler=sampler)
    straight = play(search, tmp_path / "straight", valley)
    broken = play(search, tmp_path / "broken", valley, forget=True)
    assert [trial.values for trial in broken] == [trial.values for trial in straight]
    assert len({tuple(trial.values.values()) for trial in straight}) == 14
    assert all(0.002 <= value <= 0.08 for value in values(straight))
    assert {trial.values["model.layers"] for trial in straight} == {1, 2, 3, 4}
    other = play(search.model_copy(update={"seed": 1}), tmp_path / "other", valley)
    assert [trial.values for trial in other] != [trial.values for trial in straight]


def test_tpe_learns_what_optuna_itself_would(tmp_path: Path) -> None:
    """Its later points are closer to the valley than random ones: the outcomes reach the sampler."""

    def distance(sampler: str) -> float:
        space = {"optim.lr": {"low": 1e-4, "high": 0.09, "log": True}}
        search = search_of(kind="optuna", trials=30, space=space, sampler=sampler)
        found = values(play(search, tmp_path / sampler, valley))[15:]
        return sum(abs(math.log2(value / 0.02)) for value in found) / len(found)

    assert distance("tpe") < 0.5 * distance("random")


def test_the_journal_is_optunas_and_survives_half_a_line_and_a_lock(tmp_path: Path) -> None:
    import optuna

    search = search_of(kind="optuna", trials=4, space=SPACE)
    outcomes: dict[tuple[str, int], Outcome] = {}
    first = search.wanted((0,), outcomes, 2, tmp_path)
    assert [trial.name for trial in first] == ["trial-000", "trial-001"]
    journal = tmp_path / optuna_search.JOURNAL
    whole = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    (tmp_path / f"{optuna_search.JOURNAL}.lock").symlink_to(journal)
    assert search.wanted((0,), outcomes, 2, tmp_path) == first, "a trial in flight was lost or asked for twice"
    assert journal.read_bytes().startswith(whole)
    outcomes[first[0].key] = Outcome("complete", 3.5)
    outcomes[first[1].key] = Outcome("diverged", math.inf)
    assert len(search.wanted((0,), outcomes, 2, tmp_path)) == 4
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    assert [trial.value for trial in study.trials] == [3.5, math.inf, None, None]
    assert study.best_params == dict(first[0].values)


def test_a_failed_trial_is_not_told_and_not_lost(tmp_path: Path) -> None:
    search = search_of(kind="optuna", trials=3, space=SPACE)
    (first,) = search.wanted((0,), {}, 1, tmp_path)
    failed = {first.key: Outcome("failed", math.inf)}
    trials = search.wanted((0,), failed, 1, tmp_path)
    assert [trial.name for trial in trials] == ["trial-000", "trial-001"], "the search waits for a run that failed"
    # The sweep goes on another time: it is among those that wait.
    assert search.wanted((0,), {}, 1, tmp_path) == trials


@pytest.mark.parametrize("seed", range(4))
def test_median_pruning_is_optunas(seed: int) -> None:
    import optuna
    import torch

    search = search_of(kind="optuna", pruning="median", pruning_startup=3)
    generator = torch.Generator().manual_seed(seed)
    curves = [torch.rand(6, generator=generator).tolist() for _ in range(12)]
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1))
    complete: list[tuple[tuple[float, float], ...]] = []
    pruned = 0
    for curve in curves:
        trial = study.ask()
        for step, value in enumerate(curve):
            trial.report(value, step)
            mine = tuple((float(at), found) for at, found in enumerate(curve[: step + 1]))
            ours = search.hopeless(mine, complete)
            assert ours == trial.should_prune()
            if ours:
                pruned += 1
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            complete.append(tuple((float(at), found) for at, found in enumerate(curve)))
            study.tell(trial, curve[-1])
    assert 0 < pruned < 12
    assert not search_of(kind="optuna").hopeless(((0.0, 1.0), (1.0, 99.0)), complete), "nobody asked for pruning"


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"kind": "grid", "axes": {"optim.lrr": [0.1]}}, "unknown key 'optim.lrr'"),
        ({"kind": "refine", "parameter": "optim.rate"}, "unknown key 'optim.rate'"),
        ({"kind": "optuna", "space": {"optim.lr": [0.1], "model": ["pico", "nanno"]}}, "unknown choice 'nanno'"),
        ({"kind": "optuna", "space": {"model.layers": {"low": 0, "high": 2, "integer": True}}}, "model.layers"),
        ({"kind": "grid", "axes": {"train.rows": [4]}}, "which base or the command line sets too"),
    ],
)
def test_a_wrong_point_is_refused_before_anything_runs(tmp_path: Path, search: dict[str, Any], message: str) -> None:
    config = search_config(search)
    if "model.layers=1" in config.base:
        config = config.model_copy(update={"base": tuple(text for text in config.base if "model" not in text)})
    with pytest.raises((BadInput, ConfigError), match=message):
        Sweep.create(tmp_path / "sweep", config)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "space",
    [
        {"x": {"low": 1.0, "high": 0.5}},
        {"x": {"low": 0.0, "high": 1.0, "log": True}},
        {"x": {"low": 0.5, "high": 3.0, "integer": True}},
        {"x": []},
        {"x": [1, 1]},
        {},
    ],
)
def test_a_wrong_space_is_refused(space: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        search_of(kind="optuna", space=space)


def test_trials_are_run_directories_and_a_bad_one_ends_nothing(tmp_path: Path) -> None:
    config = search_config({"kind": "refine", "center": 0.04, "points": 4, "extensions": 1, "seeds_for_best": 2})
    sweep = Sweep.create(tmp_path / "sweep", config)
    assert [arm.name for arm in planned(config)] == ["lr-0.02", "lr-0.04", "lr-0.08", "lr-0.16"]
    said: list[str] = []
    failed = train_all(sweep, FAKE, say=said.append)
    assert list(failed) == ["lr-0.16-seed0"]
    # 0.02 is at the edge: 0.01 is added; then 0.02 is inside, with neighbours; then seeds.
    names = ["0.02", "0.04", "0.08", "0.16", "0.01", "0.0141", "0.0283"]
    assert trained(sweep) == [f"lr-{name}-seed0" for name in names] + ["lr-0.02-seed1", "lr-0.0283-seed1"]
    outcomes = sweep.outcomes()
    assert outcomes["lr-0.16", 0].state == "diverged"
    assert outcomes["lr-0.02", 1].value == expected_loss(0.02, 1)
    assert all((sweep.path / folder / "config.yaml").is_file() for folder in trained(sweep))
    assert "diverged: the gradient is not finite" in said[3]
    assert said[-1].startswith("9/9 lr-0.0283-seed1: done, l2r loss 3.035")
    train_all(Sweep.open(sweep.path), FAKE)
    assert len(trained(sweep)) == 9, "a sweep that has ended trains nothing again"


def test_every_arm_is_searched_by_itself(tmp_path: Path) -> None:
    arms = {"low": ["optim.vector_lr=0.001"], "high": ["optim.vector_lr=0.01"]}
    search = {"kind": "optuna", "trials": 2, "space": {"optim.lr": {"low": 0.01, "high": 0.05, "log": True}}}
    sweep = Sweep.create(tmp_path / "sweep", search_config(search, arms=arms))
    train_all(sweep, FAKE)
    assert sorted(trained(sweep)) == [f"{arm}-trial-00{number}-seed0" for arm in ("high", "low") for number in (0, 1)]
    assert [arm.config.optim.vector_lr for arm in sweep.arms] == [0.001, 0.001, 0.01, 0.01]
    assert json.loads((sweep.path / "log.jsonl").read_text().splitlines()[0])["outcome"] == "complete"


def test_a_search_says_what_its_metric_should_have_been_called(tmp_path: Path) -> None:
    from inlay.config import InlayError

    sweep = Sweep.create(tmp_path / "sweep", search_config({"kind": "refine", "points": 3}, metric="validation/loss"))
    with pytest.raises(InlayError, match=r"no 'validation/loss'.*it logged validation/l2r/loss"):
        train_all(sweep, FAKE)
