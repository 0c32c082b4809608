"""Parts of the comparison by themselves: which runs a path stands for, names, what differs, means of curves."""

from pathlib import Path

import pytest
import yaml
from tests.evaluate.report_runs import write_run

from inlay.config import BadInput
from inlay.evaluate.report import write_report
from inlay.evaluate.report_configs import split_keys
from inlay.evaluate.report_entries import distinct_names, letter, mean_curve
from inlay.evaluate.report_paths import find_runs


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
