"""What a metric is: a name, how to read it, and sums that are divided once, over all examples together."""

from dataclasses import dataclass
from typing import Literal

Measure = tuple[float, float]
"""A summand and its weight; a score is the sum of summands over the sum of weights, over all examples at once."""


@dataclass(frozen=True)
class Metric:
    """How a score is read. `better` is "high", "low", or None where neither is better; `share` scores lie in 0 to 1."""

    name: str
    title: str
    """A table's heading, at most 14 characters."""
    meaning: str
    """A sentence for the legend, with its source where it is another's definition."""
    better: Literal["high", "low"] | None
    share: bool = True
    gold: float | None = None
    """What every gold answer must score where it is measured, in a harness that works; None where gold may vary."""


def share(fact: bool | None) -> Measure | None:
    """The measure of a fact; None stays "not measured"."""
    return None if fact is None else (float(fact), 1.0)
