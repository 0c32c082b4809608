"""Schedules: a multiplier of the learning rate as a pure function of the step.

One file a kind in `inlay.train.schedules`.
"""

from abc import abstractmethod

from pydantic import Field

from inlay.config import Config, Registry

schedules = Registry("schedule", "inlay.train.schedules")


class Schedule(Config):
    """Linear warmup, then what the kind says."""

    kind: str
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warmup from 0."""

    def multiplier(self, step: int, total: int) -> float:
        """Share of the peak learning rate at `step` (0-based) of `total`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        span = max(1, total - self.warmup_steps)
        return self.after_warmup(min(1.0, (step - self.warmup_steps) / span))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Share of the peak at `progress` in [0, 1] between the end of warmup and the end of the run."""
