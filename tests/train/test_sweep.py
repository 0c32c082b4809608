"""Sweeps: what they plan, that a killed one goes on, that a failed run stops no other, and what their results say."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.train.fake_runs import TINY
from tests.train.tiny_training import assert_same, weights

from inlay.config import BadInput, ConfigError, validate
from inlay.config.compose import compose_choice
from inlay.train import study
from inlay.train.run import resume
from inlay.train.study_page import columns, markdown, print_result, rows, svg, write_pages
from inlay.train.study_rates import cooled_to
from inlay.train.sweep import Sweep, SweepConfig, is_complete, planned
from inlay.train.sweep_run import train_all
from inlay.train.transfer import COOLED

SMALL = (
    *TINY,
    "fim=characters",
    "callbacks.validation.evaluations=2",
    "callbacks.validation.rows=2",
    "callbacks.checkpoints.every_steps=2",
)
# Stands for `inlay train`: writes what the sweep reads, without torch. An arm's name says what happens to it.
TRAINER = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1].removeprefix("resume="))
with (run.parent / "order.txt").open("a") as file:
    file.write(f"{run.name} {os.getpid()}\\n")
if run.name.startswith("broken"):
    sys.exit("inlay: the disk is full")
if run.name.startswith("wild"):
    sys.exit("inlay: the gradient is not finite at step 3")
if run.name.startswith("slow") and not (run / "tried").exists():
    (run / "tried").touch()
    (run / "metrics.jsonl").write_text('{"step": 1, "tokens": 128}\\n')
    signal.signal(signal.SIGINT, lambda *_: ((run / "asked").touch(), sys.exit(130)))
    time.sleep(60)
folder = run / "checkpoints" / "step-6"
folder.mkdir(parents=True)
record = {"step": 6, "total_steps": 6, "complete": True, "model": {}, "vocab_size": 400, "hashes": {}}
(folder / "checkpoint.json").write_text(json.dumps(record))
"""
FAKE = [sys.executable, "-c", TRAINER]


def sweep_config(store: Path, arms: dict[str, list[str]], **options: Any) -> SweepConfig:
    base = [*SMALL, f"data.path={store}"]
    return validate(SweepConfig, {"name": "test", "base": base, "arms": arms, "seeds": [0], **options})


def order(sweep: Sweep) -> list[str]:
    return [line.split()[0] for line in (sweep.path / "order.txt").read_text().splitlines()]


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"{path} did not come")


def test_arms_times_seeds_in_order(store: Path) -> None:
    arms = planned(sweep_config(store, {"a": [], "b": ["model.width=256"]}, seeds=[3, 0]))
    assert [arm.folder for arm in arms] == ["a-seed3", "b-seed3", "a-seed0", "b-seed0"]
    assert [(arm.config.model.width, arm.config.seed) for arm in arms] == [(128, 3), (256, 3), (128, 0), (256, 0)]
    assert [arm.tokens for arm in arms] == [6 * 2 * 64] * 4
    base = [*(text for text in SMALL if "steps=6" not in text), "train.tokens=129", f"data.path={store}"]
    tokens = planned(sweep_config(store, {"a": []}, base=base))
    assert tokens[0].tokens == 256  # whole steps


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": ["model.laiers=2"]}, "arm 'a': unknown key 'model.laiers'"),
        ({"a": [], "b": ["model.layers=0"]}, "arm 'b'"),
        ({"a": ["train.rows=4"]}, "arm 'a' sets train.rows=4, which base or the command line sets too"),
    ],
)
def test_a_wrong_arm_is_named(store: Path, tmp_path: Path, arms: dict[str, list[str]], message: str) -> None:
    with pytest.raises((BadInput, ConfigError), match=re.escape(message)):
        Sweep.create(tmp_path / "sweep", sweep_config(store, arms))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    "wrong", [{"arms": {"../a": []}}, {"arms": {}}, {"seeds": [0, 0]}, {"seeds": []}, {"measures": ["taste"]}]
)
def test_a_wrong_sweep_is_refused(store: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        validate(SweepConfig, {"name": "test", "base": [], "arms": {"a": []}, "seeds": [0], **wrong})


def test_a_failed_run_stops_no_other_and_is_named(store: Path, tmp_path: Path) -> None:
    config = sweep_config(store, {"first": [], "broken": [], "wild": [], "last": []})
    sweep = Sweep.create(tmp_path / "sweep", config)
    said: list[str] = []
    reasons = {"broken-seed0": "the disk is full", "wild-seed0": "the gradient is not finite at step 3"}
    assert train_all(sweep, FAKE, say=said.append) == reasons
    assert order(sweep) == ["first-seed0", "broken-seed0", "wild-seed0", "last-seed0"]
    assert [is_complete(sweep.run(arm)) for arm in sweep.arms] == [True, False, False, True]
    assert "2/4 broken-seed0: failed: the disk is full" in said[1]
    assert "3/4 wild-seed0: diverged: the gradient is not finite" in said[2]
    assert [(entry["status"], entry["outcome"]) for entry in sweep.log()] == [
        (0, "complete"), (1, "failed"), (1, "diverged"), (0, "complete"),
    ]  # fmt: skip
    # Once more: what failed for another reason than its own options. What diverged would do so again.
    assert list(train_all(Sweep.open(sweep.path), FAKE)) == ["broken-seed0"]
    assert order(sweep)[4:] == ["broken-seed0"]


def test_it_refuses_what_is_there_and_what_is_not(store: Path, tmp_path: Path) -> None:
    config = sweep_config(store, {"a": []})
    Sweep.create(tmp_path / "sweep", config)
    with pytest.raises(BadInput, match=r"exists: go on with it \(resume="):
        Sweep.create(tmp_path / "sweep", config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(BadInput, match="is not empty"):
        Sweep.create(tmp_path / "other", config)
    with pytest.raises(BadInput, match="no sweep at"):
        Sweep.open(tmp_path / "other")
    assert Sweep.open(tmp_path / "sweep").config == config


DRIVER = """
import sys
from inlay.train.sweep import Sweep
from inlay.train.sweep_run import train_all
train_all(Sweep.open(sys.argv[1]), [sys.executable, "-c", sys.argv[2]])
"""


def test_a_signal_lets_the_run_save_itself_and_a_kill_is_survived(store: Path, tmp_path: Path) -> None:
    sweep = Sweep.create(tmp_path / "sweep", sweep_config(store, {"slow": [], "after": []}))
    tried = sweep.path / "slow-seed0" / "tried"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(sweep.path), TRAINER], stderr=subprocess.DEVNULL)
    wait_for(tried)
    time.sleep(0.2)
    with pytest.raises(BadInput, match="still at work"):
        train_all(sweep, FAKE)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(30) != 0
    assert (sweep.path / "slow-seed0" / "asked").exists(), "the run under way was not asked to stop"
    tried.unlink()

    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(sweep.path), TRAINER], stderr=subprocess.DEVNULL)
    wait_for(tried)
    driver.kill()
    driver.wait()
    child = int((sweep.path / "order.txt").read_text().splitlines()[-1].split()[1])
    with pytest.raises(BadInput, match="still at work"):  # its run lives on
        train_all(sweep, FAKE)
    os.kill(child, signal.SIGKILL)
    for _ in range(100):
        try:
            failed = train_all(sweep, FAKE)
            break
        except BadInput:
            time.sleep(0.05)
    assert failed == {}
    assert order(sweep) == ["slow-seed0"] * 3 + ["after-seed0"]


def test_a_sweep_of_real_runs_from_beginning_to_page(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this process: starting one a run would take longer than all runs do.
    monkeypatch.setattr(study, "ROUNDS", 2)
    measures = ["loss", "speed", "size", "decode"]
    arms = {"base": [], "wide": ["model.width=256"]}
    sweep = Sweep.create(tmp_path / "sweep", sweep_config(store, arms, seeds=[0, 1], measures=measures))
    for arm in sweep.arms[:3]:
        resume(str(sweep.run(arm)))
    result = study.measure(sweep, {"wide-seed1": "it was not trained"})
    assert json.loads((sweep.path / "result.json").read_text()) == result
    base, wide = result["arms"]
    assert [len(arm["runs"]) for arm in (base, wide)] == [2, 1]
    logged = [json.loads(line) for line in (sweep.path / "wide-seed0" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in logged if "validation/spm/loss" in line][-1]
    assert wide["runs"][0]["loss"] == {kind: last[f"validation/{kind}/loss"] for kind in ("l2r", "psm", "spm")}
    assert wide["runs"][0]["tokens"] == 6 * 2 * 64
    assert [x for x, _ in wide["runs"][0]["curves"]["l2r"]] == [0.0, 3 * 128.0, 6 * 128.0]
    assert wide["parameters"] > base["parameters"]
    assert base["cache_bytes"] == 2 * 2 * 64 * 2  # K and V of two heads of 64 in bf16, one layer
    for arm in (base, wide):
        assert 0 < arm["decode"]["low"] <= arm["decode"]["median"] <= arm["decode"]["high"]
    paths = write_pages(sweep.path, result)
    assert [path.name for path in paths] == ["table.md", "curves.svg", "sweep.html"]
    text = paths[0].read_text()
    assert "wide-seed1 failed: it was not trained" in text
    print_result(result)
    printed = capsys.readouterr().out
    assert f"{wide['runs'][0]['loss']['psm']:.3f}" in printed
    assert f"{wide['runs'][0]['loss']['psm']:.3f}" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stopped_sweep_gives_the_weights_of_one_that_was_not(store: Path, tmp_path: Path) -> None:
    config = sweep_config(store, {"base": [], "wide": ["model.width=192"]})
    sweep, straight = (Sweep.create(tmp_path / name, config) for name in ("stopped", "straight"))
    command = [sys.executable, "-m", "inlay", "sweep", f"resume={sweep.path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "INLAY_NO_REEXEC": "1"}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(sweep.path / "base-seed0" / "metrics.jsonl")
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    again = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-4:] == [
        str(sweep.path / name) for name in ("result.json", "table.md", "curves.svg", "sweep.html")
    ]
    for arm in straight.arms:
        resume(str(straight.run(arm)))
        assert_same(weights(sweep.run(arm).path, 6), weights(straight.run(arm).path, 6))


def test_a_sweep_from_other_weights_has_their_model(store: Path, tmp_path: Path) -> None:
    first = Sweep.create(tmp_path / "first", sweep_config(store, {"wide": ["model.width=192"]}))
    (arm,) = first.arms
    resume(str(first.run(arm)))
    begun = [f"start_from={first.run(arm)}"]
    sweep = Sweep.create(tmp_path / "sweep", sweep_config(store, {"slow": begun, "other": begun}))
    assert [found.config.model.width for found in sweep.arms] == [192, 192]
    resume(str(sweep.run(sweep.arms[0])))
    assert is_complete(sweep.run(sweep.arms[0]))
    # Its first loss, before any step, is the last one of the run whose weights it has.
    begun_with = study.load_run(sweep.path / "slow-seed0").curves["validation/l2r/loss"][0][1]
    ended_with = study.load_run(first.path / "wide-seed0").curves["validation/l2r/loss"][-1][1]
    assert begun_with == pytest.approx(ended_with, rel=1e-5)
    with pytest.raises(BadInput, match="nowhere"):
        Sweep.create(tmp_path / "none", sweep_config(store, {"a": [f"start_from={tmp_path / 'nowhere'}"]}))
    assert not (tmp_path / "none").exists()


def made_result() -> dict[str, Any]:
    """Two arms, two seeds, numbers that can be checked by hand."""

    def run(seed: int, shift: float, speed: float) -> dict[str, Any]:
        losses = {"l2r": 3.0 + shift, "psm": 4.0 + shift, "spm": 5.0 + shift}
        curve = [[0.0, 8.0], [500.0, 4.0 + shift], [1000.0, 3.0 + shift]]
        return {
            "seed": seed, "tokens": 1000, "seconds": 1.0, "load_before": 0.5, "loss": losses,
            "curves": {"l2r": curve}, "tokens_per_second": speed,
        }  # fmt: skip

    arms = [
        {"name": "base", "runs": [run(0, 0.0, 100.0), run(1, 0.2, 110.0)], "parameters": 10, "cache_bytes": 400.0},
        {"name": "new", "runs": [run(0, 0.05, 90.0), run(1, 0.27, 90.0)], "parameters": 12, "cache_bytes": 100.0},
        {"name": "lost", "runs": []},
    ]
    arms[0]["decode"] = {"median": 50.0, "low": 40.0, "high": 60.0}
    return {
        "name": "made", "reference": "base", "base": [], "seeds": [0, 1], "context": 256,
        "measures": ["loss", "speed", "size", "decode"], "arms": arms, "failed": {"lost-seed0": "no luck"},
        "machine": {"torch": "2", "device": "cpu", "cores": 2, "threads": 2},
    }  # fmt: skip


def test_the_table() -> None:
    result = made_result()
    table = [dict(zip(columns(result), cells, strict=True)) for cells in rows(result)]
    assert table[0]["l2r"] == "3.100 ±0.100"
    assert table[0]["l2r − base"] == ""
    assert table[1]["l2r − base"] == "+0.060 ±0.010"  # seed by seed: 0.05 and 0.07
    assert table[1]["train tokens/s"] == "90 ±0"
    assert table[1]["K/V bytes/token at 256"] == "100 (25%)"
    assert table[0]["decode tokens/s"] == "50 (40-60)"
    assert set(list(table[2].values())[1:]) == {""}
    lines = markdown(result).splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "load before a run 0.5 to 0.5" in markdown(result)
    assert lines[-1] == "lost-seed0 failed: no luck"


def test_the_printed_table_cuts_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = made_result()
    for arm in result["arms"][:2]:
        arm |= {
            "parameters": 2_019_168,
            "cache_bytes": 3072.0,
            "decode": {"median": 191.0, "low": 139.0, "high": 208.0},
        }
        for run in arm["runs"]:
            run["tokens_per_second"] *= 50.0
    result["arms"][1]["name"] = "mixattention"
    print_result(result)
    printed = capsys.readouterr().out
    assert printed.count("(139-208)") == 2
    for text in ("mixattention", "2.02M", "3,072", "5,250", "+0.060", "±0.010", "(100%)", "lost-seed0 failed: no luck"):
        assert text in printed


def test_the_plot() -> None:
    import xml.etree.ElementTree as ET

    picture = svg(made_result())
    assert picture is not None
    root = ET.fromstring(picture)
    space = {"s": "http://www.w3.org/2000/svg"}
    panels = root.findall("s:svg", space)
    assert len(panels) == 2
    for panel in panels:
        assert len(panel.findall(".//s:polyline", space)) == 2  # the arm without runs has no line
    assert "base 3.100" in picture
    assert "new 3.160" in picture
    flat = panels[1].findall(".//s:polyline", space)[0].attrib["points"].split()
    assert len({point.split(",")[1] for point in flat}) == 1, "the difference of the first arm to itself"
    result = made_result()
    result["arms"] = [{**arm, "runs": []} for arm in result["arms"]]
    assert svg(result) is None


@pytest.mark.parametrize("name", ["lr-proxy", "lr-adamw"])
def test_shipped_searches_are_of_cooled_runs_of_one_length(name: str) -> None:
    data = compose_choice("experiment", name)
    config = validate(SweepConfig, {**data, "base": [*data["base"], "data.path=none"]})
    arms = planned(config)
    assert len(arms) == 6
    assert {arm.tokens for arm in arms} == {819200}
    assert all(cooled_to(arm) <= COOLED for arm in arms)


def test_the_optimizer_study_differs_in_nothing_but_optimizer_and_schedule() -> None:
    data = compose_choice("experiment", "optimizers")
    some = {name: data["arms"][name] for name in ("adamw-0.003", "muon-0.02", "muon-0.02-constant", "muon-0.02-to-86")}
    base = [*data["base"], "data.path=none"]
    arms = planned(validate(SweepConfig, {**data, "arms": some, "seeds": [0], "base": base}))
    rest = [{**arm.config.to_dict(), "optim": None, "schedule": None} for arm in arms]
    assert rest == [rest[0]] * len(arms)
    assert [round(cooled_to(arm), 2) for arm in arms] == [0.1, 0.0, 1.0, 0.86]


@pytest.mark.parametrize("name", ["architecture", "architecture-0.69b"])
def test_shipped_experiments_plan(name: str) -> None:
    data = compose_choice("experiment", name)
    some = dict(list(data["arms"].items())[::4])
    config = validate(SweepConfig, {**data, "arms": some, "seeds": [0], "base": [*data["base"], "data.path=none"]})
    arms = planned(config)
    assert len({arm.tokens for arm in arms}) == 1, "arms are compared at equal tokens"
    assert len({arm.config.model.to_dict().__repr__() for arm in arms}) == len(arms)
