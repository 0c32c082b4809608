"""Parts that several experiments share: equal arms are equal runs, whatever they are called."""

from typing import Any

from experiments.benches import DENSE, LONG, SHORT, Bench
from experiments.harness import Arm

JOINT = {"psm": 0.5, "spm": 0.5}
LENGTHS: dict[str, Any] = {
    SHORT.name: {"kind": "log_uniform", "low": 1, "high": 32},
    DENSE.name: {"kind": "log_uniform", "low": 1, "high": 16},
}
"""Law of the middle's length by bench, where the law is not the question: as many short as long middles."""
LOSS: dict[str, dict[str, float]] = {
    DENSE.name: {"middle": 4.0, "terminator": 4.0},
    LONG.name: {"middle": 4.0, "terminator": 4.0},
}
"""Loss weights by bench; where none are given, every token weighs 1. They let so small a model learn to infill soon."""


def arm(
    name: str,
    bench: Bench,
    *,
    rate: float = 0.9,
    orders: dict[str, float] = JOINT,
    spans: dict[str, Any] | None = None,
) -> Arm:
    """An arm; by default rate 0.9, half PSM half SPM, and both ends of the middle at any character."""
    spans = spans or {"characters": {"kind": "sized", "length": LENGTHS[bench.name]}}
    loss = LOSS.get(bench.name)
    return Arm(name, bench, {"rate": rate, "orders": orders, "spans": spans, **({"loss": loss} if loss else {})})
