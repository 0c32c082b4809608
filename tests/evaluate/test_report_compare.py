"""The comparison of several runs: its numbers, what it refuses to compare, and what stands on the page."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.html_page import Page
from tests.evaluate.report_runs import HOSTILE, write_evaluation, write_run

from inlay.evaluate.report import report
from inlay.evaluate.report_compare import Comparison, compare
from inlay.evaluate.report_data import load_run
from inlay.evaluate.report_entries import letter
from inlay.evaluate.report_numbers import numbers, print_comparison


def compared(*runs: Path) -> Comparison:
    return compare([load_run(run, strict=False) for run in runs])


def page_of(tmp_path: Path, *runs: Path) -> tuple[str, Page, str]:
    """The page's text, its parts, and what it shows with spaces joined."""
    text = Path(report(runs, tmp_path / "page.html")[0]).read_text(encoding="utf-8")
    page = Page(text)
    return text, page, " ".join(" ".join(page.texts).split())


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_losses_and_differences_with_intervals(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 2.0), write_run(tmp_path / "b", 1.95, config={"optim": {"kind": "adamw"}})
    found = compared(first, second)
    assert [entry.letter for entry in found.entries] == ["A", "B"]
    assert [kind for kind, _ in found.kinds] == ["l2r", "spm_middle", "spm"]
    losses = found.losses["l2r"]["nats"]
    logged = load_run(second).last("validation/l2r/loss")
    assert losses["B"].value == logged
    assert losses["A"].difference is None
    own, against = losses["B"].interval, losses["B"].difference
    assert own is not None
    assert own.documents == 40
    assert own.low < losses["B"].value < own.high
    assert against is not None
    assert against.interval is not None
    assert against.interval.value == pytest.approx(against.value, abs=1e-9), "sums and log agree"
    assert against.value == pytest.approx(-0.05, abs=0.02)
    assert against.clear
    assert against.interval.half < 0.2 * own.half
    assert found.notices == []
    assert found.at_equal == {}, "the finals are at equal tokens and time already"


def test_seeds_are_one_entry(tmp_path: Path) -> None:
    losses = {("slow", 0): 2.2, ("slow", 1): 2.3, ("fast", 0): 2.0, ("fast", 1): 2.06}
    runs = [
        write_run(tmp_path / f"{arm}-seed{seed}", loss, seed=seed, config={"optim": {"kind": arm}})
        for (arm, seed), loss in losses.items()
    ]
    found = compared(*runs)
    assert [(entry.name, len(entry.runs)) for entry in found.entries] == [("slow", 2), ("fast", 2)]
    loss = found.losses["l2r"]["nats"]["B"]
    finals = [load_run(run).last("validation/l2r/loss") for run in runs]
    assert loss.seeds == tuple(finals[2:])
    assert loss.value == pytest.approx(sum(filter(None, finals[2:])) / 2)
    assert loss.difference is not None
    assert loss.difference.seeds == tuple(finals[at + 2] - finals[at] for at in range(2))  # type: ignore[operator]
    assert loss.difference.interval is not None
    assert loss.difference.interval.value == pytest.approx(loss.difference.value)
    assert ("seed", ["0, 1", "0, 1"]) not in found.differing
    assert dict(found.differing) == {"optim.kind": ["slow", "fast"]}
    assert chart_data(tmp_path, *runs)[0]["lines"][0][2][-1][1] == pytest.approx(
        sum(filter(None, (load_run(run).last("validation/l2r/bpb") for run in runs[:2]))) / 2, rel=1e-4
    )


def chart_data(tmp_path: Path, *runs: Path) -> list[dict[str, Any]]:
    return json.loads(page_of(tmp_path, *runs)[1].scripts[0])


def test_a_copy_is_not_another_seed(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / "run", 2.0) for name in ("x", "y")]
    assert [entry.name for entry in compared(*runs).entries] == ["x/run", "y/run"]


def test_a_seed_that_broke_off_is_not_in_the_mean(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "r-seed0", 2.0)
    broken = write_run(tmp_path / "r-seed1", 3.0, seed=1, steps=50)
    found = compared(whole, broken)
    assert found.losses["l2r"]["nats"]["A"].value == load_run(whole).last("validation/l2r/loss")
    assert any("r-seed1" in line and "not in the mean" in line for line in found.notices)
    assert "r-seed1 stopped at 50 of 200 steps" in page_of(tmp_path, whole, broken)[2].replace("r-seed1: ", "r-seed1 ")


def test_without_sums_there_is_no_interval_but_a_reason(tmp_path: Path) -> None:
    new, old = write_run(tmp_path / "new", 2.0), write_run(tmp_path / "old", 1.9, sums=False, config={"x": 1})
    found = compared(new, old)
    loss = found.losses["l2r"]["nats"]["B"]
    assert loss.interval is None
    assert loss.difference is not None, "the same store, tokenizer and settings of validation"
    assert (loss.difference.interval, loss.difference.clear) == (None, None)
    assert any("No intervals can be had for B (old): no readable validation.json" in line for line in found.notices)
    assert "(no interval)" in page_of(tmp_path, new, old)[2]


def test_sums_of_another_validation_are_not_taken(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", 2.0)
    record = json.loads((first / "validation.json").read_text())
    (first / "validation.json").write_text(json.dumps({**record, "step": 150}))
    assert "not of the last validation" in load_run(first).no_intervals
    record["kinds"]["l2r"]["nats"][0] += 100.0
    (first / "validation.json").write_text(json.dumps(record))
    assert "does not add up to the l2r loss" in load_run(first).no_intervals


@pytest.mark.parametrize(
    ("changes", "nats", "notice"),
    [
        ({"tokenizer": "two"}, False, "different tokenizers"),
        ({"store": "store-2", "asked": 1}, False, "different stores"),
        ({"asked": 1}, True, "not validated on the same rows"),
        ({"sums": False, "config": {"callbacks": {"v": {"kind": "validation", "rows": 9}}}}, True, "the same rows"),
    ],
)
def test_what_does_not_compare_is_not_compared(
    tmp_path: Path, changes: dict[str, Any], nats: bool, notice: str
) -> None:
    first = write_run(tmp_path / "a", 2.0)
    other = write_run(tmp_path / "b", 1.5, **{"config": {"x": 1}, **changes})
    found = compared(first, other)
    assert any(notice in line for line in found.notices), found.notices
    assert found.same_text is nats
    assert all(
        loss.difference is None for units in found.losses.values() for one in units.values() for loss in one.values()
    )
    text, _, shown = page_of(tmp_path, first, other)
    assert notice in shown
    assert ("does not compare between these runs" in shown) is not nats
    assert ('id="unit-nats"' in text) is nats
    assert "not comparable with" in shown


def test_runs_at_different_tokens_are_read_off_at_equal_ones(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a", 2.0)
    short = write_run(tmp_path / "b", 1.9, steps=100, config={"x": 1})
    found = compared(whole, short)
    assert any("different numbers of tokens" in line for line in found.notices)
    limit, values = found.at_equal["tokens"]
    assert limit == 100 * 512
    curve = dict(load_run(whole).curves["validation/l2r/bpb"])
    assert values["l2r"]["A"] == pytest.approx(curve[100 * 512.0])
    assert found.at_equal["seconds"][0] == 50.0
    assert "at equal tokens: 51.2k tokens" in page_of(tmp_path, whole, short)[2]


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_says_the_numbers(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"arm{n}", 2.0 - n / 20, config={"optim": {"lr": n / 100}}) for n in range(3)]
    text, page, shown = page_of(tmp_path, *runs)
    assert page.addresses == []
    assert not {"link", "img"} & set(page.tags)
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\"'<\s]+", text)) <= {"http://www.w3.org/2000/svg"}
    found = compared(*runs)
    for kind, _ in found.kinds:
        for unit in ("nats", "bits_per_byte"):
            for loss in found.losses[kind][unit].values():
                assert f"{loss.value:.3f}" in shown
                assert loss.interval is not None
                assert f"{loss.interval.low:.3f}\N{EN DASH}{loss.interval.high:.3f}" in shown
                if loss.difference is not None and loss.difference.interval is not None:
                    assert f"± {loss.difference.interval.half:.3f}" in shown
    best = found.losses["l2r"]["bits_per_byte"]["C"]
    assert f"arm2 {best.value:.3f} bits per byte" in shown
    assert "40 held-out documents" in shown
    assert "optim. lr 0.0 0.01 0.02" in shown
    assert "keys that all share" in shown
    assert "not logged by any of these runs: parameters, MFU, peak memory, K/V bytes per token" in shown
    assert "1,000" in shown, "tokens/s"


def test_every_kind_has_charts_against_tokens_and_time(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"arm{n}", 2.0 - n / 20, config={"optim": {"lr": n}}) for n in range(12)]
    text, page, _ = page_of(tmp_path, *runs)
    charts = json.loads(page.scripts[0])
    assert len(charts) == 3 * 2 * 2 * 2 + 2 * 2, "kinds x units x axes x scales, and training rows in nats"
    assert text.count('data-chart="') == len(charts)
    assert sorted(re.findall(r'data-chart="(\d+)"', text), key=int) == [str(n) for n in range(len(charts))]
    by_tokens, by_time = charts[0], charts[1]
    assert [line[0] for line in by_tokens["lines"]] == [letter(n) for n in range(12)]
    assert by_tokens["lines"][0][2][-1][0] == 200 * 512
    assert by_time["lines"][0][2][-1][0] == 100.0
    for chart in charts:
        if chart["log"]:
            assert all(x > 0 for line in chart["lines"] for x, _ in line[2])
    swatches = re.findall(r'<svg class="swatch".*?</svg>', text)
    assert len(set(swatches)) == 12, "twelve runs, twelve signs, told apart without colour"
    assert len({re.sub(r"c\d", "", one) for one in swatches}) == 12
    # Letters at the ends of lines do not touch.
    first_chart = re.search(r'<figure class="chart" data-chart="0">(.*?)</figure>', text, re.DOTALL)[1]  # type: ignore[index]
    heights = sorted(float(y) for y in re.findall(r'class="letter[^"]*" x="[\d.]+" y="([\d.]+)"', first_chart))
    assert len(heights) == 12
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12.9


def test_text_of_a_run_is_only_text(tmp_path: Path) -> None:
    hostile = "<script>alert(2)</script>"
    first = write_run(tmp_path / "a<b>&'", 2.0, config={"note": hostile, "<i>": HOSTILE}, middle=HOSTILE)
    second = write_run(tmp_path / 'x"onload="alert(3)', 2.0, config={"note": "plain"})
    with (first / "metrics.jsonl").open("a", encoding="utf-8") as file:
        warning = {"rule": "<b>rule</b>", "text": HOSTILE}
        file.write(json.dumps({"step": 200, "tokens": 102400, "seconds": 100.0, "warning": warning}) + "\n")
        values = {
            "validation/<img src=x onerror=alert(4)>/loss": 2.0,
            "validation/<img src=x onerror=alert(4)>/bpb": 1.0,
        }
        for step in (0, 200):
            file.write(json.dumps({"step": step, "tokens": step * 512, "seconds": float(step), **values}) + "\n")
    text, page, _ = page_of(tmp_path, first, second)
    assert page.tags.count("script") == 2
    assert not {"img", "b>", "i>"} & set(page.tags)
    shown = "".join(page.texts)
    assert HOSTILE in shown
    assert hostile in shown
    assert "<i>odd</i>0.py" in shown
    assert "alert" not in "".join(page.scripts)
    assert "onload=" not in re.sub(r"&[^;]+;", "", re.sub(r">[^<]*<", "><", text))


def test_the_same_gaps_side_by_side_in_the_order_of_the_list(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 2.0, config={"x": name}, middle=name) for name in ("one", "two")]
    runs.append(write_run(tmp_path / "three", 2.0, config={"x": 3}, samples=False))
    text, _, shown = page_of(tmp_path, *runs)
    section = text[text.index('id="samples"') :]
    gaps = re.findall(r'<span class="path">&lt;i&gt;odd&lt;/i&gt;(\d+)', section)
    assert gaps == [str(n) for n in range(8)], "the first eight, though only the twelfth is exact"
    assert shown.count("total_0") == 1, "gold once"
    for name in ("one", "two"):
        assert section.count(f"{name}@200") == 8
        assert section.count(f"{name}@100") == 8, "the earlier sampling, folded"
    assert shown.count("was not asked this gap") == 8
    assert shown.count("did not stop") == 2 * 2 * 4
    assert "A 1 of 12 exact, 6 stopped (step 200); B 1 of 12 exact" in shown


def test_evaluations_are_paired_by_gap(tmp_path: Path) -> None:
    first, second, third = (write_run(tmp_path / name, 2.0, config={"x": name}) for name in "abc")
    documents = [f"d{at // 5}" for at in range(100)]
    write_evaluation(first, [0.0] * 50 + [1.0] * 50, documents)
    write_evaluation(second, [0.0] * 40 + [1.0] * 60, documents)
    write_evaluation(third, [1.0] * 99, documents[:99])
    _, _, shown = page_of(tmp_path, first, second)
    assert "50.0 % 10\N{EN DASH}90" in shown
    assert re.search(r"\+10\.0 ± 1\d\.\d tie", shown), "two documents of twenty changed"
    _, _, shown = page_of(tmp_path, first, third)
    assert "were not asked the same gaps" in shown
    assert "+50" not in shown


def test_states_and_warnings_are_labelled(tmp_path: Path) -> None:
    fine = write_run(tmp_path / "fine", 2.0)
    broken = write_run(tmp_path / "broken", 2.0, steps=100, config={"x": 1})
    bad = write_run(tmp_path / "bad", 2.0, config={"x": 2})
    with (bad / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 200, "tokens": 102400, "seconds": 100.0, "train/gradient_norm": Infinity}\n')
        warning = {"rule": "impossible_loss", "text": "far under", "stops": True}
        file.write(json.dumps({"step": 180, "tokens": 9, "seconds": 1.0, "warning": warning}) + "\n")
    _, _, shown = page_of(tmp_path, fine, broken, bad)
    assert "stopped at 100 of 200 steps" in shown
    assert "not finite at step 200" in shown
    assert "C bad: impossible_loss (step 180), which ended the run: far under".replace(" ", "") in shown.replace(
        " ", ""
    )


def test_what_is_missing_or_damaged_does_not_stop_the_others(tmp_path: Path) -> None:
    fine = write_run(tmp_path / "fine", 2.0)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text("seed: 0\n")
    empty = write_run(tmp_path / "empty", 2.0, config={"x": 1})
    for name in ("metrics.jsonl", "samples.jsonl", "validation.json", "checkpoints/step-200/checkpoint.json"):
        (empty / name).write_text("")
    (empty / "config.yaml").write_text("")
    half = write_run(tmp_path / "half", 1.9, config={"x": 2})
    text = (half / "metrics.jsonl").read_text()
    (half / "metrics.jsonl").write_text(text + '{"step": 201, "tok\n[1]\nnull\n{"step": "x"}\n' + "[" * 5000 + "\n")
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "tokens": 102400, "seconds": 100.0, "huge": 1' + "0" * 400 + "}\n")
    _, _, shown = page_of(tmp_path, fine, bare, empty, half)
    assert "nothing logged" in shown
    assert "compared without its configuration" in shown
    found = compared(fine, bare, empty, half)
    assert set(found.losses["l2r"]["nats"]) == {"A", "D"}
    assert found.losses["l2r"]["nats"]["D"].difference is not None
    alone = page_of(tmp_path, bare, empty)[2]
    for sentence in ("has logged a validation", "No losses have been logged", "has been evaluated", "has samples"):
        assert sentence in alone


def test_long_metrics_are_thinned(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 2.0, config={"x": name}) for name in "ab"]
    with (runs[0] / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in range(201, 40_001):
            row = {
                "step": step,
                "tokens": step * 512,
                "seconds": step / 2,
                "train/loss": 2 + 5 / step,
                "padding": "x" * 150,
            }
            file.write(json.dumps(row) + "\n")
    assert (runs[0] / "metrics.jsonl").stat().st_size > 9e6
    text, page, _ = page_of(tmp_path, *runs)
    assert len(text) < 400_000
    line = next(chart for chart in json.loads(page.scripts[0])[-4:])["lines"][0][2]
    assert line[-1] == [40_000 * 512, pytest.approx(2 + 5 / 40_000, rel=1e-5)]


# ---- for machines, and the terminal ----------------------------------------------------------------------------------


def test_json_is_the_page_in_numbers(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 2.0), write_run(tmp_path / "b", 1.95, config={"optim": {"kind": "adamw"}})
    with (second / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "tokens": 102400, "seconds": 100.0, "train/loss": NaN, "system/mfu": 0.4}\n')
    write_evaluation(second, [float("nan"), 1.0], ["d0", "d1"])
    found = compared(first, second)
    plain = numbers(found)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    entry = plain["entries"][1]
    loss = found.losses["l2r"]["bits_per_byte"]["B"]
    assert loss.difference is not None
    assert loss.difference.interval is not None
    assert entry["losses"]["l2r"]["bits_per_byte"]["difference"] == {
        "value": loss.difference.value,
        "interval": {"low": loss.difference.interval.low, "high": loss.difference.interval.high, "documents": 40},
        "seeds": [],
        "clear": True,
    }
    assert entry["runs"][0]["mfu"] == 0.4
    assert entry["runs"][0]["nonfinite"] == {"step": 200, "name": "train/loss"}
    assert entry["runs"][0]["evaluations"]["held_out"]["metrics"]["spm"]["exact"]["value"] is None
    assert plain["config_differences"]["optim.kind"] == {"A": "muon", "B": "adamw"}
    assert (plain["reference"], plain["nats_compare"], plain["kinds"]) == ("A", True, ["l2r", "spm_middle", "spm"])


def test_the_terminal_has_a_short_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / "a[b]", 2.0), write_run(tmp_path / "c", 1.95, steps=100, config={"x": 1})]
    print_comparison(compared(*runs))
    shown = capsys.readouterr().out
    assert "a[b]" in shown
    assert "stopped at 100 of" in " ".join(shown.split())
    assert re.search(r"\N{MINUS SIGN}0\.0\d\d ± 0\.00\d", shown)
    assert max(map(len, shown.splitlines())) <= 80
