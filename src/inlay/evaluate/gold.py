"""The gold answers through the whole path of an evaluation, before any model is asked.

It decides what a working harness must give back: every gold text unchanged through prompt, ids and detokenisation, no
metric with a fixed value for gold (`Metric.gold`) off that value, every test passed. What falls short is named by id
and reason; the scores of a model mean nothing on such examples.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inlay.evaluate.metric import Metric
from inlay.evaluate.metrics import Judge, gold_reasons
from inlay.evaluate.subject import Subject
from inlay.evaluate.task import Example, TaskConfig
from inlay.text.progress import Progress

if TYPE_CHECKING:
    from inlay.evaluate.run import Runner

SHARES = {"syntax_valid": "syntax_measured", "compiles": "compiles_measured", "passed": "passed_measured"}
"""Metrics whose share over gold is reported, and the name of the number of examples it was measured on."""


@dataclass(frozen=True)
class Gold:
    """What became of the gold answers."""

    n: int
    exact: float
    """Share that came back unchanged."""
    shares: dict[str, float | None]
    measured: dict[str, int]
    failures: tuple[tuple[str, str], ...]
    """(id, reasons) of every example whose gold fell short."""
    unavailable: dict[str, int]
    """Examples whose tests could not run here, by language."""

    def summary(self) -> str:
        """For an error: how many fell short, and the first ones."""
        shown = ", ".join(f"{name} ({reason})" for name, reason in self.failures[:3])
        return f"{len(self.failures)} of {self.n} fall short, such as {shown}"

    def to_dict(self) -> dict[str, Any]:
        """As a result has it."""
        return {
            "exact": self.exact,
            "n": self.n,
            **self.shares,
            **{SHARES[name]: count for name, count in self.measured.items()},
            "failures": [{"id": name, "reason": reason} for name, reason in self.failures],
            "unavailable": self.unavailable,
        }


def score_gold(
    subject: Subject,
    task: TaskConfig,
    examples: Sequence[Example],
    orders: Sequence[str],
    judge: Judge,
    runner: "Runner",
    metrics: Sequence[Metric],
    progress: Progress,
) -> Gold:
    """Scores the gold answer of every example as if the subject had given it, in each of `orders`."""
    answers = [[subject.gold_answer(example)] for example in examples]
    # What over- and underrun are counted against.
    lengths = {e.id: a[0].tokens for e, a in zip(examples, answers, strict=True) if a[0].tokens is not None}
    judge.gold_tokens.update(lengths)
    answered = runner.answered(examples, answers, "run tests, gold")
    with progress.phase("gold", len(examples), "gaps") as phase:
        scored = judge.score(answered, phase.advance)
    failures: list[tuple[str, str]] = []
    unavailable: Counter[str] = Counter()
    exact = 0
    for one in scored:
        troubles = {order: subject.gold_trouble(one.example, order, task.max_tokens) for order in orders}
        broken = [f"{order}: {trouble}" for order, trouble in troubles.items() if trouble is not None]
        exact += one.exact and not broken
        reasons = [*broken, *gold_reasons(one, metrics)]
        if reasons:
            failures.append((one.example.id, "; ".join(reasons)))
        outcome = one.answered.raw_outcome
        if outcome is not None and outcome.verdict == "unavailable":
            unavailable[one.example.language or "unknown"] += 1
    shares: dict[str, float | None] = {}
    measured: dict[str, int] = {}
    for name in SHARES:
        values = [measure for one in scored if (measure := one.measures.get(name)) is not None]
        weight = sum(measure[1] for measure in values)
        shares[name] = sum(measure[0] for measure in values) / weight if weight else None
        measured[name] = len(values)
    return Gold(len(examples), exact / len(examples), shares, measured, tuple(failures), dict(unavailable))
