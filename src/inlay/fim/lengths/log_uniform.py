"""log_uniform(low, high): as many short as long middles on a logarithmic scale, which teaches stopping soon."""

import math
from typing import Literal

from pydantic import Field, model_validator

from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class LogUniform(LengthLaw):
    """floor(exp(U)) with U uniform on [ln low, ln(high + 1)): P(n) = ln((n+1)/n) / ln((high+1)/low)."""

    kind: Literal["log_uniform"] = "log_uniform"
    low: int = Field(1, ge=1, le=1 << 24)
    high: int = Field(100, ge=1, le=1 << 24)

    @model_validator(mode="after")
    def _ordered(self) -> "LogUniform":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    @property
    def least(self) -> int:
        return self.low

    def draw(self, draws: Draws, most: int | None = None) -> int:
        longest = self.high if most is None else min(self.high, most)
        # Up to any length the law is of its own kind.
        low, high = math.log(self.low), math.log(longest + 1)
        return min(longest, max(self.low, int(math.exp(low + draws.uniform() * (high - low)))))
