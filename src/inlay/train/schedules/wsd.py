"""Warmup, stable, decay (2404.06395): constant, then a cooldown over the last share of the run.

Shapes of the cooldown as compared in 2405.18392: there 1 - sqrt ends slightly lower than linear at equal length.
"""

import math
from typing import Literal

from pydantic import Field

from inlay.train.schedule import Schedule, schedules


@schedules.register
class WarmupStableDecay(Schedule):
    """`decay` is the share of the run (after warmup) that cools down to `floor` times the peak."""

    kind: Literal["wsd"] = "wsd"
    decay: float = Field(0.6, ge=0.0, le=1.0)
    shape: Literal["linear", "sqrt", "cosine"] = "linear"
    """linear; 1 - sqrt(progress), which falls sooner; or half a cosine, which falls later and then faster."""
    floor: float = Field(0.0, ge=0.0, le=1.0)

    def after_warmup(self, progress: float) -> float:
        stable = 1.0 - self.decay
        if progress < stable or self.decay == 0.0:
            return 1.0
        fallen = min(1.0, (progress - stable) / self.decay)
        if self.shape == "sqrt":
            fallen = math.sqrt(fallen)
        elif self.shape == "cosine":
            fallen = 0.5 - 0.5 * math.cos(math.pi * fallen)
        return 1.0 - (1.0 - self.floor) * fallen

    @property
    def stable(self) -> float:
        return 1.0 if self.floor == 1.0 else 1.0 - self.decay

    @property
    def fall(self) -> str:
        return f"{self.shape} cooldown to {self.floor:g} of the peak"
