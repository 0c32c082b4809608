"""(b) Does a model trained in one order work in another? Trained in PSM, SPM, SPM version 2 or half PSM half SPM, and
judged in each.

2207.14255 (table 1 and section 4.2): trained on SPM (version 2) alone a model fails in PSM (pass rate .02), while PSM
alone works in SPM, because version 2 reads as PSM with an empty prefix.

    python -m experiments.orders
"""

from benchmarks.common import run_main

from experiments.arms import arm
from experiments.benches import DENSE
from experiments.harness import Experiment, Record, main
from experiments.measure import ORDERS, PLAIN
from experiments.tables import Value, forced, l2r_bits, markdown, middle_bits, text

UNITS = {"token": "token borders", "inside": "inside tokens", "line": "lines"}
"""By place of the cut: PSM reads version 2 as one long middle, in which no token is ever split."""
ARMS = (
    arm("psm", DENSE, orders={"psm": 1.0}),
    arm("spm", DENSE, orders={"spm": 1.0}),
    arm("spm_v2", DENSE, orders={"spm_v2": 1.0}),
    arm("half psm half spm", DENSE),
)


def tables(found: dict[str, list[Record]]) -> str:
    """A matrix a measure: trained in (rows), judged in (columns)."""

    def matrix(title: str, value: dict[str, Value], digits: int, percent: bool = False) -> str:
        rows = [
            [name, *(text([of(record) for record in records], digits, percent) for of in value.values())]
            for name, records in found.items()
        ]
        return markdown([title, *value], rows)

    parts = []
    for unit, title in UNITS.items():
        parts += [
            matrix(f"middle bits per byte, {title}", {o: middle_bits(o, unit) for o in (*ORDERS, PLAIN)}, 3),
            matrix(f"first token right, {title}", {o: forced(o, unit, "first_right") for o in ORDERS}, 1, True),
            matrix(f"stops right, {title}", {o: forced(o, unit, "right") for o in ORDERS}, 1, True),
        ]
    return "\n\n".join([*parts, matrix("left to right", {"bits per byte": l2r_bits}, 3)])


EXPERIMENT = Experiment("orders", "trained in one order, judged in another", ARMS, tables, tokens=2_000_000)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
