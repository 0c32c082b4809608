"""Intervals of held-out losses and of their differences: a percentile bootstrap (Efron 1979) over documents.

A loss is a ratio of sums over documents, so whole documents are drawn and both sums follow. Two runs that were asked
for the same tokens are drawn together: what makes a document hard for both drops out of their difference. The interval
says how another choice of held-out documents would move a number; it knows nothing of another training seed. Under some
ten documents it is too narrow, so their count is shown beside it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from inlay.evaluate.report_sums import Sums
from inlay.fim.draws import Draws

RESAMPLES = 2000
Unit = str
"""`nats` (per token) or `bits_per_byte`."""
UNITS: tuple[Unit, ...] = ("nats", "bits_per_byte")


@dataclass(frozen=True)
class Interval:
    """`value` with the ends of its 95 % interval, from `documents` documents."""

    value: float
    low: float
    high: float
    documents: int

    @property
    def half(self) -> float:
        """Half its width: the number behind a ±."""
        return (self.high - self.low) / 2.0

    @property
    def clear(self) -> bool:
        """Whether zero lies outside; asked of differences."""
        return self.low > 0.0 or self.high < 0.0


def loss_interval(sums: Sums, unit: Unit, resamples: int = RESAMPLES) -> Interval | None:
    """The interval of a loss; None with a single document, or where the unit cannot be had."""
    nats, weights = _ratio(sums, unit)
    return ratio_interval(nats, weights, resamples)


def difference_interval(sums: Sums, reference: Sums, unit: Unit, resamples: int = RESAMPLES) -> Interval | None:
    """The interval of `sums` minus `reference`, drawn together. Negative is better than the reference.

    Raises ValueError when the two were asked for different tokens.
    """
    if sums.digest != reference.digest:
        raise ValueError("runs that were asked for different tokens are not paired")
    (nats, weights), (before, _) = _ratio(sums, unit), _ratio(reference, unit)
    return ratio_interval(nats - before, weights, resamples)


def mean_of(members: list[Sums]) -> Sums:
    """The sums of a group of runs that were asked for the same tokens: its loss is the mean of theirs."""
    first = members[0]
    if any(member.digest != first.digest for member in members):
        raise ValueError("runs that were asked for different tokens have no mean by document")
    return Sums(
        first.digest,
        first.documents,
        np.mean([member.nats for member in members], axis=0),
        first.targets,
        np.mean([member.text_nats for member in members], axis=0),
        first.bytes,
    )


def ratio_interval(values: np.ndarray, weights: np.ndarray, resamples: int = RESAMPLES) -> Interval | None:
    """The interval of sum(values) / sum(weights), both [D], a document each; None with fewer than two documents."""
    counted = weights > 0.0
    values, weights = values[counted], weights[counted]
    if len(weights) < 2:
        return None
    counts = _counts(len(weights), resamples)
    low, high = np.percentile((counts @ values) / (counts @ weights), [2.5, 97.5])
    return Interval(float(values.sum() / weights.sum()), float(low), float(high), len(weights))


def _ratio(sums: Sums, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    if unit == "nats":
        return sums.nats, sums.targets
    return sums.text_nats, sums.bytes * math.log(2.0)


@lru_cache(maxsize=8)
def _counts(documents: int, resamples: int) -> np.ndarray:
    """[resamples, documents]: how often each document is drawn. The same documents give the same interval again."""
    generator = np.random.Generator(np.random.Philox(key=Draws(0, "bootstrap", documents).bits()))
    counts = generator.multinomial(documents, np.full(documents, 1.0 / documents), size=resamples).astype(np.float64)
    counts.flags.writeable = False
    return counts
