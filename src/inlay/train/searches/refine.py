"""A learning rate's curve in few runs: rates by a factor, closer ones around the best, more seeds for the best two.

1. `points` values around `center`, each `factor` times the one before. While the best is the lowest or the highest, one
   more beyond it, at most `extensions` times: a minimum at the edge is not one.
2. `refinements` times: one value on each side of the best, at the square root of the distance before (a factor of 2,
   then 1.41, then 1.19).
3. The best two of all get further seeds until they have `seeds_for_best`: how far two rates differ means nothing
   without how far two seeds do.

Which value is chosen in the end is no matter of the search: `inlay.train.curve` reads the whole curve.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from inlay.train.search import Outcomes, Search, Trial, Values, mean_of, point_name, rounded, searches


@searches.register
class Refine(Search):
    """One positive option on a logarithmic axis."""

    kind: Literal["refine"] = "refine"
    parameter: str = "optim.lr"
    center: float = Field(0.02, gt=0.0, le=1e300)
    factor: float = Field(2.0, gt=1.0, le=1e6)
    points: int = Field(5, ge=3, le=1000)
    extensions: int = Field(2, ge=0, le=1000)
    """Further values beyond an edge that turns out the best."""
    refinements: int = Field(1, ge=0, le=1000)
    seeds_for_best: int = Field(2, ge=1, le=1000)
    """Seeds that the best two end up with, those of the sweep first, then the next numbers."""

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.parameter,)

    def corners(self) -> list[Values]:
        reach = [self.extensions + self.points - 1 - self._below, -self.extensions - self._below]
        return [{self.parameter: self._at(place)} for place in (*map(float, reach), 0.0)]

    def first(self, seeds: Sequence[int]) -> list[Trial]:
        return self._trials([float(place - self._below) for place in range(self.points)], seeds)

    def wanted(self, seeds: Sequence[int], outcomes: Outcomes, slots: int, folder: Path) -> list[Trial]:
        # Every decision is made from the trials that were wanted before it, so that no later outcome changes it.
        places = [float(place - self._below) for place in range(self.points)]
        for _ in range(self.extensions):
            best = self._best(places, seeds, outcomes)
            if best is None:
                return self._trials(places, seeds)
            if min(places) < best < max(places):
                break
            places.append(best - 1.0 if best == min(places) else best + 1.0)
        distance = 1.0
        for _ in range(self.refinements):
            best = self._best(places, seeds, outcomes)
            if best is None:
                return self._trials(places, seeds)
            distance /= 2.0
            places += [place for place in (best - distance, best + distance) if place not in places]
        trials = self._trials(places, seeds)
        if self._best(places, seeds, outcomes) is None:
            return trials
        more = [number for number in range(max(seeds) + self.seeds_for_best + 1) if number not in seeds]
        further = more[: max(0, self.seeds_for_best - len(seeds))]
        ranked = sorted(places, key=lambda place: (self._mean(place, seeds, outcomes), place))
        best_two = [place for place in ranked[:2] if math.isfinite(self._mean(place, seeds, outcomes))]
        return trials + self._trials(best_two, further)

    def most(self, seeds: Sequence[int]) -> int:
        further = max(0, self.seeds_for_best - len(seeds))
        return (self.points + self.extensions + 2 * self.refinements) * len(seeds) + 2 * further

    def outline(self, seeds: Sequence[int]) -> list[str]:
        first = [f"{trial.values[self.parameter]:g}" for trial in self.first(seeds[:1])]
        lines = [f"{self.parameter}={', '.join(first)}"]
        if self.extensions:
            lines.append(f"at most {self.extensions} more beyond the edge, while the best is there")
        step = self.factor
        for _ in range(self.refinements):
            step = math.sqrt(step)
            lines.append(f"then the best / {step:.3g} and the best x {step:.3g}")
        if self.seeds_for_best > len(seeds):
            lines.append(f"then the best two with seeds until they have {self.seeds_for_best}")
        return lines

    @property
    def _below(self) -> int:
        """Points of the first round below the centre."""
        return (self.points - 1) // 2

    def _at(self, place: float) -> float:
        return rounded(self.center * self.factor**place)

    def _trials(self, places: Sequence[float], seeds: Sequence[int]) -> list[Trial]:
        points = [{self.parameter: self._at(place)} for place in places]
        return [Trial(point_name(point), point, seed) for seed in seeds for point in points]

    def _mean(self, place: float, seeds: Sequence[int], outcomes: Outcomes) -> float:
        value = mean_of(point_name({self.parameter: self._at(place)}), seeds, outcomes)
        return math.inf if value is None else value

    def _best(self, places: Sequence[float], seeds: Sequence[int], outcomes: Outcomes) -> float | None:
        """The place of the lowest value, the lower place of equal ones; None while a trial has not ended."""
        names = [point_name({self.parameter: self._at(place)}) for place in places]
        if any(mean_of(name, seeds, outcomes) is None for name in names):
            return None
        return min(places, key=lambda place: (self._mean(place, seeds, outcomes), place))
