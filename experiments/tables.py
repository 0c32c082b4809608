"""Tables over seeds: mean with range for each arm, and differences to one arm paired by seed."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.measure import Sums, bits_per_byte, pool

Record = dict[str, Any]
Value = Callable[[Record], float]


@dataclass(frozen=True)
class Column:
    """A number of a run, and how it is written."""

    title: str
    value: Value
    digits: int = 3
    percent: bool = False


def text(values: Sequence[float], digits: int, percent: bool = False, signed: bool = False) -> str:
    """`mean (low to high)` over seeds."""
    scale, unit = (100.0, " %") if percent else (1.0, "")
    sign = "+" if signed else ""
    mean, low, high = (
        f"{scale * value:{sign}.{digits}f}" for value in (statistics.mean(values), min(values), max(values))
    )
    return f"{mean}{unit}" if len(values) == 1 else f"{mean}{unit} ({low} to {high})"


def by_arm(found: dict[str, list[Record]], columns: Sequence[Column]) -> str:
    """One line an arm."""
    rows = [
        [
            name,
            *(text([column.value(record) for record in records], column.digits, column.percent) for column in columns),
        ]
        for name, records in found.items()
    ]
    return markdown(["arm", *(column.title for column in columns)], rows)


def against(found: dict[str, list[Record]], base: str, columns: Sequence[Column]) -> str:
    """Each arm less `base`, seed by seed."""
    if base not in found:
        return ""
    rows = []
    for name, records in found.items():
        if name != base:
            pairs = list(zip(records, found[base], strict=True))
            cells = [
                text([c.value(one) - c.value(other) for one, other in pairs], c.digits, c.percent, signed=True)
                for c in columns
            ]
            rows.append([name, *cells])
    return markdown([f"less {base}, paired", *(column.title for column in columns)], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio(sums: Sums, name: str, over: str = "n") -> float:
    """A sum over another; nan where there is nothing."""
    return sums.get(name, 0.0) / sums[over] if sums.get(over) else float("nan")


def forced(order: str, prefix: str, name: str, over: str = "n") -> Value:
    """A teacher-forced mean of one order, over the categories whose name starts with `prefix`."""
    return lambda record: ratio(pool(record["final"]["forced"], order, prefix), name, over)


def made(order: str, prefix: str, name: str, over: str = "n") -> Value:
    """A mean over greedy completions."""
    return lambda record: ratio(pool(record["final"]["generated"], order, prefix), name, over)


def middle_bits(order: str, prefix: str = "") -> Value:
    """Bits per byte of the middles."""
    return lambda record: bits_per_byte(pool(record["final"]["forced"], order, prefix))


def l2r_bits(record: Record) -> float:
    """Bits per byte of held-out plain text at the end of the run."""
    return bits_per_byte(record["final"]["l2r"])
