"""What a mixture asks and what its sources hold: default shares, demand over stages, and what could be had instead."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.data.supply import Demand, Supply, nearest_shares, resolve, row_shares, solve

NAMES = ("code", "english", "docs", "more")


def divergence(asked: np.ndarray, found: np.ndarray) -> float:
    """Kullback-Leibler, of what was asked from what is found."""
    return float((asked * np.log(asked / found)).sum())


def test_english_has_a_tenth_when_nobody_says() -> None:
    sizes = {"code": 300, "sql": 100, "english": 50}
    shares = resolve(dict.fromkeys(sizes), frozenset(["english"]), sizes)
    assert shares == pytest.approx({"code": 0.675, "sql": 0.225, "english": 0.1})
    assert list(shares) == ["code", "sql", "english"]


def test_what_is_left_is_shared_by_size() -> None:
    sizes = {"code": 300, "sql": 100, "english": 50}
    shares = resolve({"code": None, "sql": None, "english": 0.2}, frozenset(["english"]), sizes)
    assert shares == pytest.approx({"code": 0.6, "sql": 0.2, "english": 0.2})
    assert resolve(dict.fromkeys(sizes), frozenset(), sizes) == pytest.approx(
        {"code": 300 / 450, "sql": 100 / 450, "english": 50 / 450}
    )
    assert resolve(dict.fromkeys(sizes), frozenset(sizes), sizes)["english"] == pytest.approx(50 / 450)
    given_all = {"code": 0.5, "sql": 0.3, "english": 0.2}
    assert resolve(given_all, frozenset(), sizes) == pytest.approx(given_all)


def test_rows_make_up_for_emptier_rows() -> None:
    rows = row_shares({"code": 0.5, "english": 0.5, "docs": 0.0}, {"code": 0.5, "english": 1.0, "docs": 1.0})
    assert rows == pytest.approx({"code": 2 / 3, "english": 1 / 3, "docs": 0.0})


def test_demand_adds_up_over_stages() -> None:
    supplies = {"code": Supply(1000, None, 0.8), "english": Supply(100, 4.0, 0.8)}
    stages = [Demand(1000, {"code": 0.9, "english": 0.1}), Demand(500, {"code": 1.0})]
    code, english = solve(supplies, stages)
    assert (code.tokens, english.tokens) == (1120, 80)  # 80 % of the slots hold text
    assert code.epochs == pytest.approx(1.12)
    assert english.epochs == pytest.approx(0.8)
    assert english.share == pytest.approx(80 / 1200)


def test_rows_of_different_density_give_the_shares_asked() -> None:
    # 300 rows of 10 slots, checked by counting: shares of rows by the densities, then tokens in them.
    density, shares = {"code": 0.5, "english": 0.9}, {"code": 0.7, "english": 0.3}
    supplies = {name: Supply(10_000, None, density[name]) for name in density}
    rows = row_shares(shares, density)
    counted = {name: 3000 * rows[name] * density[name] for name in rows}
    for use in solve(supplies, [Demand(3000, shares)]):
        assert use.tokens == pytest.approx(counted[use.source], abs=1)
        assert use.share == pytest.approx(shares[use.source])


def test_what_cannot_be_had_is_one_line_that_says_what_can() -> None:
    supplies = {"code": Supply(1_000_000), "english": Supply(10_000, 4.0)}
    with pytest.raises(BadInput) as caught:
        solve(supplies, [Demand(730_000, {"code": 0.9, "english": 0.1})])
    assert str(caught.value) == (
        "the mixture cannot be had: 730,000 tokens would read source 'english' 7.3 times, and its max_epochs is 4; the"
        " nearest shares that can be had: code 0.946, english 0.054; with the shares asked for at most 400,000 tokens;"
        " or raise data.sources.english.max_epochs"
    )
    solve(supplies, [Demand(730_000, {"code": 0.946, "english": 0.054})])
    solve(supplies, [Demand(400_000, {"code": 0.9, "english": 0.1})])


def test_advice_has_as_many_digits_as_it_needs() -> None:
    """With three, 0.6 and 0.4, English would be over its limit of 0.3998."""
    supplies = {"code": Supply(6004, 1.0), "english": Supply(3998, 1.0)}
    with pytest.raises(BadInput, match=r"can be had: code 0\.6004, english 0\.3996;"):
        solve(supplies, [Demand(10_000, {"code": 0.9, "english": 0.1})])


def test_no_shares_at_all() -> None:
    supplies = {"code": Supply(1000, 2.0), "english": Supply(100, 4.0)}
    with pytest.raises(BadInput, match=r"no shares of these sources give so many tokens.*at most 2,222 tokens"):
        solve(supplies, [Demand(2500, {"code": 0.9, "english": 0.1})])


@st.composite
def infeasible(draw: st.DrawFn) -> tuple[dict[str, Supply], dict[str, float], int]:
    count = draw(st.integers(2, 4))
    supplies = {
        name: Supply(draw(st.integers(50, 100_000)), draw(st.none() | st.floats(0.5, 8.0))) for name in NAMES[:count]
    }
    weights = [draw(st.floats(0.02, 1.0)) for _ in supplies]
    shares = {name: weight / sum(weights) for name, weight in zip(supplies, weights, strict=True)}
    slots = draw(st.integers(1_000, 1_000_000))
    return supplies, shares, slots


JUST_ENOUGH = {"code": Supply(123, max_epochs=0.5), "english": Supply(1877, max_epochs=0.5)}


@given(case=infeasible())
@example(case=(JUST_ENOUGH, {"code": 25 / 26, "english": 1 / 26}, 1000))
@example(case=({"code": Supply(122, 0.5), "english": Supply(1878, 0.5)}, {"code": 0.5, "english": 0.5}, 1000))
@settings(max_examples=100)
def test_advice_can_be_followed(case: tuple[dict[str, Supply], dict[str, float], int]) -> None:
    supplies, shares, slots = case
    over = [name for name, supply in supplies.items() if slots * shares[name] > supply.limit]
    try:
        uses = solve(supplies, [Demand(slots, shares)])
    except BadInput as error:
        line = str(error)
    else:
        assert not over
        assert sum(use.tokens for use in uses) == pytest.approx(slots, abs=len(uses))
        return
    assert over or min(abs(slots * shares[name] / supply.limit - 1) for name, supply in supplies.items()) < 1e-6
    assert "\n" not in line
    fits = int(re.search(r"at most ([\d,]+) tokens", line)[1].replace(",", ""))  # type: ignore[index]
    assert fits < slots
    if fits:
        solve(supplies, [Demand(fits, shares)])
    more = math.ceil((fits + 1) * 1.0001)
    with pytest.raises(BadInput):
        solve(supplies, [Demand(more, shares)])
    advised = {name: float(text) for name, text in re.findall(r"(code|english|docs|more) ([\d.]+)", line)}
    if "no shares" in line:
        assert sum(supply.limit for supply in supplies.values()) < slots * (1 + 2e-6)
        return
    assert sum(advised.values()) == pytest.approx(1.0, abs=1e-9)
    solve(supplies, [Demand(slots, advised)])


@given(case=infeasible(), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_no_other_shares_are_nearer(case: tuple[dict[str, Supply], dict[str, float], int], seed: int) -> None:
    """Against many feasible shares found by chance: shares within the limits, mixed with the ones that are claimed."""
    supplies, shares, slots = case
    limits = {name: supply.limit / slots for name, supply in supplies.items()}
    found = nearest_shares(shares, limits)
    asked, most = np.array(list(shares.values())), np.array([limits[name] for name in shares])
    if found is None:
        assert most.sum() < 1.0
        return
    best = np.array([found[name] for name in shares])
    assert best.sum() == pytest.approx(1.0)
    assert (best <= most * (1 + 1e-12)).all()
    rng = np.random.default_rng(seed)
    for scale in (1.0, 0.1, 0.001):
        others = best * np.exp(rng.normal(0.0, scale, (200, len(best))))
        others /= others.sum(axis=1, keepdims=True)
        for other in others[(others <= most).all(axis=1)]:
            assert divergence(asked, other) >= divergence(asked, best) - 1e-12


def test_a_source_without_a_share_stays_out() -> None:
    assert nearest_shares({"code": 1.0, "english": 0.0}, {"code": 0.5, "english": 4.0}) is None
