"""Parts of the comparison by themselves: which runs a path stands for, names, what differs, means of curves."""

import itertools
import re
from pathlib import Path

import pytest
import yaml
from tests.evaluate.report_runs import write_run
from tests.train.tiny_training import write_store

from inlay.config import BadInput
from inlay.evaluate.charts_overlay import BOTTOM, HEIGHT, TOP, Line, log_ticks, overlay
from inlay.evaluate.report import write_report
from inlay.evaluate.report_compare import compare
from inlay.evaluate.report_configs import split_keys
from inlay.evaluate.report_data import load_run
from inlay.evaluate.report_entries import distinct_names, letter, mean_curve
from inlay.evaluate.report_paths import find_runs
from inlay.text.store import TokenStore


def test_paths_may_be_checkpoints_and_folders(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for name in ("z-seed0", "z-seed1", "a-seed0", "a-seed1", "extra-10", "extra-2"):
        write_run(sweep / name, 2.0)
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({"arms": {"z": [], "a": []}, "seeds": [0, 1]}, sort_keys=False))
    names = [run.name for run in find_runs([sweep])]
    assert names == ["z-seed0", "z-seed1", "a-seed0", "a-seed1", "extra-2", "extra-10"]
    (sweep / "sweep.yaml").write_text("arms: 3")
    assert find_runs([sweep])[0].name == "a-seed0"
    run = sweep / "z-seed0"
    assert find_runs([run / "checkpoints" / "step-200", run / "checkpoints", run, f"{run}/"]) == [run]
    assert [found.name for found in find_runs([tmp_path])] == names[2:4] + names[4:] + names[:2]
    (tmp_path / "nothing").mkdir()
    for wrong, message in (
        (tmp_path / "nothing", "not a run"),
        (tmp_path / "no", "no run at"),
        (run / "tokenizer", "not a"),
    ):
        with pytest.raises(BadInput, match=message):
            find_runs([wrong])


def test_where_the_page_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write_run(tmp_path / "sweep" / name, 2.0, config={"x": name}) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    assert write_report([tmp_path / "sweep"]) == str(tmp_path / "sweep" / "report.html")
    assert write_report(runs) == "report.html"
    assert write_report([runs[0] / "checkpoints" / "step-200"]) == str(runs[0] / "report.html")
    assert "comparison" not in (runs[0] / "report.html").read_text()


def test_config_differences() -> None:
    differing, shared = split_keys(
        [
            {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": [{"x": 1}]},
            {"a": {"b": 2, "c": [1, 2]}, "e": [{"x": 2}, {"x": 3}]},
        ]
    )
    assert differing == [
        ("a.b", ["1", "2"]),
        ("d", ["null", "\N{EN DASH}"]),
        ("e.0.x", ["1", "2"]),
        ("e.1.x", ["\N{EN DASH}", "3"]),
    ]
    assert shared == [("a.c", "[1, 2]")]
    assert split_keys([{"a": {}}, {"a": {"b": 1}}])[0] == [("a.b", ["\N{EN DASH}", "1"])]


def test_names_and_letters() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
    paths = [Path("/x/one/run"), Path("/x/two/run"), Path("/x/three")]
    assert distinct_names(paths) == ["one/run", "two/run", "three"]


def test_the_mean_of_curves_is_over_what_all_cover() -> None:
    points, band = mean_curve([[(0.0, 4.0), (10.0, 2.0), (20.0, 1.0)], [(5.0, 5.0), (15.0, 3.0)]])
    assert points == [(5.0, 4.0), (10.0, 3.0), (15.0, 2.25)]
    assert band == [(5.0, 3.0, 5.0), (10.0, 2.0, 4.0), (15.0, 1.5, 3.0)]
    assert mean_curve([[(0.0, 1.0)], []]) == ([(0.0, 1.0)], [])
    assert mean_curve([[(0.0, 1.0), (1.0, 1.0)], [(2.0, 1.0), (3.0, 1.0)]]) == ([], [])


@pytest.mark.parametrize("end", [1.0, 5.5, 10.0])
def test_letters_of_lines_that_end_together_stay_apart_and_inside(end: float) -> None:
    span = Line("Z", "span", 12, [(0.0, 1.0), (5.0, 10.0), (9.0, 1.0), (10.0, end)], [])
    together = [Line(letter(n), "x", n, [(0.0, 5.0), (10.0, end)], []) for n in range(12)]
    chart = overlay("t", "tokens", "nats", [*together, span])
    assert chart is not None
    found = re.findall(r'class="letter[^"]*" x="[\d.]+" y="([\d.]+)">(\w)', chart.svg)
    heights = [float(y) for y, _ in found]
    assert sorted(name for _, name in found) == sorted(["Z", *map(letter, range(12))])
    assert min(b - a for a, b in itertools.pairwise(sorted(heights))) >= 12.9
    assert TOP <= min(heights) - 4.3 <= max(heights) - 4.3 <= HEIGHT - BOTTOM
    crowd = [Line(letter(n), "x", n, [(0.0, 5.0), (10.0, end)], []) for n in range(60)]
    crowded = overlay("t", "tokens", "nats", [*crowd, span])
    assert crowded is not None
    assert 'class="letter' not in crowded.svg, "no room: the legend has to do"


def test_bands_and_log_axes() -> None:
    points = [(0.0, 8.0), (1.0, 4.0), (10.0, 2.0), (100.0, 1.0)]
    line = Line("A", "a", 0, points, [(x, y / 2, y * 2) for x, y in points])
    chart = overlay("t", "tokens", "nats", [line], log=True)
    assert chart is not None
    path = re.search(r'<polyline[^>]*points="([^"]+)"', chart.svg)
    assert path is not None
    drawn = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
    assert len(drawn) == 3, "nothing at 0 on a logarithmic axis"
    assert drawn[1][0] - drawn[0][0] == pytest.approx(drawn[2][0] - drawn[1][0], abs=0.11), "a power of ten each"
    assert drawn[1][1] - drawn[0][1] == pytest.approx(drawn[2][1] - drawn[1][1], abs=0.11), "a halving each"
    assert "nan" not in chart.svg
    assert chart.svg.count("<polygon") == 1
    assert log_ticks(1.0, 1000.0) == [1, 3, 10, 30, 100, 300, 1000]
    assert log_ticks(2.0, 3.0) == [2.0, 2.25, 2.5, 2.75, 3.0], "a short range has no powers of ten"
    assert overlay("t", "tokens", "nats", [Line("A", "a", 0, [(0.0, 1.0)], [])]) is None


def test_a_mixture_has_its_main_store_and_named_sources(tmp_path: Path) -> None:
    code = write_store(tmp_path / "code", modules=6)
    sources = {
        "english": {"path": str(tmp_path / "none"), "content": "english"},
        "code": {"path": str(tmp_path / "code"), "content": "code"},
    }
    run = write_run(tmp_path / "r", 2.0, config={"data": {"path": None, "sources": sources}})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "tokens": 102400, "seconds": 100.0, "validation/english/l2r/loss": 3.0}\n')
    loaded = load_run(run)
    assert loaded.corpus is not None
    assert loaded.corpus["content_hash"] == TokenStore.open(code).manifest["content_hash"]
    assert compare([loaded]).kinds[-1] == ("english/l2r", "english: left to right")
    for odd in ({"data": None}, {"data": [1]}, {"data": {"sources": [1]}}):
        assert load_run(write_run(tmp_path / str(len(str(odd))), 2.0, config=odd)).corpus is None
