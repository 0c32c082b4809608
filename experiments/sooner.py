"""(f) How soon does each order learn to infill? The runs of (b), judged on the way at equal tokens.

python -m experiments.sooner
"""

from collections.abc import Callable

from benchmarks.common import run_main

from experiments import orders
from experiments.harness import Experiment, Record, main
from experiments.measure import PLAIN, Sums, bits_per_byte, pool
from experiments.tables import markdown, ratio, text

OWN = {"psm": ("psm",), "spm": ("spm",), "spm_v2": ("spm_v2",), "half psm half spm": ("psm", "spm")}
"""The orders an arm was trained in."""


def tables(found: dict[str, list[Record]]) -> str:
    """A curve a measure: each arm in the orders that it was trained in."""
    points = [record["tokens"] for record in next(iter(found.values()))[0]["curve"]]

    def curve(title: str, value: Callable[[Record, str], float], digits: int, percent: bool = False) -> str:
        rows = [
            [
                f"{name} in {order}",
                *(
                    text([value(record["curve"][at]["forced"], order) for record in records], digits, percent)
                    for at in range(len(points))
                ),
                text([value(record["final"]["forced"], order) for record in records], digits, percent),
            ]
            for name, records in found.items()
            for order in OWN[name]
        ]
        last = next(iter(found.values()))[0]["tokens"]
        return markdown([title, *(f"{point / 1e6:.1f}M" for point in (*points, last))], rows)

    def bits(forced: Record, order: str) -> float:
        return bits_per_byte(pool(forced, order))

    def gain(forced: Record, order: str) -> float:
        return bits_per_byte(pool(forced, PLAIN)) - bits_per_byte(pool(forced, order))

    def share(name: str) -> Callable[[Record, str], float]:
        def of(forced: Record, order: str) -> float:
            sums: Sums = pool(forced, order)
            return ratio(sums, name)

        return of

    return "\n\n".join(
        [
            curve("middle, bits per byte, after", bits, 2),
            curve("bits per byte saved against the same model on plain text", gain, 2),
            curve("first token right", share("first_right"), 1, True),
            curve("stops right", share("right"), 1, True),
        ]
    )


EXPERIMENT = Experiment(
    "sooner", "how soon each order learns to infill", orders.ARMS, tables, tokens=orders.EXPERIMENT.tokens
)

if __name__ == "__main__":
    run_main(lambda arguments: main([EXPERIMENT], arguments))
