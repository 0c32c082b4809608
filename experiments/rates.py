"""(a) Does infilling cost left-to-right loss? Rates 0, 0.5, 0.9 and 1.0 at equal tokens.

2207.14255 (section 3, 50B tokens): no cost up to 0.9, a cost at 1.0; and the middle of a FIM example is easier than the
same text read left to right.

    python -m experiments.rates
"""

from benchmarks.common import run_main

from experiments.arms import arm
from experiments.benches import SHORT
from experiments.harness import Experiment, Record, main
from experiments.measure import PLAIN, bits_per_byte
from experiments.tables import Column, against, by_arm, forced, l2r_bits, markdown, middle_bits, text


def tables(found: dict[str, list[Record]]) -> str:
    """Left-to-right loss at the end and on the way, and the loss of middles with and without the suffix."""
    columns = [
        Column("L2R bits per byte", l2r_bits),
        Column("middles as plain text", middle_bits(PLAIN, "token")),
        Column("in PSM", middle_bits("psm", "token")),
        Column("in SPM", middle_bits("spm", "token")),
        Column("first token right, SPM", forced("spm", "token", "first_right"), 1, percent=True),
    ]
    return "\n\n".join([by_arm(found, columns), against(found, "rate 0", columns[:2]), curve(found)])


def curve(found: dict[str, list[Record]]) -> str:
    """Left-to-right bits per byte on the way."""
    points = [int(point["tokens"]) for point in next(iter(found.values()))[0]["curve"]]
    rows = [
        [
            name,
            *(text([bits_per_byte(record["curve"][at]["l2r"]) for record in records], 3) for at in range(len(points))),
        ]
        for name, records in found.items()
    ]
    return markdown(["L2R bits per byte after", *(f"{point / 1e6:.1f}M" for point in points)], rows)


EXPERIMENT = Experiment(
    "rates",
    "left-to-right loss by FIM rate",
    tuple(arm(f"rate {rate:g}", SHORT, rate=rate) for rate in (0.0, 0.5, 0.9, 1.0)),
    tables,
)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
