"""Scores and intervals against a plain resampler, and the laws of slices."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.metrics_stub import answered, example

from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.scored import Scored
from inlay.evaluate.summary import RESAMPLES, length_bucket, slices, split_words, summarise
from inlay.fim.draws import Draws

SHARE = Metric("fact", "fact", "a fact", "high")
RATIO = Metric("loss", "loss", "a loss", "low", share=False)
METRICS = (SHARE, RATIO)
NOTHING = {"value": None, "low": None, "high": None, "n": 0}


def scored(group: str, name: str, fact: bool | None, loss: Measure | None = None, **more: str) -> Scored:
    asked = replace(example(name=name, group=group), **more)  # type: ignore[arg-type]
    return Scored(answered("x", asked), {"fact": None if fact is None else (float(fact), 1.0), "loss": loss})


def facts(by_group: dict[str, list[bool]]) -> list[Scored]:
    return [scored(group, f"{group}{at}", fact) for group, found in by_group.items() for at, fact in enumerate(found)]


def witness(items: list[Scored], name: str, seed: int = 0) -> tuple[float, float, float]:
    """Draws groups one by one from the same counts, sums plain lists, and sorts."""
    groups = sorted({item.example.group for item in items})
    generator = np.random.Generator(np.random.Philox(key=Draws(seed, "bootstrap").bits()))
    drawn = generator.multinomial(len(groups), [1 / len(groups)] * len(groups), size=RESAMPLES)
    ratios = []
    for counts in drawn:
        top = bottom = 0.0
        for group, count in zip(groups, counts, strict=True):
            for item in items:
                measure = item.measures[name]
                if item.example.group == group and measure is not None:
                    top += count * measure[0]
                    bottom += count * measure[1]
        if bottom:
            ratios.append(top / bottom)
    measures = [item.measures[name] for item in items]
    value = sum(m[0] for m in measures if m) / sum(m[1] for m in measures if m)
    return value, float(np.percentile(ratios, 2.5)), float(np.percentile(ratios, 97.5))


def test_scores_equal_a_plain_resampler() -> None:
    draw = random.Random(3)
    items = [
        scored(f"g{draw.randrange(6)}", str(at), draw.random() < 0.4, (draw.random() * 9, draw.randrange(1, 9)))
        for at in range(24)
    ]
    # Some are not measured, so that a resample may draw none of what was.
    items = [replace(one, measures={**one.measures, "loss": None}) if at % 3 else one for at, one in enumerate(items)]
    found = summarise(items, METRICS)
    for name in ("fact", "loss"):
        assert (found[name]["value"], found[name]["low"], found[name]["high"]) == pytest.approx(witness(items, name))
    assert (found["fact"]["n"], found["loss"]["n"]) == (24, 8)


def test_the_interval_covers_groups_not_gaps() -> None:
    # 200 gaps in 4 groups that are each all right or all wrong: as uncertain as 4 draws, not as 200.
    clustered = summarise(facts({"a": [True] * 50, "b": [True] * 50, "c": [False] * 50, "d": [False] * 50}), METRICS)
    spread = summarise(facts({f"d{i}": [i % 2 == 0] for i in range(200)}), METRICS)
    assert clustered["fact"]["value"] == spread["fact"]["value"] == 0.5
    assert clustered["fact"]["high"] - clustered["fact"]["low"] > 0.7  # type: ignore[operator]
    # 200 independent halves: 1.96 * sqrt(.25 / 200) = 6.9 points each side.
    width = spread["fact"]["high"] - spread["fact"]["low"]  # type: ignore[operator]
    assert width == pytest.approx(2 * 0.0693, abs=0.02)


def test_intervals_at_the_ends_are_not_empty() -> None:
    never = summarise(facts({f"d{i}": [False] for i in range(40)}), METRICS)["fact"]
    assert never["value"] == 0.0 == never["low"]
    # Wilson's bound for 0 of 40.
    assert never["high"] == pytest.approx(1.959964**2 / (40 + 1.959964**2))
    always = summarise(facts({f"d{i}": [True] for i in range(40)}), METRICS)["fact"]
    assert (always["low"], always["high"]) == pytest.approx((1 - never["high"], 1.0))  # type: ignore[operator]
    assert summarise(facts({"a": [True, False]}), METRICS)["fact"]["low"] is None
    assert summarise([], METRICS)["fact"] == NOTHING
    assert slices([], METRICS) == {"category": {}, "language": {}, "length": {}, "cut": {}}


def test_several_samples_are_one_example() -> None:
    one = [scored("a", "a", fact) for fact in (True, False, False, False)]
    other = [scored("b", "b", True)] * 4
    found = summarise([*one, *other], METRICS)["fact"]
    assert (found["value"], found["n"]) == (0.625, 2)
    # The interval is that of two examples that score a quarter and one.
    once = summarise([scored("a", "a", None, (0.25, 1.0)), scored("b", "b", None, (1.0, 1.0))], METRICS)["loss"]
    assert (found["low"], found["high"]) == (once["low"], once["high"])


def test_scores_do_not_depend_on_the_order_of_answers() -> None:
    items = [scored(f"g{at % 5}", str(at), at % 3 == 0, (at / 7, 1.0 + at % 4)) for at in range(40)]
    shuffled = random.Random(1).sample(items, len(items))
    for name, score in summarise(items, METRICS).items():
        assert summarise(shuffled, METRICS)[name] == pytest.approx(score)


def test_the_seed_moves_the_interval_and_not_the_value() -> None:
    items = [scored(str(at), str(at), None, (at * 0.37 % 1.0, 1.0)) for at in range(30)]
    first, second = summarise(items, METRICS, seed=0)["loss"], summarise(items, METRICS, seed=1)["loss"]
    assert summarise(items, METRICS)["loss"] == first
    assert first["value"] == second["value"]
    assert (first["low"], first["high"]) != (second["low"], second["high"])


@settings(max_examples=25, deadline=None)
@given(
    value=st.floats(-5, 5),
    weights=st.lists(st.integers(1, 8), min_size=2, max_size=12),
)
def test_equal_ratios_have_an_interval_without_width(value: float, weights: list[int]) -> None:
    items = [scored(str(at), str(at), None, (value * weight, float(weight))) for at, weight in enumerate(weights)]
    found = summarise(items, METRICS)["loss"]
    assert (found["low"], found["high"]) == pytest.approx((found["value"], found["value"]), abs=1e-9)
    assert found["n"] == len(weights)


@settings(max_examples=25, deadline=None)
@given(data=st.lists(st.tuples(st.text("ab_ (\n", max_size=6), st.text("a1 é\n", max_size=60)), max_size=20))
def test_slices_divide_the_examples(data: list[tuple[str, str]]) -> None:
    items = [
        scored(
            str(at % 4), str(at), at % 2 == 0, (1.0, 1.0) if at % 3 else None,
            prefix=prefix, middle=middle, category=str(at % 3), language="java" if at % 5 else None,
        )
        for at, (prefix, middle) in enumerate(data)
    ]  # fmt: skip
    whole, found = summarise(items, METRICS), slices(items, METRICS)
    assert set(found) == {"category", "language", "length", "cut"}
    for labels in found.values():
        for name in ("fact", "loss"):
            assert sum(scores[name]["n"] or 0 for scores in labels.values()) == whole[name]["n"]
            parts = sum((scores[name]["value"] or 0.0) * (scores[name]["n"] or 0) for scores in labels.values())
            assert parts == pytest.approx((whole[name]["value"] or 0.0) * (whole[name]["n"] or 0))


def test_a_slice_scores_as_its_examples_would() -> None:
    items = [scored(f"g{at % 7}", str(at), at % 4 == 0, category="xy"[at % 2]) for at in range(60)]
    found = slices(items, METRICS)["category"]
    own = [item for item in items if item.example.category == "x"]
    assert list(found) == ["x", "y"]
    assert (found["x"]["fact"]["value"], found["x"]["fact"]["low"], found["x"]["fact"]["high"]) == pytest.approx(
        witness(own, "fact")
    )


def test_length_buckets_are_in_order_and_complete() -> None:
    labels = ["0", "1-10", "11-40", "41-100", "101-400", ">400"]
    sizes = [0, 1, 10, 11, 40, 41, 100, 101, 400, 401, 9999]
    assert [labels.index(length_bucket(size)) for size in sizes] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    items = [scored(str(at), str(at), True, middle="é" * at) for at in (300, 0, 30, 5, 6, 60)]
    found = slices(items, METRICS)["length"]
    assert list(found) == labels
    assert found["11-40"]["fact"]["n"] == 1
    assert found["41-100"]["fact"]["n"] == 1


def test_split_words() -> None:
    assert split_words("ab", "cd", "ef") == "both"
    assert split_words("ab ", "cd", "ef") == "right"
    assert split_words("ab", "c.", "ef") == "left"
    assert split_words("ab", "", "ef") == "both"
    assert split_words("", "x", "") == split_words("(", "x", ")") == "neither"
