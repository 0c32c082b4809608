import io
from typing import Any

import pytest
from rich.console import Console
from tests.evaluate.evaluation_results import items_of, older_result, result_of, score

from inlay.evaluate.table import (
    category_title,
    format_score,
    gold_lines,
    main_metric,
    print_table,
    print_tables,
    row_title,
)


def shown(*results: dict[str, Any], width: int = 80, several: bool = False) -> str:
    """What the terminal says, without colours."""
    file = io.StringIO()
    console = Console(file=file, width=width)
    if several:
        print_tables(results, console)
    else:
        print_table(results[0], console)
    return file.getvalue()


def test_a_table_fits_eighty_characters_and_says_what_it_left_out() -> None:
    result = result_of(items_of(40))
    text = shown(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "nothing is cut"
    assert "no room here for: edit, post, overrun" in text
    wide = shown(result, width=140)
    assert "no room" not in wide
    for width in (40, 56, 64, 100):
        narrow = shown(result, width=width)
        assert max(map(len, narrow.splitlines())) <= width
        assert "55.0" in narrow, "the main score is always there"


def test_every_order_category_and_language_has_its_row() -> None:
    result = result_of(items_of(40))
    text = shown(result)
    assert text.count("order psm") == text.count("order spm") == 1
    for label, n in (("whole line", 16), ("one word", 16), ("block", 8), ("python", 24), ("javascript", 12)):
        assert text.count(f"{label} ") == 2
        assert f"{n}" in next(line for line in text.splitlines() if line.startswith(label))
    overall = next(line for line in text.splitlines() if line.startswith("all "))
    passed = result["metrics"]["psm"]["passed"]["value"]
    assert overall.split()[:3] == ["all", "40", f"{100 * passed:.1f}"]
    alone = result_of([one for one in items_of(40) if one["language"] == "python"])
    assert "python" not in shown(alone), "one language needs no row of its own"
    assert "gaps by language: 67% python, 33% javascript\n" in text


def test_raw_and_post_stand_side_by_side_only_where_there_is_a_rule() -> None:
    result = result_of(items_of(40, tested=False))
    head = [line for line in shown(result).splitlines() if ("exact" in line and "edit" in line) or "post" in line]
    assert any("post" in line for line in head)
    result["settings"]["post"] = "none: the raw text"
    assert "post" not in shown(result)


def test_the_main_score_is_what_the_task_is_about() -> None:
    tested, untested = result_of(items_of(20)), result_of(items_of(20, tested=False))
    assert main_metric(tested) == "passed"
    assert main_metric(untested) == "exact"
    losses = [one | {"measures": {"middle_bpb": 0.5}} for one in items_of(20)]
    assert main_metric(result_of(losses)) == "middle_bpb"
    own = [one | {"measures": {"middle_bpb": 0.5, "matched": 1.0}} for one in items_of(20)]
    assert main_metric(result_of(own)) == "matched"
    assert "API" in shown(result_of(own)), "the task's own title"
    assert "0.50" in shown(result_of(losses))


def test_gold_comes_first() -> None:
    result = result_of(items_of(20))
    lines = shown(result, width=200).splitlines()
    assert lines[2].startswith("gold: 100 % of 20 answers came back exact and valid, and passed their tests")
    result["gold"] |= {
        "exact": 0.9996, "passed": 0.5, "failures": [{"id": f"x[red]{n}\x1b[2J", "reason": "syntax"} for n in range(7)],
    }  # fmt: skip
    lines = shown(result, width=400).splitlines()
    assert "Only 99.9 % of the gold answers came back exact" in lines[2], "never rounded up to 100"
    assert "50.0 % passed" in lines[2]
    assert "not to be trusted (7 examples, such as x[red]0" in lines[2]
    assert "\x1b" not in "".join(lines), "an id moves no cursor"
    assert "gold: 100 %" not in "".join(lines)
    assert gold_lines({"exact": 1.0, "failures": []}) == []


def test_what_a_reader_must_know() -> None:
    result = result_of(items_of(20), sample=True, of=1033)
    result["settings"]["sandbox"] = "subprocess (unsafe)"
    result["gold"]["unavailable"] = {"csharp": 12, "java": 3}
    result["not_finite"] = ["metrics.spm.middle_bpb.value"]
    text = shown(result, width=200)
    assert "20 of 1,033 gaps in 4 documents" in text
    assert "Only the shipped sample of 20, not the benchmark" in text
    assert "subprocess (unsafe)" in text
    assert "csharp (12), java (3)" in text
    assert "metrics.spm.middle_bpb.value" in text
    plain = shown(result_of(items_of(20)), width=200)
    for word in ("sample", "unsafe", "toolchain", "finite"):
        assert word not in plain


def test_best_of_and_samples_are_named() -> None:
    items = items_of(20, ("spm", "spm best of 8"))
    result = result_of(items)
    result["rows"]["spm"]["samples"] = 8
    result["rows"]["spm best of 8"] |= {"order": "spm", "best_of": 8}
    text = shown(result, width=120)
    assert "order spm, mean of 8 samples" in text
    assert "order spm best of 8; shares" in text
    assert row_title(result, "spm best of 8") == "SPM, best of 8"
    given = result_of(items_of(20, ("given",)))
    assert row_title(given, "given") == "as given"
    assert "given; shares" in shown(given)


def test_several_tasks_end_in_a_summary() -> None:
    first = result_of(items_of(20))
    second = result_of(items_of(10, ("spm",), tested=False), task="safim", sample=True)
    text = shown(first, second, several=True)
    assert max(map(len, text.splitlines())) <= 80
    summary = text[text.index("all tasks") :]
    assert summary.count("humaneval_infilling") == 2
    assert "safim-sample" in summary
    assert "passed" in summary
    assert "exact" in summary
    assert "all tasks" not in shown(first, several=True)


def test_results_of_older_versions_still_print() -> None:
    items = items_of(20, tested=False)
    text = shown(older_result(result_of(items), []))
    for word in ("runs/demo, step 1,200", "order psm", "order spm", "one word", "whole line", "valid", "bits/B"):
        assert word in text


def test_hostile_names_are_only_text() -> None:
    items = [one | {"category": "[bold]x\x1b[31m\n" * 20, "language": None} for one in items_of(4)]
    text = shown(result_of(items))
    assert "[bold]x" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "values", "share", "expected"),
    [
        ("exact", [1.0, 0.0], None, "50.0 % (40–60)"),
        ("middle_bpb", [0.5], None, "0.50 (0.40–0.60)"),
        ("perplexity", [12345.6], None, "12,346 (12,346–12,346)"),
        ("matched", [1.0, 0.0], True, "50.0 % (40–60)"),
        ("exact", [], None, "–"),
    ],
)
def test_scores_as_people_read_them(name: str, values: list[float], share: bool | None, expected: str) -> None:
    assert format_score(name, score(values, name != "perplexity"), share=share) == expected


def test_titles_of_categories() -> None:
    assert category_title("tokens_5_8") == "5–8 tokens"
    assert category_title("tokens_of_a_kind_here") == "tokens_of_a_kind_here"
