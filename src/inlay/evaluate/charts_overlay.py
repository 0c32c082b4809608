"""Many runs in one chart: lines told apart by colour, dashes, marker and a letter at their end, with bands for seeds.

Colour is never the only difference, so that colour-blind readers and grey prints lose nothing: the letter at the end
of a line is the run's on the whole page. Axes are linear (from 0 tokens; the plunge of the first steps is left out) or
both logarithmic. As in `inlay.evaluate.charts` it is plain SVG whose colours are the stylesheet's business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from inlay.evaluate.charts import PLUNGE, amount, plain_number, thin, ticks
from inlay.evaluate.report_data import Point

WIDTH, HEIGHT = 460, 310
LEFT, RIGHT, TOP, BOTTOM = 44, 26, 12, 44
COLOURS, DASHES, MARKERS = 6, 4, 6
MOST_MARKERS = 9
LETTER_ROOM = 13.0
"""Height that a letter wants for itself."""
SMALLEST_ROOM = 8.0

Band = list[tuple[float, float, float]]


@dataclass(frozen=True)
class Line:
    """One entry's curve: `points` ascend in x; `band` (x, low, high) is empty for a single run."""

    letter: str
    name: str
    index: int
    points: list[Point]
    band: Band


@dataclass(frozen=True)
class Overlay:
    """A drawn chart and the data for its hover."""

    title: str
    svg: Markup
    data: dict[str, Any]


def style_of(index: int) -> str:
    """The classes of an entry: a colour and a dash. With their markers, twelve entries differ without any colour."""
    return f"c{index % COLOURS} d{index % DASHES}"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit to write up to `seconds` in: (seconds of one, its name)."""
    return (1.0, "s") if seconds < 120 else (60.0, "min") if seconds < 7200 else (3600.0, "h")


def overlay(title: str, x_title: str, y_title: str, lines: Sequence[Line], *, log: bool = False) -> Overlay | None:
    """A chart of `lines`; None when none has two points that can be drawn."""
    drawn = [one for line in lines if len((one := _shown(line, log)).points) > 1]
    if not drawn:
        return None
    frame = _Frame.around(drawn, log)
    clip = "clip-" + "".join(sign if sign.isalnum() else "-" for sign in title.lower()) + ("-log" if log else "")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<defs><clipPath id="{clip}"><rect x="{LEFT}" y="{TOP - 4}" width="{WIDTH - LEFT - RIGHT + 4}"'
        f' height="{HEIGHT - TOP - BOTTOM + 8}"/></clipPath></defs>',
        *_axes(frame, x_title, y_title),
        f'<g clip-path="url(#{clip})">',
    ]
    for one in drawn:
        if one.band:
            there = [frame.place((x, high)) for x, _, high in one.band]
            back = [frame.place((x, low)) for x, low, _ in reversed(one.band)]
            path = " ".join(f"{x},{y}" for x, y in there + back)
            parts.append(f'<polygon class="band c{one.index % COLOURS}" points="{path}"/>')
    for one in drawn:
        path = " ".join(f"{x},{y}" for x, y in map(frame.place, one.points))
        parts.append(f'<polyline class="line {style_of(one.index)}" points="{path}"/>')
        parts += [marker(one.index, *frame.place(point)) for point in _marked(one.points)]
    parts.append("</g>")
    parts += _letters(drawn, frame)
    parts.append('<g class="cursor"></g></svg>')
    data = {
        "log": log,
        "frame": [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM],
        "range": [frame.x_low, frame.x_high, frame.y_low, frame.y_high],
        "size": [WIDTH, HEIGHT],
        "lines": [[one.letter, one.index % COLOURS, [[_short(x), _short(y)] for x, y in one.points]] for one in drawn],
    }
    return Overlay(title, Markup("".join(parts)), data)


def marker(index: int, x: float, y: float, size: float = 3.2) -> Markup:
    """The sign of an entry: circle, square, triangle, diamond, triangle upside down, cross."""
    a = round(size, 1)
    long, wide, tall = round(1.35 * a, 1), round(1.2 * a, 1), round(2.1 * a, 1)
    shapes = (
        f"M{x - a},{y}a{a},{a} 0 1 0 {2 * a},0a{a},{a} 0 1 0 {-2 * a},0z",
        f"M{x - a},{y - a}h{2 * a}v{2 * a}h{-2 * a}z",
        f"M{x},{y - 1.25 * a:.1f}l{wide},{tall}h{-2 * wide}z",
        f"M{x},{y - long:.1f}l{long},{long}l{-long},{long}l{-long},{-long}z",
        f"M{x},{y + 1.25 * a:.1f}l{wide},{-tall}h{-2 * wide}z",
        f"M{x - a},{y - a}l{2 * a},{2 * a}m0,{-2 * a}l{-2 * a},{2 * a}",
    )
    kind = (index + MARKERS // 2 * (index // MARKERS)) % MARKERS
    return Markup(f'<path class="mark{" open" if kind == 5 else ""} c{index % COLOURS}" d="{shapes[kind]}"/>')


def swatch(index: int) -> Markup:
    """A piece of an entry's line with its marker, for legends."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 34 14" aria-hidden="true">'
        f'<line class="line {style_of(index)}" x1="1" x2="33" y1="7" y2="7"/>{marker(index, 17.0, 7.0, 3.6)}</svg>'
    )


@dataclass(frozen=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_ticks: list[float]
    y_ticks: list[float]
    log: bool

    @classmethod
    def around(cls, lines: Sequence[Line], log: bool) -> "_Frame":
        x_high = max(one.points[-1][0] for one in lines)
        x_low = min(one.points[0][0] for one in lines) if log else 0.0
        x_high = x_high if x_high > x_low else x_low + 1.0
        seen = [y for one in lines for x, y in one.points if log or x >= PLUNGE * x_high] or [
            one.points[-1][1] for one in lines
        ]
        seen += [y for one in lines for x, low, high in one.band if log or x >= PLUNGE * x_high for y in (low, high)]
        low, high = min(seen), max(seen)
        margin = 0.04 * ((high - low) or abs(high) or 1.0)
        if not log:
            y_ticks = ticks(low - margin, high + margin, 5)
            x_ticks = [tick for tick in ticks(0.0, x_high, 5) if tick <= x_high]
            return cls(
                x_low, x_high, min(low - margin, y_ticks[0]), max(high + margin, y_ticks[-1]), x_ticks, y_ticks, log
            )
        low, high = low / (1 + margin / abs(low)), high * (1 + margin / abs(high))
        return cls(x_low, x_high, low, high, log_ticks(x_low, x_high), log_ticks(low, high), log)

    def place(self, point: Point) -> Point:
        """Where a point stands in the drawing; far beyond the frame it only keeps its direction."""
        x = LEFT + (WIDTH - LEFT - RIGHT) * self._share(point[0], self.x_low, self.x_high)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * self._share(point[1], self.y_low, self.y_high)
        return round(x, 1), round(min(max(y, -HEIGHT), 2 * HEIGHT), 1)

    def _share(self, value: float, low: float, high: float) -> float:
        if self.log:
            return math.log(max(value, 1e-300) / low) / math.log(high / low)
        return (value - low) / (high - low)


def log_ticks(low: float, high: float) -> list[float]:
    """At most seven round values from low to high, for a logarithmic axis: powers of ten, with 2 and 5 times where
    there is room, or evenly spaced round values in a short range."""
    if high / low < 6.0:
        return [tick for tick in ticks(low, high, 4) if low <= tick <= high]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= 7:
            return found
    return found[:: math.ceil(len(found) / 7)]


def _shown(line: Line, log: bool) -> Line:
    points, band = thin(line.points), line.band
    if len(band) > len(points):
        band = band[:: math.ceil(len(band) / 120)] + ([band[-1]] if band else [])
    if log:
        points = [point for point in points if point[0] > 0.0 and point[1] > 0.0]
        band = [place for place in band if place[0] > 0.0 and place[1] > 0.0]
    return Line(line.letter, line.name, line.index, points, band)


def _axes(frame: _Frame, x_title: str, y_title: str) -> list[str]:
    parts = []
    bottom = HEIGHT - BOTTOM
    for tick in frame.y_ticks:
        y = frame.place((frame.x_high, tick))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{plain_number(tick)}</text>')
    for tick in frame.x_ticks:
        x = frame.place((tick, frame.y_low))[0]
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 18}" text-anchor="middle">{amount(tick)}</text>')
    scale = ", log scale" if frame.log else ""
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="axis" x="{LEFT}" y="{HEIGHT - 6}">{escape(y_title)}{scale}</text>')
    return parts


def _marked(points: list[Point]) -> list[Point]:
    """The points that get a marker: all of a short curve, some of a long one, always the last."""
    every = math.ceil(len(points) / MOST_MARKERS)
    return points[::-1][::every]


def _letters(lines: Sequence[Line], frame: _Frame) -> list[str]:
    """Letters in the right margin at the height of their line's end, moved apart where they would touch."""
    top, bottom = TOP + 2.0, HEIGHT - BOTTOM - 2.0
    room = min(LETTER_ROOM, (bottom - top) / max(1, len(lines) - 1)) if len(lines) > 1 else LETTER_ROOM
    if room < SMALLEST_ROOM:
        return []  # the legend still says which is which
    ends = sorted(((frame.place(one.points[-1]), one) for one in lines), key=lambda end: (end[0][1], end[1].index))
    heights: list[float] = []
    for (_, y), _ in ends:
        heights.append(max(min(max(y, top), bottom), heights[-1] + room if heights else top))
    limit = bottom
    for at in range(len(heights) - 1, -1, -1):
        heights[at] = min(heights[at], limit)
        limit = heights[at] - room
    parts = []
    for ((x, y), one), height in zip(ends, heights, strict=True):
        edge = WIDTH - RIGHT
        if edge - x > 3 or abs(height - y) > 3:
            ends_at = f'x1="{x + 3:.1f}" y1="{y}" x2="{edge + 6}" y2="{height:.1f}"'
            parts.append(f'<line class="leader c{one.index % COLOURS}" {ends_at}/>')
        parts.append(
            f'<text class="letter c{one.index % COLOURS}" x="{edge + 9}" y="{height + 4.3:.1f}">{one.letter}</text>'
        )
    return parts


def _short(value: float) -> float:
    """Six digits are more than a reader sees."""
    return float(f"{value:.6g}")
