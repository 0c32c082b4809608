"""uniform(low, high): seed 000's corrected law is uniform(1, 100)."""

from typing import Literal

from pydantic import Field, model_validator

from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class Uniform(LengthLaw):
    """Every whole length from `low` to `high` tokens alike."""

    kind: Literal["uniform"] = "uniform"
    low: int = Field(1, ge=1, le=1 << 24)
    high: int = Field(100, ge=1, le=1 << 24)

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def least(self) -> int:
        return self.low

    def draw(self, draws: Draws, most: int | None = None) -> int:
        high = self.high if most is None else min(self.high, most)
        return draws.integer(self.low, high + 1)
