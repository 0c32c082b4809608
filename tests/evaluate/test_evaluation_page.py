import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluate.evaluation_results import ANSWERS, TITLES, item, items_of, result_of
from tests.evaluate.html_page import Page

from inlay.config import validate
from inlay.config.compose import apply_overrides, compose_choice
from inlay.evaluate.evaluation_answers import MOST_CHARACTERS, answers_view, choose
from inlay.evaluate.evaluation_command import command_of
from inlay.evaluate.evaluation_page import render_evaluation
from inlay.evaluate.evaluation_verdicts import BY_NAME, MARKS, failed, marks_of
from inlay.evaluate.report_paired import gaps_by_row, paired_difference
from inlay.evaluate.sandbox.program import Cause
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.summary import length_bucket
from inlay.evaluate.table import format_score
from inlay.evaluate.tasks.held_out import HeldOutConfig

Item = dict[str, Any]


def read(result: dict[str, Any], items: list[Item]) -> tuple[Page, str]:
    """The page and its text as it reads without JavaScript."""
    page = Page(render_evaluation(result, items))
    return page, " ".join(" ".join(page.texts).split())


def test_the_page_stands_alone_and_holds_every_score_without_scripts() -> None:
    items = items_of(40)
    result = result_of(items)
    text = render_evaluation(result, items)
    page, shown = read(result, items)
    assert page.addresses == [], "nothing is loaded, nothing is led to"
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"https?://", text)
    assert "prefers-color-scheme: dark" in text
    both = [result["metrics"][row] for row in ("psm", "spm")]
    table = {row[0].rstrip(" \N{UPWARDS ARROW}\N{DOWNWARDS ARROW}"): row[1:] for row in cells(text, 'id="scores"')}
    measured = [name for name, one in both[0].items() if one["value"] is not None and not name.endswith("_post")]
    assert len(measured) > 15
    for name in measured:
        assert table[TITLES[name][0]][::2] == [cell_text(name, scores[name]) for scores in both], name
    for name in measured:
        block = text[text.index(f'data-metric="{name}"') :]
        lines = {row[0]: row for row in cells(block, "slices")}
        for label, title in (("line", "whole line"), ("word", "one word"), ("block", "block")):
            slices = [result["slices"][row]["category"][label][name] for row in ("psm", "spm")]
            if slices[0]["value"] is not None:
                assert lines[title] == [title, str(slices[0]["n"]), *(cell_text(name, one) for one in slices)], name
    for word in ("whole line", "one word", "python", "javascript", "11–40 bytes", "between words", "PSM", "SPM"):
        assert word in shown
    for word in ("3f2a9c51d07e4b66", "77aa41b2c9", "bubblewrap 0.8", "torch 2.11.0", "temperature 0.0", "73 s"):
        assert word in shown, "all that is needed to get the same numbers"
    assert "inlay evaluate runs/demo --task humaneval_infilling" in shown
    assert "gold: 100 % of 40 answers" in shown
    assert "what passed means" in shown


def cell_text(name: str, one: dict[str, Any]) -> str:
    """A score as a cell of the page says it."""
    value, _, interval = format_score(name, one, share=TITLES[name][2]).partition(" (")
    return f"{value} {interval.rstrip(')')}".strip()


def cells(page: str, table: str) -> list[list[str]]:
    """The rows of the first table after `table`, as texts."""
    found = re.search(r"<table>(.*?)</table>", page[page.index(table) :], re.DOTALL)
    assert found is not None
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    found_cells = [re.findall(r"<t[dh].*?</t[dh]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub(r"<[^>]+>|&nbsp;", " ", cell).split()) for cell in row_cells] for row_cells in found_cells]


def test_orders_and_raw_and_post_stand_side_by_side() -> None:
    items = items_of(40)
    for one in items[40:]:
        one["measures"] |= {"passed": 1.0, "passed_post": 1.0}
    result = result_of(items)
    rows = cells(render_evaluation(result, items), 'id="scores"')
    assert rows[0] == ["score", "PSM", "SPM"]
    assert rows[1] == ["raw", "post", "raw", "post"]
    passed = next(row for row in rows if row[0].startswith("passed"))
    expected = [result["metrics"][row][name] for row in ("psm", "spm") for name in ("passed", "passed_post")]
    for cell, one in zip(passed[1:], expected, strict=True):
        assert cell.startswith(f"{100 * one['value']:.1f} %")
    assert passed[3].startswith("100.0 %")
    result["settings"]["post"] = "none: the raw text"
    rows = cells(render_evaluation(result, items), 'id="scores"')
    assert rows[0] == ["score", "PSM", "SPM"]
    assert "post" not in rows[1]


def test_gold_that_failed_stands_at_the_top_with_its_ids() -> None:
    items = items_of(20)
    result = result_of(items)
    result["gold"] |= {"exact": 0.9, "failures": [{"id": f"HumanEval/{n}", "reason": f"psm: {n}"} for n in range(3)]}
    _, shown = read(result, items)
    assert shown.index("not to be trusted") < shown.index("All scores")
    assert "HumanEval/2 psm: 2" in shown
    assert "gold: 100 %" not in shown
    assert "not the benchmark" in read(result_of(items, sample=True), items)[1]


def test_a_result_of_losses_alone_has_a_page() -> None:
    items = [one | {"measures": {"middle_bpb": 0.5}, "outcome": None, "post_outcome": None} for one in items_of(10)]
    page, shown = read(result_of(items), items)
    assert "0 of 20 answers failed" in shown
    data = json.loads(page.scripts[1])
    assert {one["failed"] for one in data["answers"]} == {None}


def test_the_answers_are_all_there_and_exactly_so() -> None:
    items = items_of(20)
    items.append(item(99, ("line", "python", "x" * (MOST_CHARACTERS + 7), "</script>\u2028\0", "eot"), "spm"))
    page, _ = read(result_of(items), items)
    assert page.tags.count("script") == 4
    data = json.loads(page.scripts[1])
    assert len(data["answers"]) == len(items)
    for one, shown in zip(items, data["answers"], strict=True):
        gold = "".join(text for kind, text in shown["diff"] if kind != 2)
        middle = "".join(text for kind, text in shown["diff"] if kind != 1)
        assert (gold, middle) == (one["gold"][:MOST_CHARACTERS], one["middle"])
        assert data["contexts"][shown["at"]] == [one["prefix"], one["suffix"]]
        assert shown["rows"] == [one["row"]]
        assert shown["length"] == length_bucket(len(one["gold"].encode()))
    assert data["answers"][-1]["more"] == [7, 0]
    assert len(data["contexts"]) < len(items), "what two rows share is held once"


def test_failures_come_first_when_not_all_have_room() -> None:
    items = items_of(50)
    verdicts = [failed(one) for one in items]
    failures = [at for at, one in enumerate(verdicts) if one]
    assert 10 < len(failures) < 60
    kept = choose(items, verdicts, 60)
    assert len(kept) == 60
    assert kept == sorted(kept)
    assert set(failures) <= set(kept)
    few = choose(items, verdicts, 10)
    assert set(few) <= set(failures)
    assert few != failures[:10], "not the first ones of the list"
    assert choose(items, verdicts, 10) == few
    # Whether an answer is kept depends on its own name: others that come or go do not change the order among the rest.
    fewer = [at for at in range(len(items)) if at % 7]
    among = choose([items[at] for at in fewer], [verdicts[at] for at in fewer], 10)
    kept_both = {fewer[at] for at in among}
    assert set(few) & set(fewer) <= kept_both
    assert choose(items, verdicts, 100) == list(range(100))
    unjudged = choose(items, [None if at < 5 else one for at, one in enumerate(verdicts)], len(failures) + 5)
    assert set(range(5)) <= set(unjudged), "what nothing judged comes before successes"


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "__defaults__", (12,))
    items = items_of(20)
    view = answers_view(result_of(items), items)
    failures = sum(failed(one) is True for one in items)
    assert (view["shown"], view["total"], view["failures"]) == (12, 40, failures)
    assert view["left_out"] == (failures - 12, 40 - failures)
    assert sum(view["left_out"]) + view["shown"] == view["total"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["wrong", "different", "valid"]),
        ({"middle": "    return total + 1\n"}, ["passed", "exact", "valid"]),
        ({"outcome": None, "measures": {"exact": 0.0, "exact_post": 1.0}}, ["exact_post", "different"]),
        ({"outcome": {"verdict": "unavailable", "cause": "unavailable"}, "measures": {}}, ["not_run"]),
        ({"outcome": {"verdict": "failed", "cause": "of a later version"}, "measures": {}}, ["error"]),
        ({"stopped": "deadline", "outcome": None, "measures": {}}, ["deadline"]),
        ({"stopped": "unknown", "outcome": None, "measures": {"stopped": None}}, []),
        ({"outcome": None, "measures": {"syntax_valid": 0.0, "indentation": 0.5}}, ["invalid", "indentation"]),
    ],
)
def test_marks(change: Item, expected: list[str]) -> None:
    category, language, gold, middle, stopped = ANSWERS[1]
    made = item(1, (category, language, gold, change.pop("middle", middle), stopped)) | change
    assert marks_of(made) == expected


def test_every_cause_has_a_mark() -> None:
    for cause in Cause.__args__:  # type: ignore[attr-defined]
        assert cause in BY_NAME or cause == "unavailable"
    passes_after = item(2, ANSWERS[2])
    assert marks_of(passes_after)[:2] == ["timeout", "passed_post"]
    assert failed(passes_after) is True, "the raw text is what counts"
    assert len(BY_NAME) == len(MARKS)


def test_an_answer_that_best_of_chose_counts_in_both_rows() -> None:
    items = [item(at // 2, ANSWERS[1], sample=at % 2, chosen=at % 2 == 1) for at in range(8)]
    facts = {"spm": {"order": "spm", "best_of": None}, "spm best of 2": {"order": "spm", "best_of": 2}}
    result = result_of(items)
    result["rows"] = {row: {"samples": 2, **one} for row, one in facts.items()}
    for part in ("metrics", "slices"):
        result[part]["spm best of 2"] = result[part]["spm"]
    data = answers_view(result, items)["data"]
    assert [one["rows"] for one in data["answers"]] == [["spm"], ["spm", "spm best of 2"]] * 4
    gaps = gaps_by_row(items, facts)
    assert {row: len(own) for row, own in gaps.items()} == {"spm": 4, "spm best of 2": 4}


def test_the_difference_of_two_rows_is_of_the_same_gaps() -> None:
    items = items_of(40)
    for one in items[40:]:
        one["measures"]["exact"] = 1.0
    rows = {"psm": {"order": "psm", "best_of": None}, "spm": {"order": "spm", "best_of": None}}
    gaps = gaps_by_row(items, rows)
    exact = sum(one["measures"]["exact"] for one in items[:40]) / 40
    found = paired_difference(gaps["spm"], gaps["psm"], "exact")
    assert found is not None
    assert found.value == pytest.approx(1.0 - exact)
    same = paired_difference(gaps["psm"], gaps["psm"], "exact")
    assert same is not None
    assert same.value == 0.0
    assert not same.clear
    some = {gap: one for gap, one in gaps["spm"].items() if not gap.endswith("0")}
    assert paired_difference(some, gaps["psm"], "exact") is None, "other gaps"
    elsewhere = {gap: one | {"doc": "other"} for gap, one in gaps["spm"].items()}
    assert paired_difference(elsewhere, gaps["psm"], "exact") is None, "of other documents"
    assert paired_difference(gaps["spm"], gaps["psm"], "no such metric") is None
    _, shown = read(result_of(items), items)
    assert f"SPM against PSM, gap by gap, in points: passed 0.0 ± 0.0 tie exact +{100 * (1 - exact):.1f} ±" in shown


def test_samples_of_a_gap_are_averaged_and_odd_lines_passed_over() -> None:
    items: list[Any] = [item(1, ANSWERS[1], sample=at) for at in range(4)]
    for at, one in enumerate(items):
        one["measures"] = {"exact": float(at == 0), "passed": None if at < 3 else 1.0, "empty": None}
    gaps = gaps_by_row([*items, {"id": 3}, {"measures": 1}], {})
    assert gaps["spm"]["line:1"] == {"doc": "d1", "measures": {"exact": 0.25, "passed": 1.0, "empty": None}}


def test_the_command_makes_the_same_options_again() -> None:
    """The tail of the command, read as the command line reads it, gives the task and decoding it was made from."""
    task = HeldOutConfig(seed=3, categories={"word": 5, "line": 7}, max_tokens=32)
    decoding = Decoding(temperature=0.2, samples=8, top_p=0.95)
    result = result_of(items_of(4), task="held_out")
    del result["settings"]["command"]
    result["settings"] |= {
        "task": task.to_dict(),
        "decoding_options": decoding.to_dict(),
        "limit": 9,
        "run": "my runs/a",
    }
    words = shlex.split(command_of(result))
    assert words[:7] == ["inlay", "evaluate", "my runs/a", "--task", "held_out", "--limit", "9"]
    own = [word for word in words[7:] if not word.startswith("decoding.")]
    assert validate(HeldOutConfig, apply_overrides(compose_choice("evaluate", "held_out"), own)) == task
    asked = apply_overrides({"decoding": GREEDY.to_dict()}, [word for word in words[7:] if word not in own])
    assert validate(Decoding, asked["decoding"]) == decoding
    result["settings"] |= {"task": HeldOutConfig().to_dict(), "decoding_options": GREEDY.to_dict(), "limit": None}
    assert command_of(result) == "inlay evaluate 'my runs/a' --task held_out"
    result["task"] = "a_task_of_later"
    assert yaml.safe_load(f"[{command_of(result).split()[-1].split('=')[1]}]") is not None


def test_a_page_of_hostile_settings_is_still_a_page(tmp_path: Path) -> None:
    items = items_of(4)
    result = result_of(items, task="</title><script>alert(1)</script>\0\ud800")
    result["settings"]["versions"] = {"<b>": "</dl>"}
    result["definitions"][0]["title"] = "<i>exact</i>"
    page, shown = read(result, items)
    assert page.tags.count("script") == 4
    assert "i" in page.tags, "the gauges"
    assert "<i>exact</i>" in shown
    assert "<b> </dl>" in shown
    (tmp_path / "page.html").write_text(render_evaluation(result, items), encoding="utf-8")
