"""(c) Trained on line or token cuts, does a model collapse on spans that begin and end inside tokens?

2207.14255 (table 2, PSM): random-span pass rate .015 with line cuts, .102 with token cuts, .321 with character cuts,
and little cost of character cuts on lines. Here: the loss of the middle, and of its first token, by where the gap's
ends lie.

    python -m experiments.cuts
"""

from benchmarks.common import run_main

from experiments.arms import LENGTHS, arm
from experiments.benches import DENSE
from experiments.harness import Experiment, Record, main
from experiments.measure import bits_per_byte, pool
from experiments.tables import Column, Value, against, by_arm, ratio

ORDERS = ("psm", "spm")
KINDS = {"line": "lines", "token": "token borders", "inside": "inside tokens"}


def both(prefix: str, name: str, over: str = "n") -> Value:
    """A mean over both trained orders."""

    def value(record: Record) -> float:
        sums = [pool(record["final"]["forced"], order, prefix) for order in ORDERS]
        return sum(ratio(one, name, over) for one in sums) / len(sums)

    return value


def bits(prefix: str) -> Value:
    """Bits per byte, mean of both orders."""

    def value(record: Record) -> float:
        return sum(bits_per_byte(pool(record["final"]["forced"], order, prefix)) for order in ORDERS) / len(ORDERS)

    return value


def tables(found: dict[str, list[Record]]) -> str:
    """Loss of middles and of their first tokens, and stopping, by the place of the cut."""
    parts = []
    for columns in (
        [Column(f"middle bits per byte, {title}", bits(unit)) for unit, title in KINDS.items()],
        [Column(f"first token nats, {title}", both(unit, "first_nats"), 2) for unit, title in KINDS.items()],
        [Column(f"first token right, {title}", both(unit, "first_right"), 1, True) for unit, title in KINDS.items()],
        [Column(f"end nats, {title}", both(unit, "end_nats"), 2) for unit, title in KINDS.items()],
        [Column(f"stops right, {title}", both(unit, "right"), 1, True) for unit, title in KINDS.items()],
    ):
        parts += [by_arm(found, columns), against(found, "characters", columns)]
    return "\n\n".join(part for part in parts if part)


EXPERIMENT = Experiment(
    "cuts",
    "line, token and character cuts",
    (
        arm("lines", DENSE, spans={"lines": {"kind": "lines"}}),
        arm("tokens", DENSE, spans={"tokens": {"kind": "token_cuts", "length": LENGTHS[DENSE.name]}}),
        arm("characters", DENSE),
    ),
    tables,
    tokens=2_000_000,
)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
