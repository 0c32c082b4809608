"""Tests passed and pass@k: the estimator against all draws, and which answers carry it."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.metrics_stub import answered, example, outcome, score, values

from inlay.evaluate.metrics import METRICS, pass_at_k
from inlay.evaluate.scored import Answered
from inlay.evaluate.summary import summarise


@given(data=st.data(), samples=st.integers(1, 9))
def test_pass_at_k_is_the_share_of_draws_with_a_pass(data: st.DataObject, samples: int) -> None:
    passed = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    facts = [index < passed for index in range(samples)]
    draws = list(combinations(facts, k))
    assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_at_its_ends() -> None:
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(200, 101, 100) == 1.0
    assert pass_at_k(10, 1, 1) == pytest.approx(0.1)
    for wrong in ((5, 6, 1), (5, 1, 6), (5, -1, 1), (5, 1, 0)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(*wrong)


def samples(name: str, passes: list[bool | None]) -> list[Answered]:
    asked = example(name=name, group=name)
    return [answered("x", asked, sample=at, raw=outcome(one)) for at, one in enumerate(passes)]


def test_rates_are_on_the_first_answer_alone() -> None:
    items = [*samples("a", [True, *[False] * 11]), *samples("b", [True] * 9), *samples("c", [None] * 12)]
    found = [values(one) for one in score(*items)]
    assert found[0]["pass@10"] == pytest.approx(pass_at_k(12, 1, 10)) == pytest.approx(10 / 12)
    assert all(one["pass@10"] is None for one in found[1:])
    assert all(one["pass@100"] is None for one in found)
    assert [one["passed"] for one in found] == [1.0, *[0.0] * 11, *[1.0] * 9, *[None] * 12]


def test_samples_that_come_mixed_are_the_same() -> None:
    first, second = samples("a", [True] * 4 + [False] * 8), samples("b", [False] * 12)
    mixed = [item for pair in zip(first, second, strict=True) for item in pair]
    score_of = summarise(score(*mixed), METRICS)["pass@10"]
    assert score_of["n"] == 2
    assert score_of["value"] == pytest.approx(pass_at_k(12, 4, 10) / 2)


def test_raw_and_post_are_apart_and_what_did_not_run_is_not_wrong() -> None:
    item = answered("x", raw=outcome(False), post=outcome(True))
    assert [values(score(item)[0])[name] for name in ("passed", "passed_post")] == [0.0, 1.0]
    assert values(score(answered("x"))[0])["passed"] is None
    assert values(score(answered("x", raw=outcome(None)))[0])["passed"] is None
