"""The benches: what all arms of an experiment share, and the gaps they are judged on.

Each is a compromise between what a model of 0.85M parameters learns within 2M tokens and how long middles have to be
for the question asked.
"""

from dataclasses import dataclass
from typing import Any

from experiments.gaps import Category
from experiments.measure import ORDERS, PLAIN
from inlay.fim.family import Order


@dataclass(frozen=True)
class Bench:
    """What all arms share, and how they are judged."""

    name: str
    length: int
    """Slots of a row (T); a step has `2048 / T` rows."""
    shortest_piece: int
    context: tuple[int, int]
    """Tokens kept on each side of a gap."""
    gaps: tuple[Category, ...]
    orders: tuple[str, ...]
    """Orders that are judged."""
    checkpoints: tuple[float, ...]
    """Shares of the run after which it is judged on the head of the list, beside its end."""
    head: int
    """Gaps of the list that are judged there."""
    generate: tuple[Order, ...] = ()
    """Orders in which completions are generated at the end."""
    budget: int = 1


def _buckets(unit: Any, *buckets: tuple[int, int], count: int = 160) -> tuple[Category, ...]:
    return tuple(Category(unit, low, high, count) for low, high in buckets)


SHORT = Bench(
    name="short",
    length=128,
    shortest_piece=16,
    context=(16, 44),
    gaps=(
        *_buckets("token", (1, 2), (3, 8), (9, 32)),
        *_buckets("inside", (1, 2), (3, 8), (9, 32)),
        *_buckets("line", (1, 32)),
    ),
    orders=(*ORDERS, PLAIN),
    checkpoints=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4),
    head=420,
)
"""Rows of 128, middles up to 32 tokens."""

DENSE = Bench(
    name="dense",
    length=64,
    shortest_piece=8,
    context=(8, 22),
    gaps=(
        *_buckets("token", (1, 1), (2, 4), (5, 16), count=120),
        *_buckets("inside", (1, 1), (2, 4), (5, 16), count=120),
        *_buckets("line", (1, 16), count=120),
    ),
    orders=(*ORDERS, PLAIN),
    checkpoints=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4),
    head=420,
)
"""Rows of 64, middles up to 16 tokens: twice as many middles per token, so that a model of 0.85M parameters begins to
infill within 2M tokens (with rows of 128 and loss 1 everywhere it does not)."""

LONG = Bench(
    name="long",
    length=256,
    shortest_piece=48,
    context=(50, 59),
    gaps=(
        *_buckets("byte", (1, 1), (2, 4), (5, 10), (11, 20), (21, 40), (41, 70), (71, 100), count=60),
        *_buckets("node", (1, 4), (5, 16), (17, 48), count=80),
    ),
    orders=("psm", "spm", PLAIN),
    checkpoints=(),
    head=0,
    generate=("psm", "spm"),
    budget=128,
)
"""Rows of 256, middles up to 100 tokens, and room for a completion of 128 behind every prompt."""
