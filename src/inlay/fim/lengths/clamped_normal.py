"""clamped_normal(mean, deviation, low, high): seed 000's first law, clamp(N(50, 40), 1, 100), kept for comparison."""

from typing import Literal

from pydantic import Field, model_validator

from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class ClampedNormal(LengthLaw):
    """A rounded normal draw, clamped to [low, high] tokens; the mass beyond a border sits on it."""

    kind: Literal["clamped_normal"] = "clamped_normal"
    mean: float = 50.0
    deviation: float = Field(40.0, gt=0.0)
    low: int = Field(1, ge=1)
    high: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "ClampedNormal":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def draw(self, draws: Draws) -> int:
        return min(self.high, max(self.low, round(draws.normal(self.mean, self.deviation))))
