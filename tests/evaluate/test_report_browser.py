"""The comparison in a real browser, as wide as a phone and as a desk: nothing sticks out, all of it is there.

A probe at the end of the page measures it and sends what it found to the frame around it, which the browser prints. The
frame is there because a browser's own window does not get as narrow as a phone.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.report_runs import write_evaluation, write_run

from inlay.evaluate.report import report

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")

PROBE = """<script>
addEventListener("load", () => {
  const seen = (one) => { const box = one.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const shown = (where) => [...document.querySelectorAll(where)].filter(seen);
  const press = (id) => document.querySelector(`label[for="${id}"]`).click();
  const wide = [...document.querySelectorAll("main *")].filter((one) => {
    if (!seen(one) || one.closest(".wide, pre, svg, .pick, .tip")) return false;
    return one.getBoundingClientRect().right > innerWidth + 1;
  }).map((one) => one.outerHTML.slice(0, 90));
  const titles = () => shown("figure.chart svg").map((one) => one.getAttribute("aria-label"));
  const found = {
    width: innerWidth, scroll: document.documentElement.scrollWidth, wide, errors: window.failed,
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
  parent.postMessage(JSON.stringify(found), "*");
});
</script></body>"""
GUARD = """<script>
window.failed = [];
addEventListener("error", (event) => window.failed.push(String(event.message)));
console.error = (...words) => window.failed.push(words.join(" "));
</script><style>"""
FRAME = """<!doctype html><html><body style="margin:0">
<script>addEventListener("message", (event) => { document.body.dataset.found = event.data; });</script>
<iframe style="border:0;width:WIDTHpx;height:2000px" src="PAGE"></iframe></body></html>"""


def looked_at(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """What the probe found with the page `width` CSS pixels wide."""
    text = page.read_text(encoding="utf-8")
    assert text.count("<style>") == 1
    probed = folder / f"probed-{width}.html"
    probed.write_text(text.replace("<style>", GUARD, 1).replace("</body>", PROBE), encoding="utf-8")
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", probed.as_uri()))
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1300,2100", "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))  # type: ignore[index]


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
    found = looked_at(page, tmp_path, width)
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
