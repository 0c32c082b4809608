"""Half a cosine from the peak to `floor` times the peak (1608.03983)."""

import math
from typing import Literal

from pydantic import Field

from inlay.train.schedule import Schedule, schedules


@schedules.register
class Cosine(Schedule):
    """Falls over the whole run after warmup."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.1, ge=0.0, le=1.0)

    def after_warmup(self, progress: float) -> float:
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))

    @property
    def stable(self) -> float:
        return 1.0 if self.floor == 1.0 else 0.0

    @property
    def fall(self) -> str:
        return f"half a cosine to {self.floor:g} of the peak"
