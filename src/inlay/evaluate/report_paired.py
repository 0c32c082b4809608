"""The same gaps answered twice, compared gap by gap: by two runs, or by one model in two orders.

Documents are drawn for both sides together, since a gap that is hard for one is hard for the other. It refuses a
comparison unless both were asked the same gaps, each of the same document, and measured the score on all the same ones.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from inlay.evaluate.report_bootstrap import Interval, ratio_interval

Gaps = dict[str, dict[str, Any]]
"""What became of each gap, by its id: `doc`, and `measures` as the mean over its samples (None: not measured)."""


def gaps_by_row(items: Iterable[Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Gaps]:
    """Items by the rows of the result that they belong to. `rows` as in the result: `order` and `best_of` of each.

    An older item, which names no row, belongs to that of its order. Lines that are no items are passed over.
    """
    kept = [one for one in items if _is_item(one)]
    present = {str(one.get("row", one["order"])) for one in kept}
    grouped: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for one in kept:
        for row in rows_of_item(one, rows, present):
            grouped.setdefault(row, {}).setdefault(one["id"], []).append(one)
    return {
        row: {gap: {"doc": samples[0]["doc"], "measures": _means(samples)} for gap, samples in gaps.items()}
        for row, gaps in grouped.items()
    }


def rows_of_item(item: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], present: set[str]) -> list[str]:
    """The rows of a result that an answer counts in: its own, and a best-of row that chose it.

    `present`: the rows that items name themselves; a best-of row among them has its answers already.
    """
    own = str(item.get("row", item["order"]))
    if not item.get("chosen"):
        return [own]
    chosen = [
        name
        for name, facts in rows.items()
        if facts.get("best_of") and facts.get("order") == item["order"] and name not in present
    ]
    return [own, *chosen]


def paired_difference(mine: Gaps, theirs: Gaps, metric: str) -> Interval | None:
    """A score over the gaps minus that of the other side, with its 95 % interval over documents; None if unlike."""
    if not mine or mine.keys() != theirs.keys() or any(mine[gap]["doc"] != theirs[gap]["doc"] for gap in mine):
        return None
    documents: dict[str, list[float]] = {}
    for gap, item in mine.items():
        value, before = item["measures"].get(metric), theirs[gap]["measures"].get(metric)
        if (value is None) != (before is None):
            return None
        if value is not None and before is not None:
            documents.setdefault(item["doc"], []).append(float(value) - float(before))
    if not documents:
        return None
    sums = np.array([sum(values) for values in documents.values()])
    return ratio_interval(sums, np.array([len(values) for values in documents.values()], dtype=np.float64))


def _is_item(one: Mapping[str, Any]) -> bool:
    return isinstance(one.get("measures"), dict) and all(isinstance(one.get(k), str) for k in ("id", "order", "doc"))


def _means(samples: list[Mapping[str, Any]]) -> dict[str, float | None]:
    if len(samples) == 1:
        return dict(samples[0]["measures"])
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for one in samples for name in one["measures"]):
        values = [value for one in samples if (value := one["measures"].get(name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found
