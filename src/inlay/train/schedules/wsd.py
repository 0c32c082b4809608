"""Warmup, stable, decay (2404.06395): constant, then a cooldown over the last share of the run."""

import math
from typing import Literal

from pydantic import Field

from inlay.train.schedule import Schedule, schedules


@schedules.register
class WarmupStableDecay(Schedule):
    """`decay` is the share of the run (after warmup) that cools down to `floor` times the peak."""

    kind: Literal["wsd"] = "wsd"
    decay: float = Field(0.6, ge=0.0, le=1.0)
    shape: Literal["linear", "sqrt"] = "linear"
    """linear, or 1 - sqrt(progress), which falls sooner."""
    floor: float = Field(0.0, ge=0.0, le=1.0)

    def after_warmup(self, progress: float) -> float:
        stable = 1.0 - self.decay
        if progress < stable or self.decay == 0.0:
            return 1.0
        fallen = (progress - stable) / self.decay
        fallen = math.sqrt(fallen) if self.shape == "sqrt" else fallen
        return 1.0 - (1.0 - self.floor) * fallen
