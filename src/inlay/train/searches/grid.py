"""The product of lists of values: every combination, known before the first run."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from inlay.train.search import Outcomes, Scalar, Search, Trial, Values, override, point_name, point_overrides, searches


@searches.register
class Grid(Search):
    """Every combination of the axes' values, the last axis changing first."""

    kind: Literal["grid"] = "grid"
    axes: dict[str, tuple[Scalar, ...]] = Field({"optim.lr": (0.005, 0.01, 0.02, 0.04, 0.08)}, min_length=1)
    """Values by option, such as `optim.lr: [0.01, 0.02, 0.04]`."""

    @field_validator("axes")
    @classmethod
    def _distinct(cls, axes: dict[str, tuple[Scalar, ...]]) -> dict[str, tuple[Scalar, ...]]:
        for key, values in axes.items():
            if not values or len({override(key, value) for value in values}) != len(values):
                raise ValueError(f"'{key}' needs values, each of them once")
        points = [point_name(dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
        if len(set(points)) != len(points):
            raise ValueError("two of its points would have the same name: write their values with fewer digits")
        return axes

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def adaptive(self) -> bool:
        return False

    def corners(self) -> list[Values]:
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def first(self, seeds: Sequence[int]) -> list[Trial]:
        return [Trial(point_name(point), point, seed) for seed in seeds for point in self.corners()]

    def wanted(self, seeds: Sequence[int], outcomes: Outcomes, slots: int, folder: Path) -> list[Trial]:
        return self.first(seeds)

    def most(self, seeds: Sequence[int]) -> int:
        return len(self.corners()) * len(seeds)

    def outline(self, seeds: Sequence[int]) -> list[str]:
        return [" ".join(point_overrides(point)) for point in self.corners()]
