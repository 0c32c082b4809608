"""Every length law against its closed form, and the registry's contract."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.witness import assert_follows

from inlay.config import BadInput, validate
from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths
from inlay.fim.lengths.clamped_normal import ClampedNormal
from inlay.fim.lengths.fixed import Fixed
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.lengths.stratified import Stratified
from inlay.fim.lengths.uniform import Uniform


def uniform(low: int, high: int) -> dict[int, float]:
    return dict.fromkeys(range(low, high + 1), 1 / (high - low + 1))


def log_uniform(low: int, high: int) -> dict[int, float]:
    whole = math.log(high + 1) - math.log(low)
    return {value: (math.log(value + 1) - math.log(value)) / whole for value in range(low, high + 1)}


def clamped_normal(low: int, high: int, mean: float = 50.0, deviation: float = 40.0) -> dict[int, float]:
    def below(value: float) -> float:
        return 0.5 * (1.0 + math.erf((value - mean) / (deviation * math.sqrt(2.0))))

    inside = {value: below(value + 0.5) - below(value - 0.5) for value in range(low + 1, high)}
    return inside | {low: below(low + 0.5), high: 1.0 - below(high - 0.5)}


def stratified(borders: tuple[int, ...]) -> dict[int, float]:
    buckets = [range(low + 1, high + 1) for low, high in pairwise((0, *borders))]
    return {value: 1 / (len(buckets) * len(bucket)) for bucket in buckets for value in bucket}


CLOSED_FORMS: dict[str, Callable[[int, int], dict[int, float]]] = {
    "uniform": uniform,
    "log_uniform": log_uniform,
    "clamped_normal": clamped_normal,
}
"""Laws between `low` and `high`."""


def law_options(low: int, high: int) -> dict[str, dict[str, Any]]:
    """Options of every law, so that its lengths are from `low` to `high`; for `stratified` from 1."""
    found: dict[str, dict[str, Any]] = {kind: {"kind": kind, "low": low, "high": high} for kind in CLOSED_FORMS}
    found["fixed"] = {"kind": "fixed", "length": high}
    found["stratified"] = {"kind": "stratified", "borders": sorted({low, high})}
    return found


def test_every_law_has_a_closed_form_here() -> None:
    assert set(law_options(1, 2)) == set(lengths.members())


@pytest.mark.parametrize(("low", "high"), [(1, 100), (3, 17)])
@pytest.mark.parametrize("kind", sorted(CLOSED_FORMS))
def test_law(kind: str, low: int, high: int) -> None:
    law = validate(lengths.get(kind), {"kind": kind, "low": low, "high": high})
    assert isinstance(law, LengthLaw)
    assert_follows((law.draw(Draws(kind, key)) for key in range(20_000)), CLOSED_FORMS[kind](low, high))


@pytest.mark.parametrize("kind", sorted(law_options(1, 2)))
@pytest.mark.parametrize("most", [3, 7, 20, 64, 99, 100, 500])
def test_up_to_a_room_a_law_is_what_it_is_among_the_lengths_that_fit(kind: str, most: int) -> None:
    options, borders = law_options(3, 100)[kind], (1, 4, 8, 16, 32, 64, 100)
    if kind == "stratified":
        options = {"kind": kind, "borders": list(borders)}
    law = validate(lengths.get(kind), options)
    assert isinstance(law, LengthLaw)
    if kind == "fixed":
        assert law.least == law.draw(Draws(1), 100) == 100
        return
    chances = stratified(borders) if kind == "stratified" else CLOSED_FORMS[kind](3, 100)
    left = {length: chance for length, chance in chances.items() if length <= most}
    assert min(left) == law.least
    drawn = [law.draw(Draws(kind, most, key), most) for key in range(5_000)]
    if len(left) == 1:
        assert set(drawn) == set(left)
    else:
        assert_follows(drawn, {length: chance / sum(left.values()) for length, chance in left.items()})


def test_a_normal_far_above_its_room_lies_at_its_end() -> None:
    law = ClampedNormal(mean=5_000.0, deviation=1.0, low=1, high=9_000)
    assert {law.draw(Draws(key), 30) for key in range(50)} == {30}


@given(low=st.integers(1, 10**6), more=st.integers(0, 10**6), key=st.integers())
def test_bounds(low: int, more: int, key: int) -> None:
    for kind, options in law_options(low, low + more).items():
        law = validate(lengths.get(kind), options)
        assert isinstance(law, LengthLaw)
        drawn = law.draw(Draws(key))
        assert type(drawn) is int
        assert (1 if kind == "stratified" else low) <= drawn <= low + more
        assert law.draw(Draws(key)) == drawn


class Edge(Draws):
    """Gives a fixed uniform, for the ends of [0, 1)."""

    def __init__(self, value: float) -> None:
        self.value = value

    def uniform(self) -> float:
        return self.value


@pytest.mark.parametrize("low", [1, 3, 5, 6, 7, 10, 1000])
def test_log_uniform_at_the_ends(low: int) -> None:
    # exp(log(low)) may fall just below low, and exp(log(high + 1)) may reach high + 1.
    law = LogUniform(low=low, high=2 * low)
    assert law.draw(Edge(0.0)) == low
    assert law.draw(Edge(math.nextafter(1.0, 0.0))) == 2 * low


@pytest.mark.parametrize("kind", sorted(CLOSED_FORMS))
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"low": 0}, "low"),
        ({"low": -3}, "low"),
        ({"high": 0}, "high"),
        ({"low": 5, "high": 3}, "low 5 is above high 3"),
        ({"low": "1"}, "low"),
        ({"high": 1.5}, "high"),
        ({"hihg": 7}, "did you mean 'high'"),
    ],
)
def test_bad_parameters(kind: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        validate(lengths.get(kind), {"kind": kind, **options})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_deviation() -> None:
    with pytest.raises(BadInput, match="deviation"):
        validate(ClampedNormal, {"deviation": 0.0})


def test_defaults_are_the_seeds() -> None:
    assert Uniform().to_dict() == {"kind": "uniform", "low": 1, "high": 100}
    assert ClampedNormal().to_dict() == {
        "kind": "clamped_normal",
        "mean": 50.0,
        "deviation": 40.0,
        "low": 1,
        "high": 100,
    }


def test_a_narrow_normal_is_rounded_to_the_nearest() -> None:
    law = ClampedNormal(mean=10.3, deviation=1.5, low=7, high=13)
    expected = clamped_normal(7, 13, mean=10.3, deviation=1.5)
    assert_follows((law.draw(Draws("narrow", key)) for key in range(20_000)), expected)


@pytest.mark.parametrize("borders", [(1, 4, 8, 16, 32, 64, 100), (7,), (1, 2, 3), (2, 50)])
def test_stratified(borders: tuple[int, ...]) -> None:
    law = validate(Stratified, {"borders": list(borders)})
    expected = stratified(borders)
    drawn = [law.draw(Draws("strata", key)) for key in range(20_000)]
    assert_follows(drawn, expected)
    # Each bucket, however wide, has the same mass.
    edges = (0, *borders)
    if len(borders) > 1:
        buckets = [next(index for index, edge in enumerate(borders) if value <= edge) for value in drawn]
        assert_follows(buckets, dict.fromkeys(range(len(edges) - 1), 1 / len(borders)))
    assert Stratified().borders == (1, 4, 8, 16, 32, 64, 100)


@pytest.mark.parametrize("borders", [[], [0], [1, 1], [4, 2], [-3, 2], [1.5], ["1"], 7])
def test_bad_borders(borders: Any) -> None:
    with pytest.raises(BadInput, match="borders") as caught:
        validate(Stratified, {"borders": borders})
    assert "\n" not in str(caught.value)


def test_fixed() -> None:
    assert {Fixed(length=7).draw(Draws(key)) for key in range(100)} == {7}
    for wrong in (0, -1, 1.5):
        with pytest.raises(BadInput, match="length"):
            validate(Fixed, {"length": wrong})
