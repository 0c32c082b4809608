import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.evaluation_results import items_of, older_items, older_result, result_of, samples_of
from tests.evaluate.html_page import Page

from inlay.config import BadInput
from inlay.evaluate.charts import MOST_POINTS, Series, amount, line_chart, thin, ticks
from inlay.evaluate.evaluation_items import write
from inlay.evaluate.report import write_report
from inlay.evaluate.report_data import load_run
from inlay.evaluate.report_page import render_page
from inlay.evaluate.report_tasks import read_items

HOSTILE = "x = \"</script><script>alert(1)</script>\" # <b> & 'quote' {{ 7 * 7 }} \u2028"


def write_metrics(run: Path, count: int = 300) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        seen = {"step": step, "tokens": step * 4096, "seconds": step * 0.5}
        rows.append({**seen, "train/loss": 2 + 7 / step, "lr": 0.01})
        if step % 50 == 0:
            values = {
                f"validation/{kind}/{unit}": size + 3 / step
                for kind, size in (
                    ("l2r", 2.25),
                    ("spm", 2.2),
                    ("psm", 2.3),
                    ("spm_middle", 1.75),
                    ("psm_middle", 1.85),
                )
                for unit in ("loss", "bpb")
            }
            rows.append({**seen, **values})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(text + '{"step": 301, "tok', encoding="utf-8")


def write_samples(run: Path) -> None:
    about = {"doc": "d", "path": "<i>odd</i>.py", "category": "word", "order": "spm", "stopped": "eot"}
    gap = {"prefix": HOSTILE + "\nvalue = ", "suffix": "\n" + HOSTILE, "gold": "total"}
    lines = [
        {"step": step, **about, **gap, "middle": middle, "exact": middle == "total"}
        for step, middle in ((50, HOSTILE), (100, "total"))
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def full_run(run: Path) -> Path:
    write_metrics(run)
    write_samples(run)
    items = items_of(20, tested=False)
    write(run / "evaluations", result_of(items, task="held_out", samples=samples_of(items)), items)
    return run


def test_the_page_stands_alone_and_holds_the_numbers(full_run: Path) -> None:
    out = write_report([full_run])
    assert out == str(full_run / "report.html")
    text = Path(out).read_text(encoding="utf-8")
    page = Page(text)
    assert set(page.addresses) <= {"evaluations/held_out.html"}, "nothing may be loaded; a click may lead on"
    assert "link" not in page.tags
    assert "img" not in page.tags
    assert "@import" not in text
    assert "url(http" not in text
    assert set(re.findall(r"https?://[^\"'<\s]+", text)) <= {"http://www.w3.org/2000/svg"}, "only the name of SVG"
    assert re.search(r'name="viewport"', text)
    assert "prefers-color-scheme: dark" in text
    shown = " ".join("".join(page.texts).split())
    result = json.loads((full_run / "evaluations" / "held_out.json").read_text())
    for category in ("word", "block", "line"):
        value = result["slices"]["spm"]["category"][category]["middle_bpb"]["value"]
        assert f"{value:.2f}" in shown
    assert "1.23M tokens seen" in shown
    assert "2.5 min of training" in shown
    assert "one word" in shown
    assert "whole line" in shown
    assert "MIT 100%" in shown
    assert "2.260" in shown, "the last left-to-right loss"
    assert "sequence_length: 128" in shown, "the configuration"
    for sample in [sample for sample in result["samples"] if sample["order"] == "spm"][:3]:
        assert " ".join(sample["gold"].split()) in shown


def test_the_report_leads_to_the_page_of_the_evaluation(full_run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "my pages"
    for folder, address in (
        (full_run, "evaluations/held_out.html"),
        (elsewhere, "../run/evaluations/held_out.html"),
        (None, None),
    ):
        page = Page(render_page(load_run(full_run), folder))
        assert page.addresses == ([] if address is None else [address])
    assert (elsewhere / "../run/evaluations/held_out.html").resolve() == full_run / "evaluations" / "held_out.html"
    (full_run / "evaluations" / "held_out.html").unlink()
    assert Page(render_page(load_run(full_run), full_run)).addresses == [], "no page, no link"


def test_results_of_older_versions_still_read(full_run: Path) -> None:
    items = items_of(20, tested=False)
    folder = full_run / "evaluations"
    (folder / "held_out.json").write_text(json.dumps(older_result(result_of(items), samples_of(items))))
    (folder / "held_out.items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in older_items(items)))
    run = load_run(full_run)
    shown = " ".join("".join(Page(render_page(run)).texts).split())
    assert "20 gaps cut from 4 held-out files, decoding greedy, at most 64 tokens each." in shown
    assert "validation split (99 files)" in shown
    assert set(read_items(run, "held_out")) == {"psm", "spm"}
    assert "one word, exact" in shown


def test_a_result_without_exact_answers_still_has_a_report(full_run: Path) -> None:
    """A task of losses alone: nothing was written, so nothing is exact."""
    items = [one | {"measures": {"middle_bpb": one["measures"]["middle_bpb"]}} for one in items_of(20, tested=False)]
    write(full_run / "evaluations", result_of(items, task="held_out"), items)
    shown = " ".join("".join(Page(render_page(load_run(full_run))).texts).split())
    assert "bits/byte" in shown
    assert f"{result_of(items)['metrics']['spm']['middle_bpb']['value']:.2f}" in shown


def test_text_of_a_run_is_only_text(full_run: Path) -> None:
    (full_run / "evaluations" / "held_out.json").unlink()
    page = Page(Path(write_report([full_run])).read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2, "the data and the hover, nothing from the samples"
    shown = "".join(page.texts)
    assert HOSTILE in shown, "nothing is evaluated, dropped or changed"
    assert "<i>odd</i>.py" in shown
    assert "alert(1)" not in "".join(page.scripts)


def test_the_hover_data_are_the_curves(full_run: Path) -> None:
    page = Page(Path(write_report([full_run])).read_text(encoding="utf-8"))
    charts = json.loads(page.scripts[0])
    assert [series["name"] for series in charts[0]["series"]][:3] == ["left to right", "middle, SPM", "middle, PSM"]
    last = charts[0]["series"][0]["points"][-1]
    assert last == [300 * 4096, pytest.approx(2.26)]
    assert len(charts[0]["series"][0]["points"]) == 6


def test_a_bare_run_still_has_a_report(run: Path) -> None:
    shown = "".join(Page(Path(write_report([run])).read_text(encoding="utf-8")).texts)
    assert "No losses have been logged yet" in shown
    assert "No samples yet" in shown


def test_what_went_wrong_is_said_at_the_top(full_run: Path) -> None:
    lines = [
        {
            "step": 301,
            "tokens": 1,
            "seconds": 1.0,
            "warning": {"rule": "repeating_rows", "text": f"<b>row</b> {number}"},
        }
        for number in range(2)
    ]
    with (full_run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + "".join(json.dumps(line) + "\n" for line in lines))
        file.write('{"step": 302, "tokens": 1, "seconds": 1.0, "train/loss": NaN}\n')
        file.write('{"step": 303, "tokens": 1, "seconds": 1.0, "plan/total_steps": 400}\n')
    text = Path(write_report([full_run])).read_text(encoding="utf-8")
    shown = " ".join("".join(Page(text).texts).split())
    assert "repeating_rows (step 301), 2 times: <b>row</b> 0" in shown
    assert "train/loss is not a finite number at step 302" in shown
    assert "303 of 400 steps: not finished" in shown
    assert text.index("repeating_rows") < text.index("<h2>Learning")


def test_gold_that_failed_is_said_at_the_top(full_run: Path) -> None:
    file = full_run / "evaluations" / "held_out.json"
    result = json.loads(file.read_text())
    result["gold"].update(exact=0.5, failures=[{"id": "word:123", "reason": "text"}])
    file.write_text(json.dumps(result))
    text = Path(write_report([full_run])).read_text(encoding="utf-8")
    assert text.index("not to be trusted") < text.index("<h2>Learning")
    assert "gold answers score 100" not in text


def test_bad_input(tmp_path: Path, run: Path) -> None:
    with pytest.raises(BadInput, match="no run at"):
        write_report([tmp_path / "nothing"])
    with pytest.raises(BadInput, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(BadInput, match="at least one"):
        write_report([])


def test_chart_geometry() -> None:
    points = [(float(x), 4.0 - x / 50) for x in range(101)]
    chart = line_chart("a & b", "nats", [Series("x", points, 0)])
    assert chart is not None
    assert "a &amp; b" in chart.svg
    drawn = [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]+)"', chart.svg)[1].split()]  # type: ignore[index]
    assert len(drawn) == 101
    assert drawn == sorted(drawn), "a falling line goes right and down"
    data = chart.data
    for (x, y), (px, py) in zip(points, drawn, strict=True):
        assert px == pytest.approx(data["left"] + (data["right"] - data["left"]) * x / data["x"], abs=0.06)
        assert py == pytest.approx(
            data["top"] + (data["bottom"] - data["top"]) * (data["high"] - y) / (data["high"] - data["low"]), abs=0.06
        )
    assert line_chart("none", "nats", [Series("x", [(1.0, 2.0)], 0)]) is None
    flat = line_chart("flat", "nats", [Series("x", [(0.0, 2.0), (5.0, 2.0)], 0)])
    assert flat is not None
    assert "nan" not in flat.svg


def test_thinning_keeps_the_mean_and_the_last_point() -> None:
    points = [(float(x), float(x % 7)) for x in range(5000)]
    thinned = thin(points)
    assert len(thinned) <= MOST_POINTS
    assert thinned[-1] == points[-1]
    assert sum(y for _, y in thinned) / len(thinned) == pytest.approx(3.0, abs=0.1)


def test_numbers_for_people() -> None:
    assert [amount(n) for n in (0, 950, 12_000, 3_350_000, 4_259_840, 1_200_000_000, 125_000_000)] == [
        "0", "950", "12k", "3.35M", "4.26M", "1.2B", "125M",
    ]  # fmt: skip
    assert ticks(0.0, 1.0, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1.3, 2.9, 4) == [1.0, 1.5, 2.0, 2.5, 3.0]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_a_browser_shows_values_on_hover(full_run: Path, tmp_path: Path) -> None:
    text = Path(write_report([full_run])).read_text(encoding="utf-8")
    probe = """<script>
      const svg = document.querySelector("figure.chart svg"), box = svg.getBoundingClientRect();
      svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right, clientY: box.top + 20}));
    </script></body>"""
    page = tmp_path / "probe.html"
    page.write_text(text.replace("</body>", probe), encoding="utf-8")
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    tip = html.unescape(re.search(r'<div class="tip"(.*?)</div></div>', dom, re.DOTALL)[1])  # type: ignore[index]
    assert "1.23M tokens" in tip
    assert "2.260" in tip
    assert "left to right" in tip
