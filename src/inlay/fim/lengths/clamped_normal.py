"""clamped_normal(mean, deviation, low, high): seed 000's first law, clamp(N(50, 40), 1, 100), kept for comparison."""

from statistics import NormalDist
from typing import Literal

from pydantic import Field, model_validator

from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class ClampedNormal(LengthLaw):
    """A rounded normal draw, clamped to [low, high] tokens; the mass beyond a border sits on it."""

    kind: Literal["clamped_normal"] = "clamped_normal"
    mean: float = Field(50.0, ge=-1e6, le=1e6)
    deviation: float = Field(40.0, gt=0.0, le=1e6)
    low: int = Field(1, ge=1, le=1 << 24)
    high: int = Field(100, ge=1, le=1 << 24)

    @model_validator(mode="after")
    def _ordered(self) -> "ClampedNormal":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def least(self) -> int:
        return self.low

    def draw(self, draws: Draws, most: int | None = None) -> int:
        if most is not None and most < self.high:
            law = NormalDist(self.mean, self.deviation)
            chance = law.cdf(most + 0.5) * draws.uniform()
            # Far below the mean the chance is too small for a number, and what is left of the law lies at its end.
            value = round(law.inv_cdf(chance)) if chance > 0.0 else most
            return min(most, max(self.low, value))
        return min(self.high, max(self.low, round(draws.normal(self.mean, self.deviation))))
