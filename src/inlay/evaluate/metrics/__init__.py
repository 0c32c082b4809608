"""What is measured of every task: the list (`definitions`), the judge that measures, and one file a concern.

`METRICS` are the definitions, `Judge` makes the numbers, `inlay.evaluate.summary` adds them up.
"""

from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.metrics.definitions import METRICS, PER_EXAMPLE
from inlay.evaluate.metrics.execution import pass_at_k
from inlay.evaluate.metrics.judge import Judge, gold_reasons
from inlay.evaluate.metrics.stopping import loops
from inlay.evaluate.scored import Answered, Scored

__all__ = [
    "METRICS",
    "PER_EXAMPLE",
    "Answered",
    "Judge",
    "Measure",
    "Metric",
    "Scored",
    "gold_reasons",
    "loops",
    "pass_at_k",
]
