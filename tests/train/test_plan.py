"""The plan covers every step once, for any stages and budget; the table says what it says."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.train.tiny_training import MODEL, config, write_store

from inlay.cli.main import main
from inlay.config import BadInput, ConfigError, validate
from inlay.data.loader import Rows
from inlay.fim.transform import FimConfig
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.plan import TIMED_STEPS, UNPLANNED, Plan
from inlay.train.plan_table import WIDTH, compact, plan_dict, plan_line, plan_notice, plan_text, stage_uses

NOWHERE = Path("none")
SHORT_LONG = [
    {"name": "short", "share": 0.9},
    {"name": "long", "share": 0.1, "sequence_length": 512, "rows": 1, "rope_theta": 1e5},
]


def plan_of(stages: list[dict[str, Any]], **train: Any) -> Plan:
    return Plan(config(NOWHERE, stages=stages, train={"steps": None, **train}))


@st.composite
def runs(draw: st.DrawFn) -> TrainRun:
    """Runs with up to five stages, every budget and every schedule."""
    count = draw(st.integers(0, 5))
    weights = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    stages = []
    for index, weight in enumerate(weights):
        stage: dict[str, Any] = {"name": str(index), "share": weight / sum(weights)}
        for key, values in (
            ("sequence_length", st.sampled_from([32, 96, 128, 1024])),
            ("rows", st.integers(1, 9)),
            ("lr", st.sampled_from([1.0, 0.5])),
            ("rewarm_steps", st.integers(0, 6)),
        ):
            if draw(st.booleans()):
                stage[key] = draw(values)
        stages.append(stage)
    budget = draw(
        st.one_of(
            st.fixed_dictionaries({"steps": st.integers(max(1, count), 300)}),
            st.fixed_dictionaries({"tokens": st.integers(1, 300_000)}),
            st.just({"minutes": 1.0}),
        )
    )
    schedule = draw(
        st.one_of(
            st.fixed_dictionaries({"kind": st.just("cosine"), "floor": st.floats(0.0, 1.0)}),
            st.fixed_dictionaries({"kind": st.just("constant")}),
            st.fixed_dictionaries(
                {
                    "kind": st.just("wsd"),
                    "decay": st.floats(0.0, 1.0),
                    "floor": st.floats(0.0, 1.0),
                    "shape": st.sampled_from(["linear", "sqrt", "cosine"]),
                }
            ),
        )
    )
    warmup = draw(st.integers(0, 30))
    train = {"steps": None, **budget}
    return config(NOWHERE, stages=stages, schedule={**schedule, "warmup_steps": warmup}, train=train)


@given(run=runs(), total=st.integers(1, 400))
@settings(deadline=None)
def test_laws_of_every_plan(run: TrainRun, total: int) -> None:
    plan = Plan(run)
    if run.train.minutes is not None:
        assert plan.total_steps is None
        assert plan.stage(0) is plan.stage(UNPLANNED - 1) is plan.stages[0]
        assert plan.cooldown is None
        first = plan
        plan = plan.planned(total)
        steps = plan.total_steps
        assert steps is not None
        assert steps == max(total, TIMED_STEPS + len(plan.stages))
        # What is recorded makes the same plan again, and what was timed is of the first stage.
        assert vars(first.planned(steps)) == vars(plan)
        assert plan.stage(TIMED_STEPS).index == 0
    steps = plan.total_steps
    assert steps is not None
    assert vars(plan) == vars(Plan(run, steps))
    # Every step is in exactly one stage, and every stage has one.
    assert [stage.start for stage in plan.stages] == [0, *(stage.stop for stage in plan.stages[:-1])]
    assert plan.stages[-1].stop == steps
    assert all(stage.stop is not None and stage.start < stage.stop for stage in plan.stages)
    held = [plan.stage(step) for step in range(steps)]
    assert all(stage.start <= step < (stage.stop or 0) for step, stage in enumerate(held))
    # Tokens add up, step by step.
    done = 0
    for step, stage in enumerate(held):
        assert plan.tokens(step) == done
        done += stage.rows * stage.sequence_length
    assert plan.tokens(steps) == plan.tokens(steps + 5) == done
    sizes = [stage.tokens_per_step for stage in plan.stages]
    if run.train.steps is not None:
        assert steps == run.train.steps
    if run.train.tokens is not None:
        # Never less than asked; more only by a part of a step, or where a stage has its one step.
        assert done >= run.train.tokens
        alone = any(stage.start + 1 == stage.stop for stage in plan.stages)
        assert alone or done - run.train.tokens < sizes[-1]
    remaining = [plan.remaining(step) for step in range(steps + 1)]
    assert remaining[0] == 1.0
    assert remaining[-1] == 0.0
    assert all(later < earlier for earlier, later in pairwise(remaining))
    _check_rates(run, plan, steps)


def _check_rates(run: TrainRun, plan: Plan, steps: int) -> None:
    values = [plan.multiplier(step) for step in range(steps)]
    assert values == [plan.multiplier(step) for step in range(steps)]
    assert all(0.0 <= value <= 1.0 for value in values)
    # Without the stages' own factors there is one curve, that rises in warmup and never again.
    schedule = run.schedule
    curve = [schedule.multiplier(step, steps, plan.tokens) for step in range(steps)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(curve[schedule.warmup_steps :]))
    for step, value in enumerate(values):
        stage = plan.stage(step)
        warm = min(1.0, (step - stage.start + 1) / stage.rewarm_steps) if stage.rewarm_steps else 1.0
        assert value == pytest.approx(curve[step] * stage.lr * warm, abs=1e-12)
    # Continuous: over a border between stages without factors it falls no more than by what these tokens cost.
    if schedule.kind == "wsd" and schedule.shape == "linear" and schedule.decay > 0.0:
        span = max(1, plan.tokens(steps) - plan.tokens(schedule.warmup_steps)) * schedule.decay
        for step in range(schedule.warmup_steps + 1, steps):
            assert curve[step - 1] - curve[step] <= plan.stage(step - 1).tokens_per_step / span + 1e-9
    below = [step for step in range(schedule.warmup_steps, steps) if curve[step] < 1.0]
    if schedule.stable < 1.0 - 1e-9 and (schedule.kind == "cosine" or schedule.shape != "cosine"):
        # A cosine is so flat at its top that it rounds to the peak.
        assert plan.cooldown is None or plan.cooldown <= min(below, default=steps)
        assert all(curve[step] == 1.0 for step in range(schedule.warmup_steps, plan.cooldown or 0))
    if plan.cooldown is None:
        assert below == []


@given(
    shares=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    lengths=st.lists(st.sampled_from([64, 128, 4096]), min_size=4, max_size=4),
    tokens=st.integers(10_000_000, 10_000_000_000),
)
@settings(deadline=None)
def test_stages_have_their_shares_of_the_tokens(shares: list[int], lengths: list[int], tokens: int) -> None:
    """To a step on either side, whether tokens or steps are given."""
    stages = [
        {"name": str(index), "share": share / sum(shares), "sequence_length": length}
        for index, (share, length) in enumerate(zip(shares, lengths, strict=False))
    ]
    plan = plan_of(stages, tokens=tokens)
    assert plan.total_steps is not None
    again = plan_of(stages, steps=plan.total_steps)
    for made in (plan, again):
        sizes = [stage.tokens_per_step for stage in made.stages]
        whole = made.tokens(plan.total_steps)
        for stage in made.stages:
            found = made.tokens(stage.stop or 0) - made.tokens(stage.start)
            assert abs(found - stage.share * whole) <= 2.0 * max(sizes)
    # Half a step of the longest rows is many of the shortest.
    assert abs(plan.steps_of(tokens) - plan.total_steps) <= len(stages) * max(sizes) / min(sizes)


def test_plans_at_named_points() -> None:
    plan = plan_of(SHORT_LONG, tokens=1_000_000)
    short, long = plan.stages
    assert (short.start, short.stop, long.stop) == (0, 1758, 1954)  # 900,000 and 100,000 tokens by 512
    assert (short.sequence_length, short.rows, long.sequence_length, long.rows) == (128, 4, 512, 1)
    assert plan.stage(1757) is short
    assert plan.stage(1758) is long
    assert (plan.context(short), plan.context(long)) == (128, 512)
    # Four times the tokens a step: the cooldown goes by tokens, not by steps.
    stages = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "rows": 16}]
    plan = Plan(config(NOWHERE, stages=stages, train={"steps": 500}, schedule={"kind": "wsd", "warmup_steps": 0}))
    assert plan.stages[1].start == 400
    assert plan.multiplier(400) == pytest.approx(0.5 / 0.6)
    assert plan.multiplier(450) == pytest.approx(0.25 / 0.6)
    assert plan.cooldown == 321  # 40 % of the tokens are done after 320 steps: that step still has the peak
    # A run without stages is what it was.
    plain = Plan(config(NOWHERE))
    assert [(stage.name, stage.start, stage.stop) for stage in plain.stages] == [("all", 0, 20)]


def test_a_stage_takes_what_it_leaves_out_from_the_run_not_from_the_stage_before() -> None:
    stages = [
        {"name": "a", "share": 0.4, "sequence_length": 256, "rows": 2, "rope_theta": 5e4, "fim_rate": 0.1, "lr": 0.5},
        {"name": "b", "share": 0.6},
    ]
    run = config(NOWHERE, stages=stages, train={"sequence_length": 64})
    first, second = Plan(run).stages
    assert (first.sequence_length, first.rows, first.fim.rate, first.lr) == (256, 2, 0.1, 0.5)
    assert (second.sequence_length, second.rows, second.fim, second.lr) == (64, 4, run.fim, 1.0)
    assert second.model == run.model
    assert first.model.blocks["full"].mixer.rope_theta == 5e4


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"name": "a", "share": 0.9}, {"name": "b", "share": 0.05}],
            r"add up to 0\.95 \(a 0\.9, b 0\.05\).*1 together",
        ),
        ([{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}], "two stages are called 'a'"),
        ([{"name": "a", "share": 1.0, "rows": 3, "accumulation": 2}], "stage 'a': rows 3 is not a multiple"),
        ([{"name": "a", "share": 1.0, "length": 3}], "unknown key 'stages.0.length'"),
        ([{"name": "a", "share": 1.0, "lr": 1.5}], r"stages\.0\.lr"),
        ([{"name": "", "share": 1.0}], r"stages\.0\.name"),
        ([{"name": "a", "share": 1.0, "shares": {"code": 1.0}}], "stage 'a': shares of sources need several"),
    ],
)
def test_bad_stages_are_one_line(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(NOWHERE, stages=stages)
    assert "\n" not in str(caught.value)


def test_stages_that_do_not_fit_the_run() -> None:
    three = [{"name": name, "share": share} for name, share in (("a", 0.5), ("b", 0.25), ("c", 0.25))]
    with pytest.raises(ConfigError, match=r"train\.steps = 2 is too few for 3 stages"):
        config(NOWHERE, stages=three, train={"steps": 2})
    with pytest.raises(ConfigError, match=r"rows 3 is not a multiple of accumulation 2, which is train\.accumulation"):
        config(NOWHERE, stages=[{"name": "a", "share": 1.0, "rows": 3}], train={"accumulation": 2})
    horizon = {**MODEL, "horizon": {"weight": 0.1}}
    with pytest.raises(ConfigError, match=r"stage 'a': model\.horizon learns from middles"):
        config(NOWHERE, model=horizon, stages=[{"name": "a", "share": 1.0, "fim_rate": 0.0}])
    mla = {"kind": "mla", "heads": 2, "kv_rank": 16, "nope_size": 8, "rope_size": 8, "value_size": 16}
    conv = {"kind": "short_conv"}
    scaled = [{"name": "a", "share": 1.0, "rope_scaling": {"kind": "linear", "factor": 2.0}}]
    theta = [{"name": "a", "share": 1.0, "rope_theta": 1e5}]
    for mixer, stages, message in (
        (mla, scaled, "rope_scaling cannot change: block 'full' is mla"),
        (conv, theta, "rope_theta cannot change: no block of the model has a rotary embedding"),
    ):
        model = {**MODEL, "blocks": {"full": {**MODEL["blocks"]["full"], "mixer": mixer}}}
        with pytest.raises(ConfigError, match=message):
            config(NOWHERE, model=model, stages=stages)
    latent = {**MODEL, "blocks": {"full": {**MODEL["blocks"]["full"], "mixer": mla}}}
    assert Plan(config(NOWHERE, model=latent, stages=theta)).stages[0].model.blocks["full"].mixer.rope_theta == 1e5


# ---- the table -------------------------------------------------------------------------------------------------------

LONG_NAMES = [
    {"name": "a rather long name", "share": 0.5},
    {"name": "bigger", "share": 0.3, "rows": 64, "accumulation": 2, "lr": 0.5, "rewarm_steps": 10},
    {
        "name": "long",
        "share": 0.2,
        "sequence_length": 32768,
        "rope_theta": 1e6,
        "rope_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 512},
        "fim_rate": 0.5,
    },
]


def test_the_table_says_what_the_plan_does() -> None:
    run = config(NOWHERE, stages=SHORT_LONG, train={"steps": None, "tokens": 1_000_000})
    plan = Plan(run)
    text = plan_text(run, plan)
    assert text.splitlines()[0] == "plan: 1,954 steps, 1,000,448 tokens"
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("short", "long"))]
    assert rows[0][:5] == ["short", "0-1758", "900k", "128", "4"]
    assert rows[1][:5] == ["long", "1758-1954", "100k", "512", "1"]
    assert rows[0][5:] == ["25", "→", "100", "→", "17"]
    assert "wsd: warmup 4 steps, from step 785 on linear cooldown to 0 of the peak" in text
    assert plan.cooldown == 785
    assert "rotary embedding: short theta 10,000; long theta 100,000" in text
    assert "tokens a step differ" not in text
    found = plan_dict(run, plan)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found | {"total_steps": 1954}))
    assert [stage["tokens"] for stage in found["stages"]] == [900_096, 100_352]
    assert plan_line(plan) == "planned: 1,954 steps, 1.0M tokens: short to step 1,758, long to step 1,954"


@pytest.mark.parametrize("train", [{"tokens": 100_000_000_000}, {"minutes": 60.0}, {"steps": 90}])
@pytest.mark.parametrize("schedule", [{"kind": "wsd"}, {"kind": "cosine"}, {"kind": "constant", "warmup_steps": 0}])
def test_the_table_fits_eighty_columns(train: dict[str, Any], schedule: dict[str, Any]) -> None:
    run = config(NOWHERE, stages=LONG_NAMES, train={"steps": None, **train}, schedule=schedule)
    text = plan_text(run, Plan(run))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    assert "theta 1,000,000, llama3 x8 of 512" in " ".join(text.split())
    assert "micro-batches a step" in text
    if "minutes" in train:
        assert "after 9 timed steps of stage 'a rather long name'" in " ".join(text.split())
        assert plan_line(Plan(run)) == "the run is not planned yet"
        assert all(stage["start"] is None and stage["lr"] is None for stage in plan_dict(run, Plan(run))["stages"])
    if "tokens" in train:
        long = plan_dict(run, Plan(run))["stages"][-1]
        assert f"{long['start']}-{long['stop']}" in text


def test_the_table_says_how_often_the_data_is_read(store: Path) -> None:
    run = config(store, stages=SHORT_LONG, train={"steps": 100})
    plan = Plan(run)
    uses = stage_uses(run.data, plan)
    supply = TokenStore.open(store).split("train").token_count
    assert [use.stage for use in uses] == ["short", "long", None]
    assert [use.tokens for use in uses] == [90 * 512, 10 * 512, 100 * 512]
    assert uses[-1].epochs == pytest.approx(51_200 / supply)
    rows = run.data.open("train", run.fim, 128, 0)
    text = plan_text(run, plan, stage_uses(run.data, plan, rows))
    assert "the run" in text
    assert stage_uses(run.data, Plan(config(store, train={"steps": None, "minutes": 1.0}))) == []


def test_inspect_plan(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["inspect", "plan", "train.steps=100", "train.sequence_length=128", "train.rows=4"]
    stages = "stages=[{name: short, share: 0.9}, {name: long, share: 0.1, sequence_length: 512, rows: 1}]"
    assert main([*words, stages]) == 0
    assert "plan: 100 steps, 51,200 tokens" in capsys.readouterr().out
    assert main([*words, stages, f"data.path={store}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(stage["name"], stage["stop"]) for stage in found["stages"]] == [("short", 90), ("long", 100)]
    assert [use["stage"] for use in found["uses"]] == ["short", "long", None]
    # The configuration of a run is its plan.
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(store, stages=SHORT_LONG).to_dict()))
    assert main(["inspect", "plan", "--config", str(file)]) == 0
    assert "long" in capsys.readouterr().out
    assert main([*words, "stages=[{name: short, share: 0.9}]"]) == 2
    assert "the shares of the stages add up to 0.9" in capsys.readouterr().err


def test_rows_that_a_later_stage_cannot_have_show_before_the_run(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = "stages=[{name: a, share: 0.9}, {name: b, share: 0.1, sequence_length: 32}]"
    words = ["inspect", "plan", "train.steps=9", f"data.path={store}", "data.shortest_piece=30", stages]
    assert main(words) == 2
    assert "rows of 32 tokens take pieces of 1 to 24" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (99_949, "99.9k"),
        (99_950, "100k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (1.2e9, "1.2B"),
        (2.5e12, "2.5T"),
    ],
)
def test_counts_in_few_characters(count: float, shown: str) -> None:
    assert compact(count) == shown
    assert len(compact(count)) <= 6


def test_a_time_budget_becomes_steps_at_the_rate_of_its_first_stage() -> None:
    stages = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "rows": 16}]
    plan = plan_of(stages, minutes=1.0)
    # 1,000 steps of the first kind: half of their tokens, and the other half in a quarter of the steps.
    assert plan.steps_of(1000 * 512) == 625
    made = plan.planned(625)
    assert [(stage.start, stage.stop) for stage in made.stages] == [(0, 500), (500, 625)]
    assert made.tokens(625) == 512_000
    # A run that was resumed before it had a plan, with no time left: the steps that are done are of the first stage.
    late = plan.planned(20, trained=40)
    assert late.stage(39).index == 0
    assert vars(plan.planned(late.total_steps or 0)) == vars(late)
    assert math.isclose(plan.multiplier(5), 1.0)


def test_an_impossible_mixture_is_refused_with_the_table(store: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", first=500)
    sources = {
        "code": {"path": str(store), "max_epochs": None},
        "english": {"path": str(other), "content": "english", "max_epochs": 1.0},
    }
    run = validate(TrainRun, {**config(store).to_dict(), "data": {"sources": sources}})
    stages = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "shares": {"code": 0.2, "english": 0.8}}]
    long = {**run.to_dict(), "stages": stages, "train": {**run.train.to_dict(), "steps": 200}}
    many = validate(TrainRun, long)
    with pytest.raises(BadInput, match="the mixture cannot be had"):
        stage_uses(many.data, Plan(many))
    few = validate(TrainRun, {**long, "train": {**run.train.to_dict(), "steps": 4}})
    uses = stage_uses(few.data, Plan(few))
    assert [(use.stage, use.source) for use in uses] == [
        (stage, source) for stage in ("a", "b", None) for source in ("code", "english")
    ]
    assert uses[3].share == pytest.approx(0.8)
    assert "english" in plan_text(few, Plan(few), uses)


@pytest.mark.parametrize("stages", [(), ({"name": "one", "share": 0.5}, {"name": "two", "share": 0.5})])
def test_a_warmup_as_long_as_the_run_is_told(stages: tuple[dict[str, Any], ...]) -> None:
    for total, told in ((19, True), (20, True), (21, False)):
        made = config(NOWHERE, stages=stages, train={"steps": total}, schedule={"kind": "wsd", "warmup_steps": 20})
        shown = " ".join(plan_text(made, Plan(made)).split())
        assert (f"warmup 20 steps, and the run has {total}" in shown) == told
    # The steps of a time budget are found later, and told then.
    minutes = config(
        NOWHERE, stages=stages, train={"steps": None, "minutes": 1.0}, schedule={"kind": "wsd", "warmup_steps": 20}
    )
    assert "never fall;" not in plan_text(minutes, Plan(minutes))
    assert "never fall;" in " ".join(plan_text(minutes, Plan(minutes).planned(12)).split())


def test_a_store_without_syntax_is_told_where_syntax_is_to_be_cut(tmp_path: Path) -> None:
    store = str(write_store(tmp_path / "store"))
    for kind, told in (("ast_node", True), ("line", False)):
        fim = validate(FimConfig, {"spans": {"one": {"kind": kind}}})
        rows = Rows(store, "train", fim, 96, 0)
        assert bool(rows.notices) == told
        made = config(Path(store), train={"steps": 30})
        assert ("has no syntax" in " ".join(plan_notice(made, Plan(made), rows).split())) == told
