"""Schedules: a multiplier of the learning rate as a pure function of the step.

One file a kind in `inlay.train.schedules`. Warmup is counted in steps; what comes after goes by the share of the run
that is done, which a plan counts in tokens: a stage with more tokens a step is then a longer part of the cooldown, and
where all steps have the same number of tokens it is the share of the steps.
"""

from abc import abstractmethod
from collections.abc import Callable

from pydantic import Field

from inlay.config import Config, Registry

schedules = Registry("schedule", "inlay.train.schedules")


def count_steps(step: int) -> int:
    """Progress counted in steps."""
    return step


class Schedule(Config):
    """Linear warmup, then what the kind says."""

    kind: str
    warmup_steps: int = Field(20, ge=0, le=10**12)
    """Steps of linear warmup from 0."""

    def multiplier(self, step: int, total: int, done: Callable[[int], int] = count_steps) -> float:
        """Share of the peak learning rate at `step` (0-based) of `total`; `done`: the tokens of so many steps."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.after_warmup(self.progress(step, total, done))

    def progress(self, step: int, total: int, done: Callable[[int], int] = count_steps) -> float:
        """Share in [0, 1] of what comes after warmup that is done when `step` begins."""
        warm = done(self.warmup_steps)
        return min(1.0, max(0, done(step) - warm) / max(1, done(total) - warm))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Share of the peak at `progress` in [0, 1] between the end of warmup and the end of the run."""

    @property
    @abstractmethod
    def stable(self) -> float:
        """The progress until which the rate keeps its peak: 0 falls at once, 1 never."""

    @property
    @abstractmethod
    def fall(self) -> str:
        """In a few words how the rate falls behind `stable`."""
