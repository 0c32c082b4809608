"""What a sweep over a learning rate says at its end: the curve of its runs, the plot, the transfer, and refusals."""

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tests.train.fake_runs import FAKE, SMALL, quick, search_config  # noqa: F401 (a fixture)

from inlay.cli.main import main
from inlay.config import BadInput
from inlay.train.study import measure
from inlay.train.study_page import write_pages
from inlay.train.study_plot import rates_svg
from inlay.train.study_rates import is_rate, read_rates
from inlay.train.study_words import rate_lines
from inlay.train.sweep import Sweep
from inlay.train.sweep_run import train_all
from inlay.train.transfer import TargetConfig

REFINE = {"kind": "refine", "center": 0.02, "points": 5, "refinements": 1, "seeds_for_best": 2}


def inlay(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Status, output and errors of a command line."""
    return main(words), *capsys.readouterr()


def swept(path: Path, search: dict[str, Any] | None, **options: Any) -> Sweep:
    options = {"measures": ["loss", "size"], **options}
    sweep = Sweep.create(path, search_config(search, **options))
    train_all(sweep, FAKE)
    return sweep


def test_a_curve_from_runs_to_page(tmp_path: Path) -> None:
    sweep = swept(tmp_path / "sweep", {**REFINE, "center": 0.04}, target={"model": "nano", "tokens": 10_000_000})
    result = measure(sweep, {})
    (curve,) = result["rates"]
    assert curve["refused"] is None
    assert [point["state"] for point in curve["points"]].count("diverged") == 1
    reading = curve["reading"]
    assert reading["vertex"] == pytest.approx(0.02, rel=0.02)
    assert reading["low"] < 0.02 < reading["high"]
    assert result["arms"][4]["diverged"] == [0]
    assert "not finite" in result["failed"]["lr-0.16-seed0"]
    paths = write_pages(sweep.path, result)
    assert [path.name for path in paths] == ["table.md", "curves.svg", "rates.svg", "sweep.html"]
    table = paths[0].read_text()
    found = curve["transfer"]
    assert found["proxy"]["tokens"] == 768
    assert found["target"]["tokens"] == 10_000_000
    by_option = {entry["option"]: entry for entry in found["quantities"]}
    assert by_option["optim.lr"]["proxy"] == reading["chosen"]
    assert f"optim.lr={by_option['optim.lr']['target']:.3g}" in table
    assert "x0.7, x1 and x1.4" in table
    assert "warning: " in table
    rows = found["target"]["tokens_per_step"] / 64
    assert rows == 2 ** round(rows).bit_length() / 2, "rows are a power of two"
    assert abs(found["target"]["tokens_per_step"] / found["batch_rule"] - 1) < 0.5
    page = paths[3].read_text()
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "<script" not in page
    assert json.loads((sweep.path / "result.json").read_text()) == result


def test_the_suggestion_is_one_that_train_and_sweep_accept(tmp_path: Path) -> None:
    from inlay.cli.sweep import read
    from inlay.config import validate
    from inlay.config.compose import compose
    from inlay.train.config import TrainRun
    from inlay.train.sweep import planned

    sweep = swept(tmp_path / "sweep", REFINE)
    (curve,) = read_rates(sweep, TargetConfig(model="mla-nano", batch=4096))
    found = curve["transfer"]
    run = validate(TrainRun, compose("train", [*found["overrides"], "data.path=none"]))
    assert run.train.tokens_per_step == 4096
    assert run.model.width == found["target"]["width"]
    assert run.train.tokens == found["target"]["tokens"]
    assert run.train.tokens / found["target"]["parameters"] == pytest.approx(
        768 / found["proxy"]["parameters"], rel=0.01
    )
    command = next(line for line in rate_lines(curve) if line.strip().startswith("inlay sweep"))
    words = shlex.split(command)[2:]
    arms = planned(read([text.replace("data.path=STORE", "data.path=none") for text in words], None))
    assert [arm.config.optim.lr / run.optim.lr for arm in arms] == pytest.approx([0.7, 1.0, 1.4], rel=0.01)


def test_the_plot_has_a_dot_a_seed_on_a_logarithmic_axis(tmp_path: Path) -> None:
    sweep = swept(tmp_path / "sweep", {"kind": "grid", "axes": {"optim.lr": [0.01, 0.02, 0.04, 0.2]}}, seeds=[0, 1])
    picture = rates_svg({"name": "s", "rates": read_rates(sweep, None)})
    assert picture is not None
    root = ET.fromstring(picture)
    space = {"s": "http://www.w3.org/2000/svg"}
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.findall(".//s:circle", space)][:-1]
    assert len(dots) == 6
    columns = sorted({x for x, _ in dots})
    assert columns[1] - columns[0] == pytest.approx(columns[2] - columns[1], abs=0.2), "factors of two are equal steps"
    assert len([mark for mark in root.findall(".//s:text", space) if mark.text == "✕"]) == 2  # one a seed
    heights = {x: min(y for at, y in dots if at == x) for x in columns}
    assert heights[columns[1]] == max(heights.values()), "the lowest loss is not the lowest dot"
    assert rates_svg({"name": "s", "rates": []}) is None


def test_uncooled_runs_are_refused(tmp_path: Path) -> None:
    grid = {"kind": "grid", "axes": {"optim.lr": [0.01, 0.02, 0.04]}}
    base = [*(text for text in SMALL if "schedule" not in text), "schedule=constant", "schedule.warmup_steps=2"]
    sweep = swept(tmp_path / "sweep", grid, base=base)
    (curve,) = read_rates(sweep, TargetConfig(model="nano"))
    assert "ends at 100% of its peak rate" in curve["refused"]
    assert (curve["reading"], curve["transfer"]) == (None, None)
    assert any("no rate is suggested" in line for line in rate_lines(curve))


def test_a_minimum_at_the_edge_is_refused_on_the_command_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = swept(tmp_path / "sweep", {"kind": "grid", "axes": {"optim.lr": [0.02, 0.04, 0.08]}})
    status, _, errors = inlay(capsys, "sweep", f"transfer={sweep.path}", "target.model=nano")
    assert (status, "has no result yet" in errors) == (2, True)
    measure(sweep, {})
    status, _, errors = inlay(capsys, "sweep", f"transfer={sweep.path}", "target.model=nano")
    assert status == 2
    assert "extend the grid to 0.01 and 0.005" in errors
    assert "the lowest rate 0.02 is the best" in (sweep.path / "table.md").read_text()


def test_the_command_line_transfers_a_finished_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = swept(tmp_path / "sweep", REFINE)
    measure(sweep, {})
    words = ["sweep", f"transfer={sweep.path}", "target.model=base-1b", "target.tokens=20000000000"]
    status, printed, errors = inlay(capsys, *words)
    assert status == 0, errors
    assert "transfer to base-1b" in printed
    assert "model=base-1b optim=muon" in printed
    assert "an extrapolation" in printed
    assert "transfer to base-1b" in (sweep.path / "table.md").read_text()
    for words, message in (
        (["target.modl=nano"], "did you mean 'target.model'"),
        (["target.model=nanno"], "did you mean"),
        (["target.model=nano", "seeds=[1]"], "not seeds=[1]"),
        (["target.model=nano", "target.arm=x"], "no curve is called 'x'"),
        ([], "takes target.model=PRESET"),
    ):
        status, _, errors = inlay(capsys, "sweep", f"transfer={sweep.path}", *words)
        assert (status, message in errors) == (2, True), errors


def test_curves_are_of_runs_that_are_equal_in_the_rest(tmp_path: Path) -> None:
    axes = {"optim.lr": [0.01, 0.02, 0.04], "model.layers": [1, 2]}
    base = [text for text in SMALL if "layers" not in text]
    sweep = swept(tmp_path / "sweep", {"kind": "grid", "axes": axes}, base=base, arms={"a": [], "b": ["fim.rate=0.1"]})
    curves = read_rates(sweep, TargetConfig(model="nano", arm="b model.layers=2"))
    assert [curve["arm"] for curve in curves] == [
        "a model.layers=1", "a model.layers=2", "b model.layers=1", "b model.layers=2",
    ]  # fmt: skip
    assert all(len(curve["points"]) == 3 for curve in curves)
    assert [curve["transfer"] is not None for curve in curves] == [False, False, False, True]


def test_only_learning_rates_have_a_curve(tmp_path: Path) -> None:
    assert [name for name in ("optim.lr", "optim.embedding_lr", "model.lr", "optim.weight_decay") if is_rate(name)] == [
        "optim.lr", "optim.embedding_lr",
    ]  # fmt: skip
    sweep = swept(tmp_path / "sweep", {"kind": "grid", "axes": {"optim.momentum": [0.9, 0.95]}})
    assert read_rates(sweep, None) == []
    with pytest.raises(BadInput, match="over no learning rate"):
        read_rates(sweep, TargetConfig(model="nano"))
