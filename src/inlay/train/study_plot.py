"""The loss against the learning rate as SVG: rates in the logarithm, a dot a seed, a line through the fitted losses.

The flat part is shaded and the rate that is chosen marked. A rate that diverged stands at the upper edge as a cross.
"""

import math
from collections.abc import Iterable
from typing import Any

from markupsafe import escape

from inlay.evaluate.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, plain_number, ticks

COLOURS = (
    "#111111", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#f2b701",
)  # fmt: skip
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 13px }
.grid { stroke: #ddd; stroke-width: 1 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round }
"""
HEAD = 24
TALL = 3.0
"""Losses further above the best than so many times the median distance are cut off: the valley is what is looked at."""


def colour_rules(numbers: Iterable[int]) -> str:
    """CSS of lines and dots by colour number; beyond the palette lines are dashed."""
    return "".join(
        f".line.c{number} {{ stroke: {colour(number)}{'; stroke-dasharray: 5 3' if number >= len(COLOURS) else ''} }}"
        f" .dot.c{number} {{ fill: {colour(number)} }}\n"
        for number in numbers
    )


def colour(number: int) -> str:
    """The palette's colour, over again behind its end."""
    return COLOURS[number % len(COLOURS)]


def rates_svg(result: dict[str, Any]) -> str | None:
    """The plot of every learning-rate curve in a sweep's result; None when there are none with two rates."""
    curves = [curve for curve in result.get("rates", []) if len({point["rate"] for point in curve["points"]}) > 1]
    losses = sorted(point["loss"] for curve in curves for point in curve["points"] if point["loss"] is not None)
    if not curves or not losses:
        return None
    low, middle = losses[0], losses[len(losses) // 2]
    high = max(loss for loss in losses if loss <= low + TALL * max(middle - low, 0.01 * low))
    scale = ticks(low, high if high > low else low + 1.0, 5)
    low, high = min(low, scale[0]), max(high, scale[-1])
    exponents = [math.log2(point["rate"]) for curve in curves for point in curve["points"]]
    first, last = min(exponents) - 0.3, max(exponents) + 0.3

    def x(rate: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(rate) - first) / (last - first), 1)

    def y(loss: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(loss, low), high)) / (high - low), 1)

    width, height = WIDTH + 190, HEAD + max(HEIGHT, 40 + 18 * len(curves))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="loss against learning rate">',
        f"<style>{STYLE}{colour_rules(range(len(curves)))}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="10" y="16">{escape(curves[0]["metric"])} against {escape(curves[0]["option"])}</text>',
        f'<g transform="translate(0 {HEAD})">',
    ]
    for tick in scale:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{plain_number(tick)}</text>')
    for rate in _labelled(sorted({point["rate"] for curve in curves for point in curve["points"]}), x):
        parts.append(f'<text x="{x(rate)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{rate:g}</text>')
    for number, curve in enumerate(curves):
        parts += _curve(curve, number, x, y)
        note = " refused" if curve["refused"] else f" {curve['reading']['chosen']:.3g}"
        name = curve["arm"] or result["name"]
        parts.append(f'<circle class="dot c{number}" cx="{WIDTH + 12}" cy="{TOP + 10 + 18 * number}" r="4"/>')
        parts.append(f'<text x="{WIDTH + 22}" y="{TOP + 14 + 18 * number}">{escape(name)}:{escape(note)}</text>')
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _curve(curve: dict[str, Any], number: int, x: Any, y: Any) -> list[str]:
    parts = []
    reading = curve["reading"]
    if reading is not None:
        left, right = x(reading["low"]), x(reading["high"])
        top, bottom = TOP, HEIGHT - BOTTOM
        parts.append(
            f'<rect class="flat" x="{left}" y="{top}" width="{round(right - left, 1)}" height="{bottom - top}"'
            f' fill="{colour(number)}" opacity="0.10"/>'
        )
        chosen = x(reading["chosen"])
        parts.append(
            f'<line class="chosen" x1="{chosen}" x2="{chosen}" y1="{top}" y2="{bottom}" stroke="{colour(number)}"'
            ' stroke-dasharray="2 3"/>'
        )
        line = " ".join(
            f"{x(rate['value'])},{y(rate['loss'])}" for rate in reading["rates"] if rate["loss"] is not None
        )
        parts.append(f'<polyline class="line c{number}" points="{line}"/>')
    for point in curve["points"]:
        at = x(point["rate"])
        if point["loss"] is None:
            parts.append(f'<text class="diverged" x="{at}" y="{TOP + 8}" text-anchor="middle">✕</text>')
        else:
            shape = ' fill-opacity="0.35"' if point["state"] == "pruned" else ""
            parts.append(f'<circle class="dot c{number}" cx="{at}" cy="{y(point["loss"])}" r="3.2"{shape}/>')
    return parts


def _labelled(rates: list[float], x: Any) -> list[float]:
    """The rates whose labels have room beside each other."""
    kept: list[float] = []
    for rate in rates:
        if not kept or x(rate) - x(kept[-1]) >= 42:
            kept.append(rate)
    return kept
