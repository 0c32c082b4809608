"""fixed(length): one length always, for benchmarks and comparisons."""

from typing import Literal

from pydantic import Field

from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class Fixed(LengthLaw):
    """Every middle has `length` tokens."""

    kind: Literal["fixed"] = "fixed"
    length: int = Field(16, ge=1, le=1 << 24)

    @property
    def least(self) -> int:
        return self.length

    def draw(self, draws: Draws, most: int | None = None) -> int:
        return self.length
