"""Sums measures to scores with 95 % intervals, in all and by slice.

Every score is a ratio of sums over examples; the samples of an example are summed first. The interval resamples
*groups* (percentile bootstrap, Efron 1979): gaps of one document, problem or repository resemble each other, and
counting them as independent would flatter the precision. Where a share is 0 or 1 in every resample the bootstrap has
nothing to say, and the Wilson bound for as many trials as there are groups stands in. Scores in one group have no
interval.

Legend: E examples, G groups, M metrics, R resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

from inlay.evaluate.metric import Metric
from inlay.evaluate.scored import Scored
from inlay.evaluate.task import Example
from inlay.fim.draws import Draws

RESAMPLES = 1000
Z95 = 1.959964
LENGTHS = ((0, 0), (1, 10), (11, 40), (41, 100), (101, 400))
"""Buckets of the gold's length in bytes; one more holds what is longer."""

Score = dict[str, float | int | None]
"""`value`, `low`, `high` (None where not measured, or with a single group no interval) and `n` examples measured."""


def summarise(scored: Sequence[Scored], metrics: Sequence[Metric], seed: int = 0) -> dict[str, Score]:
    """Every metric over all of `scored`. The same answers give the same numbers, whatever their order."""
    bootstrap = _Bootstrap(scored, metrics, seed)
    return bootstrap.scores(np.ones(len(bootstrap.examples), dtype=bool))


def slices(
    scored: Sequence[Scored], metrics: Sequence[Metric], seed: int = 0
) -> dict[str, dict[str, dict[str, Score]]]:
    """Scores by slice, as {slice: {label: {metric: score}}}: `category`, `language`, `length` of the gold in bytes, and
    `cut` (which end splits a word). Each slice divides the examples: every one has one label in it."""
    bootstrap = _Bootstrap(scored, metrics, seed)
    rules: dict[str, Callable[[Example], str]] = {
        "category": lambda example: example.category,
        "language": lambda example: example.language or "unknown",
        "length": lambda example: length_bucket(len(example.middle.encode("utf-8", "surrogatepass"))),
        "cut": lambda example: split_words(example.prefix, example.middle, example.suffix),
    }
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for name, rule in rules.items():
        labels = np.array([rule(example) for example in bootstrap.examples], dtype=object)
        first = {label: index for index, label in reversed(list(enumerate(labels)))}
        order = sorted(first, key=_bucket_start if name == "length" else first.__getitem__)
        found[name] = {label: bootstrap.scores(labels == label) for label in order}
    return found


def length_bucket(size: int) -> str:
    """The bucket of a gold of `size` bytes: "0", "1-10", "11-40", "41-100", "101-400" or ">400"."""
    for low, high in LENGTHS:
        if size <= high:
            return f"{low}-{high}" if high else "0"
    return f">{LENGTHS[-1][1]}"


def split_words(prefix: str, middle: str, suffix: str) -> str:
    """Which ends of a gap lie inside a word: "neither", "left", "right" or "both"."""
    left = _in_word(prefix[-1:], (middle or suffix)[:1])
    right = _in_word((middle or prefix)[-1:], suffix[:1])
    return "both" if left and right else "left" if left else "right" if right else "neither"


def _in_word(before: str, after: str) -> bool:
    return all(character.isalnum() or character == "_" for character in (before, after)) and bool(before and after)


def _bucket_start(label: str) -> int:
    return int(label.lstrip(">").split("-")[0]) + label.startswith(">")


class _Bootstrap:
    """One set of group resamples, shared by all metrics and slices."""

    def __init__(self, scored: Sequence[Scored], metrics: Sequence[Metric], seed: int) -> None:
        self.examples: list[Example] = list({item.example.id: item.example for item in scored}.values())
        self._metrics = metrics
        place = {example.id: index for index, example in enumerate(self.examples)}
        self._sums = np.zeros((len(self.examples), len(metrics)))
        self._weights = np.zeros((len(self.examples), len(metrics)))
        for item in scored:
            row = place[item.example.id]
            for column, metric in enumerate(metrics):
                measure = item.measures.get(metric.name)
                if measure is not None:
                    self._sums[row, column] += measure[0]
                    self._weights[row, column] += measure[1]
        unique = {group: index for index, group in enumerate(sorted({example.group for example in self.examples}))}
        self._groups = np.array([unique[example.group] for example in self.examples], dtype=np.int64)
        count = len(unique)
        # Keyed like every other draw: the same examples give the same interval.
        generator = np.random.Generator(np.random.Philox(key=Draws(seed, "bootstrap").bits()))
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=RESAMPLES) if count else np.zeros((1, 0))
        self._counts = drawn.astype(np.float64)

    def scores(self, chosen: np.ndarray) -> dict[str, Score]:
        """Every metric over the examples that bool [E] `chosen` names."""
        groups, index = np.unique(self._groups[chosen], return_inverse=True)
        sums = np.zeros((len(groups), len(self._metrics)))
        weights = np.zeros_like(sums)
        np.add.at(sums, index, self._sums[chosen])
        np.add.at(weights, index, self._weights[chosen])
        measured = (self._weights[chosen] > 0.0).sum(axis=0)
        totals, weight = sums.sum(axis=0), weights.sum(axis=0)
        counts = self._counts[:, groups]
        low, high = _percentiles(counts @ sums, counts @ weights)
        found: dict[str, Score] = {}
        for column, metric in enumerate(self._metrics):
            if not measured[column]:
                found[metric.name] = {"value": None, "low": None, "high": None, "n": 0}
                continue
            value = float(totals[column] / weight[column])
            ends = _ends(metric, value, int((weights[:, column] > 0.0).sum()), float(low[column]), float(high[column]))
            found[metric.name] = {"value": value, "low": ends[0], "high": ends[1], "n": int(measured[column])}
        return found


def _ends(metric: Metric, value: float, groups: int, low: float, high: float) -> tuple[float | None, float | None]:
    if groups < 2:
        return None, None
    if metric.share and value in (0.0, 1.0):
        other = Z95**2 / (groups + Z95**2)
        return (0.0, other) if value == 0.0 else (1.0 - other, 1.0)
    return low, high


def _percentiles(sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % of sums / weights ([R, M] each) by metric, [M]; resamples that drew none of what was measured
    are left out. NaN where none is left."""
    ratios = np.full(sums.shape, np.nan)
    np.divide(sums, weights, out=ratios, where=weights > 0.0)
    ratios.sort(axis=0)  # NaN goes last
    left = np.isfinite(ratios).sum(axis=0)
    columns = np.arange(ratios.shape[1])

    def at(share: float) -> np.ndarray:
        place = share * np.maximum(left - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(left - 1, 0))
        low, high = ratios[below, columns], ratios[above, columns]
        return low + (high - low) * (place - below)

    return at(0.025), at(0.975)
