import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.evaluate.answer import Answer
from inlay.infer.best_of import best_of, can_rank, share_without_end


def answer(stopped: str, logprob: float | None, tokens: int = 3) -> Answer:
    return Answer("x" * tokens, stopped, tokens=tokens, logprob=logprob)  # type: ignore[arg-type]


def test_those_that_ended_come_first_then_the_likeliest() -> None:
    assert best_of([answer("limit", -0.1), answer("eot", -9.0), answer("eot", -8.0), answer("sentinel", -0.2)]) == 2
    assert best_of([answer("limit", -3.0), answer("sentinel", -2.0), answer("deadline", -4.0)]) == 1
    assert best_of([answer("eot", -2.0), answer("eot", -2.0)]) == 0


def test_mean_counts_the_terminator_and_total_does_not_divide() -> None:
    short, long = answer("eot", -2.0, tokens=1), answer("eot", -3.0, tokens=5)
    assert best_of([short, long], "mean") == 1  # -1 against -0.5
    assert best_of([short, long], "total") == 0
    # The terminator's place is one token more: -3 / 3 against -2.9 / 3.
    assert best_of([answer("eot", -3.0, tokens=2), answer("eot", -2.9, tokens=2)]) == 1
    assert best_of([answer("limit", -2.0, tokens=2), answer("limit", -2.7, tokens=3)]) == 1
    assert best_of([answer("eot", -1.0, tokens=0), answer("eot", -0.5, tokens=0)]) == 1


ANSWERS = st.lists(
    st.builds(answer, st.sampled_from(["eot", "limit", "sentinel"]), st.floats(-50, 0), st.integers(0, 6)),
    min_size=1,
    max_size=6,
)


@given(ANSWERS, st.sampled_from(["mean", "total"]))
def test_nothing_preferred_is_left_behind(answers: list[Answer], rank: str) -> None:
    chosen = answers[best_of(answers, rank)]  # type: ignore[arg-type]

    def value(one: Answer) -> tuple[bool, float]:
        places = one.tokens + (one.stopped == "eot")  # type: ignore[operator]
        return one.stopped == "eot", one.logprob / (max(1, places) if rank == "mean" else 1)  # type: ignore[operator]

    assert value(chosen) == max(map(value, answers))
    assert chosen is next(one for one in answers if value(one) == value(chosen))


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(BadInput, match="log-probability"):
        best_of([answer("eot", None), answer("eot", -1.0)])
    with pytest.raises(ValueError, match="no answers"):
        best_of([])
    # One that is not among the preferred need not have one.
    assert best_of([answer("limit", None), answer("eot", -1.0)]) == 1
    assert can_rank([[answer("eot", -1.0)] * 2])
    assert not can_rank([[answer("eot", -1.0)]])
    assert not can_rank([[answer("eot", -1.0), answer("eot", None)]])
    assert not can_rank([])


def test_share_without_end() -> None:
    ended, not_ended = answer("eot", -1.0), answer("limit", -1.0)
    assert share_without_end([[ended, not_ended], [not_ended, not_ended], [ended], [not_ended]]) == 0.5
    assert share_without_end([]) == 0.0
    assert not math.isnan(share_without_end([[not_ended]]))
