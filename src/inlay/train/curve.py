"""Reads a learning rate's curve: which rate to take from losses at several rates, and how sure that is.

The loss is taken as a function of the rate plus a shift by the seed, fitted by least squares, so that rates with more
seeds than others compare fairly; what is left over is the spread. The flat part is where the loss, joined by straight
lines over the logarithm of the rate, is within a tolerance of the best. Its middle is what one takes: which of a few
close points is the lowest is mostly luck. A parabola through the points
near the best, with the standard error of its vertex, is the second opinion.

It refuses a curve that has no minimum to read: fewer than three rates, or the best one at the edge.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inlay.config import BadInput

FLAT_SHARE = 0.0025
"""Of the best loss: rates within it count as equally good. Our choice, no published number."""
SIGMAS = 2.0
"""Standard deviations between seeds within which rates are as good as each other, where that is more."""
OCTAVES = 2.0
"""The parabola is fitted to rates within a factor of four of the best: further out no curve is one."""
COARSE = 2.1
"""Factor between the best rate and its neighbours above which the curve is too coarse to choose from."""
DISAGREEMENT = 0.5
"""Octaves (a factor of 1.41) between the middle of the flat part and the vertex that call for a warning."""


@dataclass(frozen=True)
class Rate:
    """One learning rate. `loss` is fitted at the mean seed; None where every seed diverged."""

    value: float
    losses: dict[int, float]
    """By seed, those that did not diverge."""
    diverged: int
    loss: float | None


@dataclass(frozen=True)
class Reading:
    """A curve, read. Rates are in the units of the option, spreads in octaves (factors of two)."""

    rates: tuple[Rate, ...]
    best: float
    """The rate of the lowest measured loss."""
    best_loss: float
    sigma: float | None
    """Standard deviation of a loss between seeds; None without repeated rates."""
    tolerance: float
    low: float
    high: float
    """The flat part."""
    chosen: float
    """Its middle, in the logarithm."""
    vertex: float | None
    """Of the parabola; None where the points near the best are no valley."""
    vertex_error: float | None
    """Its standard error in octaves; None where the spread is not known."""
    warnings: tuple[str, ...]


def read_curve(measured: Iterable[tuple[float, int, float]]) -> Reading:
    """Reads (rate, seed, loss) of runs that are comparable in everything else; a loss that is not finite diverged.

    Raises BadInput, which says which rates to add, for fewer than three rates or a minimum at the edge.
    """
    rows = sorted(measured)
    rates, sigma = _fit_rates(rows)
    finite = [rate for rate in rates if rate.loss is not None]
    if len(finite) < 3:
        values = ", ".join(f"{rate.value:g}" for rate in finite) or "none"
        raise BadInput(f"a curve needs at least 3 learning rates that did not diverge, and has {len(finite)}: {values}")
    losses = [rate.loss for rate in finite if rate.loss is not None]
    place = int(np.argmin(losses))
    best, best_loss = finite[place].value, losses[place]
    cliff = any(rate.loss is None and rate.value > best for rate in rates)
    _refuse_edge(finite, place, cliff)
    tolerance = max(FLAT_SHARE * best_loss, SIGMAS * (sigma or 0.0))
    octaves = [math.log2(rate.value) for rate in finite]
    low, low_open = _crossing(octaves[place::-1], losses[place::-1], best_loss + tolerance)
    high, high_open = _crossing(octaves[place:], losses[place:], best_loss + tolerance)
    middle = (low + high) / 2.0
    vertex, error = _parabola(octaves, losses, [len(rate.losses) for rate in finite], place, sigma)
    warnings = []
    if sigma is None:
        warnings.append("no rate has two seeds: how far two rates must differ to mean anything is not known")
    beside = [finite[place].value / finite[place - 1].value] if place else []
    beside += [finite[place + 1].value / best] if place + 1 < len(finite) else []
    if max(beside) > COARSE:
        warnings.append(f"the rates beside the best are a factor of {max(beside):.3g} away: measure closer ones")
    if high_open and cliff:
        warnings.append("the next rate diverged: the flat part ends at a cliff; stay at its lower half")
    for open_end, side, beyond in (
        (low_open, "lower", finite[0].value / _spacing(finite)),
        (high_open and not cliff, "upper", finite[-1].value * _spacing(finite)),
    ):
        if open_end:
            warnings.append(
                f"the flat part reaches the {side} end of the grid: measure {beyond:.3g}, it may be as good"
            )
    if vertex is None:
        warnings.append("the losses around the best rate are no valley: they are noise, or the grid is too coarse")
    elif abs(vertex - middle) > DISAGREEMENT:
        warnings.append(
            f"the parabola's vertex {2.0**vertex:.3g} is far from the middle of the flat part: measure rates in between"
        )
    return Reading(
        rates=tuple(rates),
        best=best,
        best_loss=best_loss,
        sigma=sigma,
        tolerance=tolerance,
        low=2.0**low,
        high=2.0**high,
        chosen=2.0**middle,
        vertex=None if vertex is None else 2.0**vertex,
        vertex_error=error,
        warnings=tuple(warnings),
    )


def _fit_rates(rows: Sequence[tuple[float, int, float]]) -> tuple[list[Rate], float | None]:
    """Every rate with its loss at the mean seed, and the standard deviation between seeds.

    Least squares of loss = f(rate) + shift(seed): a shift that a seed brings to every rate alike is no spread.
    """
    found: dict[float, dict[int, float]] = {value: {} for value, _, _ in rows}
    diverged = dict.fromkeys(found, 0)
    for value, seed, loss in rows:
        if math.isfinite(loss):
            found[value][seed] = loss
        else:
            diverged[value] += 1
    # One seed that diverged tells that the rate is past the edge of what is stable, whatever another seed says.
    usable = [value for value in found if found[value] and not diverged[value]]
    seeds = sorted({seed for value in usable for seed in found[value]})
    design, target = [], []
    for number, value in enumerate(usable):
        for seed, loss in found[value].items():
            row = np.zeros(len(usable) + len(seeds) - 1)
            row[number] = 1.0
            if seed != seeds[0]:
                row[len(usable) + seeds.index(seed) - 1] = 1.0
            design.append(row)
            target.append(loss)
    fitted: dict[float, float] = {}
    sigma = None
    if design:
        matrix, losses = np.array(design), np.array(target)
        solution, _, rank, _ = np.linalg.lstsq(matrix, losses, rcond=None)
        shift = float(np.sum(solution[len(usable) :])) / len(seeds)
        fitted = {value: float(solution[number]) + shift for number, value in enumerate(usable)}
        freedom = len(losses) - int(rank)
        if freedom > 0:
            sigma = float(np.sqrt(np.sum((losses - matrix @ solution) ** 2) / freedom))
    return [Rate(value, found[value], diverged[value], fitted.get(value)) for value in found], sigma


def _refuse_edge(finite: Sequence[Rate], place: int, cliff: bool) -> None:
    spacing = _spacing(finite)
    best = finite[place].value
    further = []
    if place == 0:
        further = [best / spacing, best / spacing**2]
    elif place == len(finite) - 1 and not cliff:
        further = [best * spacing, best * spacing**2]
    if further:
        more = " and ".join(f"{value:.3g}" for value in further)
        side = "lowest" if place == 0 else "highest"
        raise BadInput(f"the {side} rate {best:g} is the best, the minimum may be beyond it: extend the grid to {more}")


def _spacing(finite: Sequence[Rate]) -> float:
    """The factor between neighbouring rates at the edges: the largest there is."""
    return max(above.value / below.value for below, above in itertools.pairwise(finite))


def _crossing(octaves: Sequence[float], losses: Sequence[float], level: float) -> tuple[float, bool]:
    """Where the broken line that begins at the best point rises above `level`; whether it does not before its end."""
    for (x, y), (further, above) in itertools.pairwise(zip(octaves, losses, strict=True)):
        if above > level:
            return x + (further - x) * (level - y) / (above - y), False
    return octaves[-1], True


def _parabola(
    octaves: Sequence[float], losses: Sequence[float], counts: Sequence[int], place: int, sigma: float | None
) -> tuple[float | None, float | None]:
    """The vertex of the parabola through the points near the best, in octaves, and its standard error."""
    near = [number for number, x in enumerate(octaves) if abs(x - octaves[place]) <= OCTAVES + 1e-9]
    if len(near) < 3:
        near = sorted(sorted(range(len(octaves)), key=lambda number: abs(octaves[number] - octaves[place]))[:3])
    centre = octaves[place]
    x = np.array([octaves[number] - centre for number in near])
    y = np.array([losses[number] for number in near])
    weights = np.array([counts[number] for number in near], dtype=float)
    matrix = np.stack([x**2, x, np.ones_like(x)], axis=1)
    information = matrix.T @ (weights[:, None] * matrix)
    a, b, _ = np.linalg.solve(information, matrix.T @ (weights * y))
    if a <= 0.0:
        return None, None
    error = None
    if sigma is not None:
        # First order: the vertex is -b / (2 a).
        slope = np.array([b / (2.0 * a * a), -1.0 / (2.0 * a), 0.0])
        error = float(np.sqrt(sigma**2 * slope @ np.linalg.inv(information) @ slope))
    vertex = float(-b / (2.0 * a))
    # Outside the points it was fitted to a vertex is no measurement.
    return (centre + vertex, error) if x.min() <= vertex <= x.max() else (None, None)
