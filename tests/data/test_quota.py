"""The pattern of a mixture: exact quotas, and the bound of Tijdeman's theorem after every row."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inlay.data.quota import MOST_SOURCES, PERIOD, pattern, quotas

ROWS = st.lists(st.integers(0, 60), min_size=1, max_size=7).filter(any).map(tuple)


def by_definition(rows: tuple[int, ...]) -> list[int]:
    """Tijdeman's rule as it is stated, row by row in exact fractions."""
    period, used = sum(rows), [source for source, count in enumerate(rows) if count]
    if len(used) == 1:
        return used * period
    slack, counts, found = Fraction(1, 2 * len(used) - 2), dict.fromkeys(used, 0), []
    for place in range(1, period + 1):
        owed = {source: Fraction(place * rows[source], period) - counts[source] for source in used}
        allowed = [source for source in used if owed[source] >= slack]
        chosen = min(allowed, key=lambda s: ((1 - slack - owed[s]) * Fraction(period, rows[s]), s))
        counts[chosen] += 1
        found.append(chosen)
    return found


@given(rows=ROWS)
@settings(max_examples=100)
def test_no_prefix_is_further_from_its_quota_than_the_bound(rows: tuple[int, ...]) -> None:
    found, period = pattern(rows), sum(rows)
    used = sum(count > 0 for count in rows)
    counts = np.stack([np.cumsum(found == source) for source in range(len(rows))])
    assert counts[:, -1].tolist() == list(rows)
    away = np.abs(counts * period - np.outer(rows, np.arange(1, period + 1)))  # times the period, in whole numbers
    if used > 1:
        assert int(away.max()) * (2 * used - 2) <= period * (2 * used - 3)


@given(rows=ROWS)
def test_pattern_is_as_good_as_the_rule_by_definition(rows: tuple[int, ...]) -> None:
    """Sources may come in another order where two limits fall on one row; nothing else may differ."""

    def worst(found: np.ndarray) -> int:
        places = np.arange(1, len(found) + 1)
        return max(
            int(np.abs(np.cumsum(found == source) * len(found) - places * count).max())
            for source, count in enumerate(rows)
        )

    stated = np.array(by_definition(rows))
    found = pattern(rows)
    assert np.bincount(found, minlength=len(rows)).tolist() == np.bincount(stated, minlength=len(rows)).tolist()
    used = sum(count > 0 for count in rows)
    if used == 2:
        assert worst(found) == worst(stated)


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6),
    begin=st.integers(0, 3 * PERIOD),
    count=st.integers(1, 4000),
)
@settings(max_examples=40)
def test_any_stretch_of_the_endless_stream_has_its_shares(weights: list[float], begin: int, count: int) -> None:
    shares = np.array(weights) / sum(weights)
    whose = pattern(quotas(shares.tolist()))
    counts = np.bincount(whose[np.arange(begin, begin + count) % PERIOD], minlength=len(shares))
    # Two prefixes are each within one row; a share is met to half a row of a period.
    assert (np.abs(counts - count * shares) <= 2.0 + count / PERIOD).all()


def test_one_row_in_ten() -> None:
    whose = pattern(quotas([0.9, 0.1]))
    places = np.flatnonzero(whose[:200] == 1)
    assert np.diff(places).tolist() == [10] * (len(places) - 1)
    assert places[0] in (4, 5)


@given(weights=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9).filter(lambda values: sum(values) > 0.1))
def test_quotas_are_whole_and_nearest(weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    tiny = any(0.0 < share < 1.5 / PERIOD for share in shares)
    if tiny:
        return
    rows = quotas(shares)
    assert sum(rows) == PERIOD
    assert all(abs(count - share * PERIOD) < 1.0 for count, share in zip(rows, shares, strict=True))
    assert all(count == 0 for count, share in zip(rows, shares, strict=True) if share == 0.0)


def test_a_share_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="source 1 would have less than one row"):
        quotas([1.0 - 1e-6, 1e-6])


def test_one_source_and_the_most_there_can_be() -> None:
    assert not pattern(quotas([1.0])).any()
    assert pattern((0, 3)).tolist() == [1, 1, 1]
    most = pattern(quotas([1.0 / MOST_SOURCES] * MOST_SOURCES))
    assert most.max() == MOST_SOURCES - 1
    assert not most.flags.writeable
