"""The comparison in a real browser, as wide as a phone and as a desk: nothing sticks out, all of it is there.

How a page is opened and measured is in `tests.evaluate.browser`.
"""

import json
from pathlib import Path

import pytest
from tests.evaluate.browser import MISSING, probed
from tests.evaluate.report_runs import write_evaluation, write_run

from inlay.evaluate.report import report

pytestmark = pytest.mark.skipif(MISSING, reason="no Chromium on this machine")

PROBE = """
  const seen = (one) => { const box = one.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const shown = (where) => [...document.querySelectorAll(where)].filter(seen);
  const press = (id) => document.querySelector(`label[for="${id}"]`).click();
  const wide = [...document.querySelectorAll("main *")].filter((one) => {
    if (!seen(one) || one.closest(".wide, pre, svg, .pick, .tip")) return false;
    return one.getBoundingClientRect().right > innerWidth + 1;
  }).map((one) => one.outerHTML.slice(0, 90));
  const titles = () => shown("figure.chart svg").map((one) => one.getAttribute("aria-label"));
  const found = {
    width: innerWidth, scroll: document.documentElement.scrollWidth, wide,
    sections: shown("section").map((one) => one.id), headings: shown("h2").length,
    first: titles(), letters: shown("text.letter").length,
    small: shown("main *:not(svg *)").filter(
      (one) => one.children.length === 0 && one.textContent.trim() && parseFloat(getComputedStyle(one).fontSize) < 11.5
    ).map((one) => one.outerHTML.slice(0, 90)),
  };
  const figure = shown("figure.chart")[0], svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 40, clientY: box.top + 20}));
  found.tip = shown(".tip").map((one) => one.innerText);
  press("kind-1"); found.second = titles();
  press("scale-log");
  found.log = shown("figure.chart svg text.axis").filter((one) => one.textContent.includes("log scale")).length;
  press("unit-nats"); found.nats = titles();
  press("kind-0");
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  found.opened = document.documentElement.scrollWidth;
  return found;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with all that a page can hold: long names, seeds, warnings, an evaluation, samples."""
    folder = tmp_path_factory.mktemp("runs")
    long = "a-rather-long-name-of-an-arm-that-somebody-has-given-to-a-run-without-thinking-of-phones"
    runs = [write_run(folder / f"base-seed{seed}", 2.1 + seed / 50, seed=seed) for seed in range(2)]
    runs.append(write_run(folder / long, 2.0, steps=100, config={"optim": {"kind": "adamw", "text": "x" * 200}}))
    runs += [write_run(folder / f"arm{n}", 2.0 + n / 40, config={"optim": {"lr": n}}) for n in range(4)]
    for run in runs:
        write_evaluation(run, [0.0, 1.0] * 20, [f"d{at // 5}" for at in range(40)])
    with (runs[3] / "metrics.jsonl").open("a") as file:
        warning = {"rule": "impossible_loss", "text": "the training loss is " + "far under " * 30}
        file.write(json.dumps({"step": 200, "tokens": 102400, "seconds": 100.0, "warning": warning}) + "\n")
    return Path(report(runs, folder / "page.html")[0])


@pytest.mark.parametrize("width", [390, 1200])
def test_the_comparison_on_a_phone_and_on_a_desk(page: Path, tmp_path: Path, width: int) -> None:
    (found,) = probed(page.read_text(encoding="utf-8"), PROBE, tmp_path, width)
    assert found["errors"] == []
    assert found["width"] == width
    assert found["scroll"] <= width, "the body does not scroll sideways"
    assert found["opened"] <= width, "nor with everything unfolded"
    assert found["wide"] == []
    expected = ["runs", "losses", "learning", "evaluations", "samples", "configuration"]
    assert found["sections"] == expected
    assert found["headings"] == len(expected)
    assert found["small"] == [], "nothing is too small to read"
    assert found["first"] == [f"left to right, bits per byte against {axis}" for axis in ("tokens", "time")]
    assert found["letters"] == 12, "six entries in two charts"
    assert len(found["tip"]) == 1
    assert all(
        f"\n{letter}" in "\n" + found["tip"][0].replace("\t", "\n") or letter in found["tip"][0] for letter in "ABCDEF"
    )
    assert found["second"] == [f"middle, SPM, bits per byte against {axis}" for axis in ("tokens", "time")]
    assert found["log"] == 2
    assert found["nats"] == [f"middle, SPM, nats per token against {axis}" for axis in ("tokens", "time")]
