"""stratified(borders): as many middles of each class of length, so that short ones are never rare."""

from typing import Literal

from pydantic import Field, field_validator

from inlay.config import Count
from inlay.fim.draws import Draws
from inlay.fim.length import LengthLaw, lengths


@lengths.register
class Stratified(LengthLaw):
    """A bucket, all alike, then a length in it, all alike: 1, 2-4, 5-8, 9-16, 17-32, 33-64, 65-100 by default."""

    kind: Literal["stratified"] = "stratified"
    borders: tuple[Count, ...] = Field((1, 4, 8, 16, 32, 64, 100), min_length=1)
    """The longest length of each bucket, rising; the first bucket begins at 1."""

    @field_validator("borders")
    @classmethod
    def _rising(cls, borders: tuple[int, ...]) -> tuple[int, ...]:
        below = 0
        for border in borders:
            if border <= below:
                raise ValueError(f"border {border} is not above {below}: borders rise from 1 on")
            below = border
        return borders

    @property
    def least(self) -> int:
        return 1

    def draw(self, draws: Draws, most: int | None = None) -> int:
        lows = [1, *(border + 1 for border in self.borders[:-1])]
        most = self.borders[-1] if most is None else most
        # Of the bucket that `most` falls into a part is left, and so is that part of its share.
        left = [max(0, min(high, most) + 1 - low) for low, high in zip(lows, self.borders, strict=True)]
        whole = [high + 1 - low for low, high in zip(lows, self.borders, strict=True)]
        bucket = draws.choose([part / size for part, size in zip(left, whole, strict=True)])
        return draws.integer(lows[bucket], lows[bucket] + left[bucket])
