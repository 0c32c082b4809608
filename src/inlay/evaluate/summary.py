"""Sums measures to scores with 95 % intervals, in all and by slice.

Every score is a ratio of sums over examples. The interval resamples *documents* (percentile bootstrap, Efron 1979):
gaps of one document resemble each other, and counting them as independent would flatter the precision. Where a share
is 0 or 1 in every resample the bootstrap has nothing to say, and the Wilson bound for as many trials as there are
documents stands in.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inlay.evaluate.metrics import METRICS, Metric, Scored
from inlay.fim.draws import Draws

RESAMPLES = 1000
Z95 = 1.959964
LENGTH_BUCKETS = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64))

Score = dict[str, float | int | None]
"""`value`, `low`, `high` (None where not measured, or with a single document no interval) and `n` examples measured."""


def summarise(scored: Sequence[Scored], seed: int = 0) -> dict[str, Score]:
    """Every metric over all of `scored`."""
    return _Bootstrap(scored, seed).scores(np.ones(len(scored), dtype=bool))


def slices(scored: Sequence[Scored], seed: int = 0) -> dict[str, dict[str, dict[str, Score]]]:
    """Scores by slice: `category`, `length` of the gold in tokens, and `cut` (which end splits a word)."""
    bootstrap = _Bootstrap(scored, seed)
    rules: dict[str, Callable[[Scored], str]] = {
        "category": lambda item: item.example.category,
        "length": lambda item: length_bucket(item.example.tokens),
        "cut": lambda item: split_words(item.example.prefix, item.example.middle, item.example.suffix),
    }
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for name, rule in rules.items():
        labels = np.array([rule(item) for item in scored], dtype=object)
        first = {label: index for index, label in reversed(list(enumerate(labels)))}
        order = sorted(first, key=_bucket_start if name == "length" else first.__getitem__)
        found[name] = {label: bootstrap.scores(labels == label) for label in order}
    return found


def length_bucket(tokens: int) -> str:
    """The bucket of a gold of `tokens` tokens, such as "5-8"."""
    for low, high in LENGTH_BUCKETS:
        if low <= tokens <= high:
            return f"{low}-{high}"
    return f"{LENGTH_BUCKETS[-1][1] + 1}+"


def split_words(prefix: str, middle: str, suffix: str) -> str:
    """Which ends of a gap lie inside a word: "neither", "left", "right" or "both"."""
    left = _in_word(prefix[-1:], (middle or suffix)[:1])
    right = _in_word((middle or prefix)[-1:], suffix[:1])
    return "both" if left and right else "left" if left else "right" if right else "neither"


def _in_word(before: str, after: str) -> bool:
    return all(character.isalnum() or character == "_" for character in (before, after)) and bool(before and after)


def _bucket_start(label: str) -> int:
    return int(label.rstrip("+").split("-")[0])


class _Bootstrap:
    """One set of document resamples, shared by all metrics and slices."""

    def __init__(self, scored: Sequence[Scored], seed: int) -> None:
        self._sums = np.zeros((len(METRICS), len(scored)))
        self._weights = np.zeros((len(METRICS), len(scored)))
        for column, item in enumerate(scored):
            for row, metric in enumerate(METRICS):
                measure = item.measures.get(metric.name)
                if measure is not None:
                    self._sums[row, column], self._weights[row, column] = measure
        ids = [item.example.document.id for item in scored]
        unique = {document: index for index, document in enumerate(dict.fromkeys(ids))}
        self._documents = np.array([unique[document] for document in ids], dtype=np.int64)
        count = len(unique)
        # Keyed like every other draw: the same examples give the same interval.
        generator = np.random.Generator(np.random.Philox(key=Draws(seed, "bootstrap").bits()))
        self._counts = generator.multinomial(count, np.full(count, 1.0 / count), size=RESAMPLES) if count else None

    def scores(self, chosen: np.ndarray) -> dict[str, Score]:
        return {metric.name: self._score(row, metric, chosen) for row, metric in enumerate(METRICS)}

    def _score(self, row: int, metric: Metric, chosen: np.ndarray) -> Score:
        measured = chosen & (self._weights[row] > 0)
        n = int(measured.sum())
        if n == 0 or self._counts is None:
            return {"value": None, "low": None, "high": None, "n": 0}
        documents = self._documents[measured]
        sums = np.bincount(documents, self._sums[row, measured], minlength=self._counts.shape[1])
        weights = np.bincount(documents, self._weights[row, measured], minlength=self._counts.shape[1])
        value = float(sums.sum() / weights.sum())
        low, high = self._interval(sums, weights, value, metric)
        return {"value": value, "low": low, "high": high, "n": n}

    def _interval(
        self, sums: np.ndarray, weights: np.ndarray, value: float, metric: Metric
    ) -> tuple[float | None, float | None]:
        assert self._counts is not None
        documents = int((weights > 0).sum())
        if documents < 2:
            return None, None
        if metric.share and value in (0.0, 1.0):
            other = Z95**2 / (documents + Z95**2)
            return (0.0, other) if value == 0.0 else (1.0 - other, 1.0)
        totals = self._counts @ weights
        ratios = (self._counts @ sums)[totals > 0] / totals[totals > 0]
        low, high = np.percentile(ratios, [2.5, 97.5])
        return float(low), float(high)


def plain(scores: dict[str, Score]) -> dict[str, Any]:
    """The values alone, by metric name."""
    return {name: score["value"] for name, score in scores.items()}
