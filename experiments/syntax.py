"""(e) Spans of the syntax tree against random ones: 90 % nodes and aligned runs with 10 % characters, characters alone,
and aligned runs alone.

2506.00204 (AST-FIM): better infilling at equal left-to-right loss; unreplicated. Re-implementations want at least a
tenth of random spans. Judged on nodes of Python's own grammar, which the training store's parser had no part in, and on
gaps at any byte. The store must hold syntax spans.

    python -m experiments.syntax
"""

from benchmarks.common import run_main

from experiments.arms import arm
from experiments.benches import LONG
from experiments.harness import Experiment, Record, main
from experiments.lengths import law, mean, trained
from experiments.measure import bits_per_byte, pool
from experiments.tables import Column, Value, against, by_arm, l2r_bits, ratio

UNIFORM = {"kind": "uniform", "low": 1, "high": 100}
NODE = {"kind": "ast_node", "weight": 0.45}
ALIGNED = {"kind": "ast_aligned", "weight": 0.45, "length": UNIFORM}
ARMS = (
    arm(
        "ast 90, characters 10",
        LONG,
        spans={"node": NODE, "aligned": ALIGNED, "characters": {"kind": "sized", "weight": 0.1, "length": UNIFORM}},
    ),
    arm("uniform", LONG, spans=law("uniform", low=1, high=100)),
    arm("aligned alone", LONG, spans={"aligned": {**ALIGNED, "weight": 1.0}}),
)


def bits(prefix: str) -> Value:
    """Bits per byte of middles, mean of both orders."""

    def value(record: Record) -> float:
        return sum(bits_per_byte(pool(record["final"]["forced"], order, prefix)) for order in ("psm", "spm")) / 2

    return value


def valid(prefix: str) -> Value:
    """Share of whole files that compile with the completion, of those that compile with the gold."""

    def value(record: Record) -> float:
        sums = [pool(record["final"]["generated"], order, prefix) for order in ("psm", "spm")]
        return sum(ratio(one, "valid", "judged") for one in sums) / len(sums)

    return value


def tables(found: dict[str, list[Record]]) -> str:
    """Loss, stopping and validity on nodes and on random gaps."""
    titles = {"node": "nodes", "byte": "any byte"}
    parts = []
    for columns in (
        [
            Column("L2R bits per byte", l2r_bits),
            *(Column(f"middle bits per byte, {t}", bits(u)) for u, t in titles.items()),
        ],
        [Column(f"end nats, {t}", mean("forced", u, "end_nats"), 2) for u, t in titles.items()]
        + [Column(f"stops right, {t}", mean("forced", u, "right"), 1, True) for u, t in titles.items()],
        [Column(f"stopped by itself, {t}", mean("generated", u, "stopped"), 1, True) for u, t in titles.items()]
        + [Column(f"valid Python, {t}", valid(u), 1, True) for u, t in titles.items()],
        [Column(f"length within 2, {t}", mean("generated", u, "length_near"), 1, True) for u, t in titles.items()]
        + [Column(f"exact, {t}", mean("generated", u, "exact"), 1, True) for u, t in titles.items()],
    ):
        parts += [by_arm(found, columns), against(found, "uniform", columns)]
    return "\n\n".join([*(part for part in parts if part), trained(found)])


EXPERIMENT = Experiment("syntax", "spans of the syntax tree against random spans", ARMS, tables)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
