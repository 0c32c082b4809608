"""Which source each row of a mixture is from: a fixed pattern that repeats, so every row's source is known by number.

The rule is Tijdeman's for the chairman assignment problem (Discrete Mathematics 32, 1980): with m sources, after any
number of rows no source is further than 1 - 1 / (2 m - 2) rows from its quota, which is the best bound there is.
Nothing is drawn. A source's next row may come no earlier and no later than that bound allows, and of the sources that
may come the one goes first whose limit is nearest.
"""

import heapq
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

PERIOD = 1 << 14
"""Rows after which the pattern repeats; shares of rows are met to half of one in so many."""
MOST_SOURCES = 255
"""A row's source is one byte."""


def quotas(shares: Sequence[float], period: int = PERIOD) -> tuple[int, ...]:
    """Shares of rows (they sum to 1) as whole rows of each `period`, by largest remainder.

    Raises ValueError for a positive share that would get no row.
    """
    exact = [share * period for share in shares]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda source: whole[source] - exact[source])
    for source in by_remainder[: period - sum(whole)]:
        whole[source] += 1
    for source, share in enumerate(shares):
        if share > 0.0 and not whole[source]:
            raise ValueError(f"source {source} would have less than one row in {period:,}")
    return tuple(whole)


@lru_cache(maxsize=16)
def pattern(rows: tuple[int, ...]) -> np.ndarray:
    """[P] uint8: the source of each row of a period of P = sum(rows), `rows[s]` of them from source s. Read-only."""
    period = sum(rows)
    used = [source for source, count in enumerate(rows) if count]
    found = np.empty(period, dtype=np.uint8)
    if len(used) == 1:
        found[:] = used[0]
    else:
        _schedule(rows, used, found)
    found.flags.writeable = False
    return found


def _schedule(rows: tuple[int, ...], used: list[int], found: np.ndarray) -> None:
    """Fills `found` by earliest deadline. Row number k of source s, of `rows[s]` in P, may stand at places n (from 1)
    with 1 / (2 m - 2) <= n rows[s] / P - k, and has to stand at the first n with n rows[s] / P - k > 1 - 1 / (2 m - 2).
    """
    period, parts = len(found), 2 * len(used) - 2
    waiting: list[tuple[int, int, int]] = []  # (first place, source, k)
    ready: list[tuple[int, int, int]] = []  # (last place, source, k)

    def wait(source: int, number: int) -> None:
        if number < rows[source]:
            first = -(-period * (1 + parts * number) // (parts * rows[source]))
            heapq.heappush(waiting, (first, source, number))

    for source in used:
        wait(source, 0)
    for place in range(1, period + 1):
        while waiting and waiting[0][0] <= place:
            _, source, number = heapq.heappop(waiting)
            last = period * (parts - 1 + parts * number) // (parts * rows[source]) + 1
            heapq.heappush(ready, (last, source, number))
        _, source, number = heapq.heappop(ready)  # never empty: Tijdeman's theorem
        found[place - 1] = source
        wait(source, number + 1)
