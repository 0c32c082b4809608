"""Stub answers whose every fault is known: gold, gold and more, cut short, empty, endless, copying (evaluation
reference, 8.2)."""

import math
from dataclasses import replace

import numpy as np
import pytest

from inlay.evaluate.metrics import METRICS, Judge, Scored, compiles, loops
from inlay.evaluate.summary import length_bucket, slices, split_words, summarise
from inlay.evaluate.task import Category, Example, SourceDocument
from inlay.infer.engine import Generation
from inlay.text.tokenizer import Tokenizer

TEXT = "def area(width, height):\n    result = width * height\n    return result\n"
GOLD = "width * height"


def example(
    text: str = TEXT, gold: str = GOLD, language: str | None = "python", category: Category = "tokens_1_4"
) -> Example:
    start = text.index(gold)
    document = SourceDocument(f"{hash(text)}", "area.py", language, text)
    return Example(document, category, start, start + len(gold), tokens=5)


def answer(text: str, stopped: str = "eot", tokens: int = 5, **more: object) -> Generation:
    return Generation(tuple(range(100, 100 + tokens)), text, stopped, (), 0.0, **more)  # type: ignore[arg-type]


def measures(generation: Generation, of: Example | None = None) -> dict[str, float | None]:
    scored = Judge(frozenset({7})).score(of or example(), generation)
    assert set(scored.measures) == {metric.name for metric in METRICS}
    return {name: None if m is None else m[0] / m[1] for name, m in scored.measures.items()}


def test_gold_is_perfect() -> None:
    found = measures(answer(GOLD))
    assert {name for name, value in found.items() if value == 1.0} == {
        "exact", "edit_similarity", "first_line", "syntax_valid", "stopped",
    }  # fmt: skip
    assert all(value in (0.0, 1.0, None) for value in found.values())


def test_gold_that_runs_on() -> None:
    found = measures(answer(GOLD + "\n    return result", tokens=9))
    assert found["exact"] == 0
    assert found["first_line"] == 1
    assert found["continued"] == 1
    assert found["overrun_tokens"] == 4
    assert found["suffix_copied"] == 1
    assert found["syntax_valid"] == 1
    assert found["edit_similarity"] == pytest.approx(len(GOLD) / len(GOLD + "\n    return result"))


def test_cut_short_and_empty() -> None:
    short = measures(answer("width *", tokens=2))
    assert short["underrun"] == 1
    assert short["syntax_valid"] == 0
    assert short["overrun_tokens"] == 0
    # Stopped by the budget it was not the model that ended it.
    assert measures(answer("width *", "limit", tokens=2))["underrun"] == 0
    empty = measures(answer("", tokens=0))
    assert empty["empty"] == 1
    assert empty["underrun"] == 1
    assert empty["syntax_valid"] == 0


def test_endless_text() -> None:
    found = measures(answer("width * width * width * width * ", "limit", tokens=64))
    assert found["looped"] == 1
    assert found["stopped"] == 0
    assert found["overrun_tokens"] == 59


@pytest.mark.parametrize(
    "generation",
    [
        answer(GOLD, "sentinel"),
        replace(answer(GOLD), ids=(5, 7)),
        answer(GOLD, invalid_bytes=1),
        answer(GOLD, dropped_bytes=2),
    ],
)
def test_leaks(generation: Generation) -> None:
    assert measures(generation)["leaked"] == 1


def test_a_character_cut_by_the_budget_is_no_leak() -> None:
    assert measures(answer(GOLD, "limit", dropped_bytes=2))["leaked"] == 0


def test_light_editing_is_seen_not_hidden() -> None:
    line = example(gold="    result = width * height\n")
    assert measures(answer("    result = width * height\n"), line)["exact"] == 1
    stripped = measures(answer("result = width * height"), line)
    assert stripped["exact"] == 0
    assert stripped["syntax_valid"] == 0


def test_validity_is_measured_only_for_python_that_is_clean() -> None:
    assert measures(answer("(((", tokens=1))["syntax_valid"] == 0
    assert measures(answer("((("), example(language="sql"))["syntax_valid"] is None
    assert measures(answer("((("), example(text=TEXT + "def (:\n"))["syntax_valid"] is None


def test_compiling_is_silent_and_never_raises(recwarn: pytest.WarningsRecorder) -> None:
    assert compiles('x = "\\d" is 1\n', "a.py")
    assert not compiles("return 1\n", "a.py")
    assert not compiles("x = '\0'\n", "a.py")
    assert not compiles("(" * 5000, "a.py")
    assert not compiles("x = " + "-" * 200_000 + "1", "a.py")
    assert not recwarn.list


def test_loops_is_periodicity_of_the_end() -> None:
    assert loops("start " + "abcd" * 3)
    assert loops("x, y, " * 9)
    assert not loops("abcdabcd")
    assert not loops("every word is another one here")
    assert not loops("")


def test_losses_are_ratios_of_sums() -> None:
    first = answer(GOLD, reference_logprobs=(-1.0, -3.0, -0.5))
    second = answer(GOLD, reference_logprobs=(-2.0, -0.25))
    judge = Judge(frozenset())
    scores = summarise([judge.score(example(), first), judge.score(example(), second)])
    assert scores["middle_nats"]["value"] == pytest.approx(6.0 / 3)
    assert scores["middle_bpb"]["value"] == pytest.approx(6.0 / math.log(2) / (2 * len(GOLD)))
    assert scores["terminator_nats"]["value"] == pytest.approx(0.375)


def many(shares: dict[str, list[bool]]) -> list[Scored]:
    """Right and wrong answers by document."""
    judge = Judge(frozenset())
    made = []
    for name, facts in shares.items():
        item = example(text=f"# {name}\n{TEXT}")
        made += [judge.score(item, answer(GOLD if fact else "height")) for fact in facts]
    return made


def test_the_interval_covers_documents_not_gaps() -> None:
    # 200 gaps in 4 documents that are each all right or all wrong: as uncertain as 4 draws, not as 200.
    clustered = summarise(many({"a": [True] * 50, "b": [True] * 50, "c": [False] * 50, "d": [False] * 50}))["exact"]
    spread = summarise(many({f"d{i}": [i % 2 == 0] for i in range(200)}))["exact"]
    assert clustered["value"] == spread["value"] == 0.5
    assert clustered["high"] - clustered["low"] > 0.7  # type: ignore[operator]
    # 200 independent halves: 1.96 * sqrt(.25 / 200) = 6.9 points each side.
    assert spread["high"] - spread["low"] == pytest.approx(2 * 0.0693, abs=0.02)  # type: ignore[operator]
    assert summarise(many({f"d{i}": [i % 2 == 0] for i in range(200)}))["exact"] == spread


def test_intervals_at_the_ends_are_not_empty() -> None:
    never = summarise(many({f"d{i}": [False] for i in range(40)}))["exact"]
    assert never["value"] == 0.0 == never["low"]
    assert never["high"] == pytest.approx(0.0876, abs=1e-3)
    assert summarise(many({"a": [True, False]}))["exact"]["low"] is None
    assert summarise([])["exact"] == {"value": None, "low": None, "high": None, "n": 0}


def test_slices_add_up() -> None:
    scored = many({f"d{i}": [i % 3 == 0] for i in range(30)})
    found = slices(scored)
    assert set(found) == {"category", "length", "cut"}
    for rule in found.values():
        assert sum(scores["exact"]["n"] or 0 for scores in rule.values()) == len(scored)
    assert found["length"]["5-8"]["exact"]["value"] == pytest.approx(1 / 3)


def test_buckets_and_split_words() -> None:
    assert [length_bucket(n) for n in (1, 4, 5, 33, 64, 65)] == ["1-4", "1-4", "5-8", "33-64", "33-64", "65+"]
    assert split_words("ab", "cd", "ef") == "both"
    assert split_words("ab ", "cd", "ef") == "right"
    assert split_words("ab", "c.", "ef") == "left"
    assert split_words("", "x", "") == split_words("(", "x", ")") == "neither"


def test_real_special_ids_are_known(tokenizer: Tokenizer) -> None:
    assert np.all([token < tokenizer.vocab_size for token in tokenizer.special.values()])
