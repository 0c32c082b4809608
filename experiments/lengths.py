"""(d) Which law of middle lengths teaches a model to stop? clamped_normal(50, 40), uniform(1, 100) and stratified.

The seeds' finding: clamp(N(50, 40), 1, 100) tokens gave a model that overran short middles; uniform(1, 100) mended it.

    python -m experiments.lengths
"""

import itertools

from benchmarks.common import run_main

from experiments.arms import arm
from experiments.benches import LONG
from experiments.harness import BORDERS, Experiment, Record, main
from experiments.measure import pool
from experiments.tables import Column, Value, by_arm, markdown, ratio

BYTES = [category for category in LONG.gaps if category.unit == "byte"]


def law(name: str, **options: float) -> dict[str, object]:
    """Cuts at any character whose length follows a law."""
    return {"characters": {"kind": "sized", "length": {"kind": name, **options}}}


ARMS = (
    arm("clamped_normal", LONG, spans=law("clamped_normal", mean=50.0, deviation=40.0, low=1, high=100)),
    arm("uniform", LONG, spans=law("uniform", low=1, high=100)),
    arm("stratified", LONG, spans=law("stratified")),
)


def mean(part: str, category: str, name: str) -> Value:
    """A mean over the orders of a part of the record."""

    def value(record: Record) -> float:
        sums = [pool(record["final"][part], order, category) for order in ("psm", "spm")]
        return sum(ratio(one, name) for one in sums) / len(sums)

    return value


def tables(found: dict[str, list[Record]]) -> str:
    """By length of the gold middle: stopping teacher-forced and in free generation; and the lengths trained on."""

    def by_length(part: str, name: str, digits: int = 0, percent: bool = True) -> str:
        columns = [
            Column(f"{category.low}-{category.high}", mean(part, category.name, name), digits, percent)
            for category in BYTES
        ]
        return by_arm(found, columns)

    told = {
        "Teacher-forced: the greedy choice is a stop behind the middle and nowhere in it": ("forced", "right", 0, True),
        "Teacher-forced: nats of the terminator": ("forced", "end_nats", 2, False),
        "Greedy completion: stopped by itself": ("generated", "stopped", 0, True),
        "Greedy completion: stopped at the gold's length, or within 2 tokens": ("generated", "length_near", 0, True),
        "Greedy completion: stopped more than 2 tokens before the gold's length": ("generated", "short", 0, True),
        "Greedy completion: mean tokens beyond the gold's length": ("generated", "overrun", 1, False),
    }
    parts = [f"{title}, by tokens of the middle\n\n{by_length(*what)}" for title, what in told.items()]
    return "\n\n".join([*parts, trained(found)])


def trained(found: dict[str, list[Record]]) -> str:
    """What lengths the arms were really trained on: a piece may end before the drawn length does."""
    names = [f"{low + 1}-{high}" if high > low + 1 else str(high) for low, high in itertools.pairwise(BORDERS)]
    rows = []
    for name, records in found.items():
        lengths = records[0]["lengths"]
        total = max(1, sum(lengths["count"]))
        shares = [f"{100.0 * count / total:.0f} %" for count in lengths["count"]]
        rows.append(
            [
                name,
                *shares,
                f"{100.0 * lengths['tokens'] / lengths['slots']:.0f} %",
                f"{100.0 * lengths['open'] / total:.0f} %",
            ]
        )
    head = ["middles trained on", "0", *names, f"over {BORDERS[-1]}", "share of slots", "no suffix"]
    return markdown(head, rows)


EXPERIMENT = Experiment("lengths", "laws of middle lengths and stopping", ARMS, tables)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
