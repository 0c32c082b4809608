"""Draws are a function of their key alone, and are spread as they say."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.witness import assert_follows, assert_share

from inlay.fim.draws import Draws, permutation

KEYS = st.lists(st.one_of(st.integers(), st.text(max_size=8)), min_size=1, max_size=4)

SCRIPT = """
import json
from inlay.fim.draws import Draws, permutation
draws = Draws(7, 3, "repo/ü.py")
print(json.dumps([[draws.bits() for _ in range(20)], [draws.uniform() for _ in range(20)],
                  [draws.normal(50.0, 40.0) for _ in range(20)], [draws.integer(-5, 1000) for _ in range(20)],
                  permutation(50, 7, 3, "rows").tolist()]))
"""


def test_the_same_in_another_process() -> None:
    draws = Draws(7, 3, "repo/ü.py")
    here = [
        [draws.bits() for _ in range(20)],
        [draws.uniform() for _ in range(20)],
        [draws.normal(50.0, 40.0) for _ in range(20)],
        [draws.integer(-5, 1000) for _ in range(20)],
        permutation(50, 7, 3, "rows").tolist(),
    ]
    # Hash randomisation differs between processes; a key must not depend on it.
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == here


def test_the_same_as_ever() -> None:
    # Stored numbers: a change of them changes every run that is resumed, so it must not happen by accident.
    assert Draws(0, 0, 0).bits() == 4503810885328115282
    assert permutation(8, 0, 1, "rows").tolist() == [7, 3, 0, 2, 6, 1, 5, 4]


@given(key=KEYS, other=KEYS)
def test_key_decides(key: list[int | str], other: list[int | str]) -> None:
    def first(values: list[int | str]) -> list[int]:
        draws = Draws(*values)
        return [draws.bits() for _ in range(4)]

    assert first(key) == first(key)
    if list(map(str, key)) != list(map(str, other)) and "\x1f" not in "".join(map(str, key + other)):
        assert first(key) != first(other)


def test_numpy_integers_are_integers() -> None:
    assert Draws(np.int64(5), np.uint16(6)).bits() == Draws(5, 6).bits()  # type: ignore[arg-type]


@given(key=st.integers(), low=st.integers(-(10**12), 10**12), size=st.integers(1, 10**12))
def test_ranges(key: int, low: int, size: int) -> None:
    draws = Draws(key)
    for _ in range(5):
        assert 0 <= draws.bits() < 1 << 64
        assert 0.0 <= draws.uniform() < 1.0
        assert low <= draws.integer(low, low + size) < low + size
        assert math.isfinite(draws.normal(0.0, 1.0))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 4)])
def test_empty_range_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="empty range"):
        Draws(0).integer(low, high)


def test_uniform() -> None:
    draws = Draws("uniform")
    assert_follows((int(draws.uniform() * 64) for _ in range(20_000)), dict.fromkeys(range(64), 1 / 64))
    assert_follows((draws.integer(10, 17) for _ in range(20_000)), dict.fromkeys(range(10, 17), 1 / 7))
    # The first draw of consecutive keys is what examples live on: it must be as good as consecutive draws of one key.
    assert_follows((int(Draws(1, key).uniform() * 64) for key in range(20_000)), dict.fromkeys(range(64), 1 / 64))
    pairs = [Draws(2, key) for key in range(20_000)]
    assert_follows(
        (8 * int(draws.uniform() * 8) + int(draws.uniform() * 8) for draws in pairs), dict.fromkeys(range(64), 1 / 64)
    )


def test_normal() -> None:
    draws = Draws("normal")

    def below(value: float) -> float:
        return 0.5 * (1.0 + math.erf(value / math.sqrt(2.0)))

    law = {cell: below((cell + 1) / 4) - below(cell / 4) for cell in range(-12, 12)}
    law[-13], law[12] = below(-3.0), 1.0 - below(3.0)
    values = [(draws.normal(30.0, 5.0) - 30.0) / 5.0 for _ in range(20_000)]
    assert_follows((max(-13, min(12, math.floor(value * 4))) for value in values), law)


def test_choose() -> None:
    draws = Draws("choose")
    found = [draws.choose([0.0, 1.0, 3.0, 0.0]) for _ in range(8_000)]
    assert set(found) == {1, 2}
    assert_share(found.count(2), len(found), 0.75)
    with pytest.raises(ValueError, match="zero"):
        draws.choose([0.0, 0.0])


@given(count=st.integers(0, 300), key=st.integers(0, 10**6))
def test_permutation(count: int, key: int) -> None:
    found = permutation(count, key, "rows")
    assert sorted(found.tolist()) == list(range(count))
    assert found.tolist() == permutation(count, key, "rows").tolist()
    if count > 20:
        assert found.tolist() != permutation(count, key + 1, "rows").tolist()
        assert found.tolist() != permutation(count, key, "pieces").tolist()


def test_permutation_is_uniform() -> None:
    orders = dict.fromkeys(range(24), 1 / 24)
    names: dict[tuple[int, ...], int] = {}
    drawn = [tuple(permutation(4, key).tolist()) for key in range(6_000)]
    assert_follows((names.setdefault(order, len(names)) for order in drawn), orders)
