"""Line charts as inline SVG, drawn here so that the page shows them without scripts; hovering is added by the page.

It decides ticks, the visible range (the plunge of the first steps is left out, so that the rest can be read) and how a
long series is thinned. Colours are classes (`c0`, `c1` ...), so that light and dark are the stylesheet's business. The
plot's geometry and values travel with the figure as JSON for the hover.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from inlay.evaluate.report_data import Point

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 40
MOST_POINTS = 160
"""More than the chart has room for only makes the page heavy."""
PLUNGE = 0.12
"""Share of the horizontal range whose values do not stretch the vertical one."""


@dataclass(frozen=True)
class Series:
    """A line: `points` (x, y) ascending in x; `colour` counts from 0."""

    name: str
    points: list[Point]
    colour: int
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawn chart: the SVG, its legend entries (name, colour, last value, faint), and its data for the hover."""

    title: str
    svg: Markup
    legend: list[tuple[str, int, str, bool]]
    data: dict[str, Any]


def line_chart(title: str, y_title: str, series: Sequence[Series]) -> Chart | None:
    """A chart of values against tokens; None when no series has two points."""
    drawn = [Series(one.name, thin(one.points), one.colour, one.faint) for one in series if len(one.points) > 1]
    if not drawn:
        return None
    x_high = max(point[0] for one in drawn for point in one.points)
    y_low, y_high = _visible_range([one.points for one in drawn], x_high)
    y_ticks = ticks(y_low, y_high, 5)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] / x_high if x_high else 0.0)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (y_high - point[1]) / (y_high - y_low)
        # Beyond the frame a line only has to leave it in the right direction.
        return round(x, 1), round(min(max(y, -HEIGHT), 2 * HEIGHT), 1)

    clip = "plot-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<defs><clipPath id="{clip}"><rect x="{LEFT}" y="{TOP - 4}" width="{WIDTH - LEFT - RIGHT}"'
        f' height="{HEIGHT - TOP - BOTTOM + 8}"/></clipPath></defs>',
    ]
    for tick in y_ticks:
        y = place((0.0, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{plain_number(tick)}</text>')
    for tick in ticks(0.0, x_high, 5):
        if tick <= x_high:
            x = place((tick, y_low))[0]
            anchor = "end" if x > WIDTH - RIGHT - 14 else "middle"
            parts.append(
                f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{amount(tick)}</text>'
            )
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">training tokens</text>')
    parts.append(f'<text class="axis" x="{LEFT}" y="{HEIGHT - 4}">{escape(y_title)}</text>')
    parts.append(f'<g clip-path="url(#{clip})">')
    for one in drawn:
        path = " ".join(f"{x},{y}" for x, y in map(place, one.points))
        parts.append(f'<polyline class="line c{one.colour}{" faint" if one.faint else ""}" points="{path}"/>')
    for one in drawn:
        if len(one.points) <= 30:
            parts += [
                f'<circle class="dot c{one.colour}" cx="{x}" cy="{y}" r="2.6"/>' for x, y in map(place, one.points)
            ]
    parts.append('</g><g class="cursor"></g></svg>')
    return Chart(
        title=title,
        svg=Markup("".join(parts)),
        legend=[(one.name, one.colour, f"{one.points[-1][1]:.3f}", one.faint) for one in drawn],
        data={
            "left": LEFT,
            "right": WIDTH - RIGHT,
            "top": TOP,
            "bottom": HEIGHT - BOTTOM,
            "width": WIDTH,
            "x": x_high,
            "low": y_low,
            "high": y_high,
            "series": [
                {"name": one.name, "colour": one.colour, "points": [[x, round(y, 4)] for x, y in one.points]}
                for one in drawn
            ],
        },
    )


def thin(points: list[Point]) -> list[Point]:
    """At most MOST_POINTS points: means of equal runs, the last one kept as it is."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil((len(points) - 1) / (MOST_POINTS - 1))
    groups = [points[at : at + size] for at in range(0, len(points) - 1, size)]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [*means, points[-1]]


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten) that cover low to high."""
    span = (high - low) or 1.0
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def amount(value: float) -> str:
    """A count as people say it: 950, 12k, 3.4M, 1.2B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.0f}{letter}" if scaled >= 99.5 or scaled == int(scaled) else f"{scaled:.3g}{letter}"
    return f"{value:g}"


def plain_number(value: float) -> str:
    """A tick's number, without digits it does not need."""
    return f"{value:.10g}"


def _visible_range(lines: list[list[Point]], x_high: float) -> tuple[float, float]:
    settled = [y for points in lines for x, y in points if x >= PLUNGE * x_high]
    low, high = min(settled), max(settled)
    margin = 0.04 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin
