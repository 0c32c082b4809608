"""The page of a comparison: what it says and in which order, as the plain values that the template lays out.

A run is its letter, its colour, its dashes and its marker everywhere. What a reader can act on comes first: what holds
of these runs, which is better and by how much more than chance, then curves, evaluations, code, and what was different.
"""

from collections.abc import Callable
from typing import Any

from inlay.evaluate.charts import amount
from inlay.evaluate.charts_overlay import COLOURS, Line, Overlay, overlay, swatch, time_unit
from inlay.evaluate.report_bootstrap import Interval
from inlay.evaluate.report_compare import Comparison, Difference, Loss, best, difference
from inlay.evaluate.report_data import Point, RunData
from inlay.evaluate.report_entries import Entry, mean_curve
from inlay.evaluate.report_page import troubles
from inlay.evaluate.report_samples import gaps, tallies
from inlay.evaluate.report_size import cache_bytes
from inlay.evaluate.report_tasks import task_view
from inlay.evaluate.report_text import MINUS, duration, render, signed, size
from inlay.evaluate.table import gold_lines

MAIN_KINDS = 2
"""Kinds that the head of the page speaks of: plain text and the middles of the first order."""
FEW_DOCUMENTS = 10
"""A bootstrap over fewer gives intervals that are too narrow."""
MOST_SEEDS = 8
"""Seeds that are named one by one."""
UNIT_TITLES = {"bits_per_byte": "bits per byte", "nats": "nats per token"}
Column = tuple[str, Callable[[Entry], str]]


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML text."""
    entries = comparison.entries
    what = "recipes" if any(entry.several for entry in entries) else "runs"
    tasks = list(dict.fromkeys(task for entry in entries for run in entry.runs for task in run.evaluations))
    columns, unlogged = _columns(entries)
    panels = _panels(comparison)
    return render(
        "report_compare.html.jinja",
        title=" · ".join(entry.name for entry in entries) if len(entries) < 4 else f"{len(entries)} {what} compared",
        count=sum(len(entry.runs) for entry in entries),
        entries=[_entry(entry) for entry in entries],
        colours=COLOURS,
        columns=[title for title, _ in columns],
        table=[{"entry": entry, "cells": [of(entry) for _, of in columns]} for entry in entries],
        unlogged=unlogged,
        notices=comparison.notices + _gold(entries),
        troubles=[(entry, run.name, line) for entry in entries for run in entry.runs for line in troubles(run)],
        verdicts=_verdicts(comparison),
        losses=_loss_tables(comparison),
        plot=_difference_plot(comparison),
        equal=_equal_tables(comparison),
        panels=panels,
        chart_data=[chart.data for panel in panels for view in panel["views"] for chart in view["charts"]],
        units=_units(comparison),
        documents=_documents(comparison),
        few=_few(comparison),
        measured_peak=any(run.last("system/peak_is_measured") == 1 for entry in entries for run in entry.runs),
        several=any(entry.several for entry in entries),
        tasks=[task_view(task, entries) for task in tasks],
        gaps=gaps(entries),
        tallies=tallies(entries),
        differing=comparison.differing,
        shared=comparison.shared,
        swatch=swatch,
    )


def _documents(comparison: Comparison) -> str:
    """How many held-out documents the intervals come from; empty without any interval."""
    losses = [loss for units in comparison.losses.values() for loss in units["bits_per_byte"].values()]
    counts = sorted({loss.interval.documents for loss in losses if loss.interval is not None})
    return "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _few(comparison: Comparison) -> bool:
    """Whether some interval comes from too few documents to be as wide as it should."""
    losses = [loss for units in comparison.losses.values() for loss in units["bits_per_byte"].values()]
    return any(loss.interval is not None and loss.interval.documents < FEW_DOCUMENTS for loss in losses)


def _entry(entry: Entry) -> dict[str, Any]:
    seeds = ", ".join(str(run.config.get("seed", "?")) for run in entry.runs[:MOST_SEEDS])
    return {
        "entry": entry,
        "seeds": f"seeds {seeds}{' ...' if len(entry.runs) > MOST_SEEDS else ''}" if entry.several else "",
        "states": _states(entry),
        "paths": [str(run.path) for run in entry.runs],
    }


def _states(entry: Entry) -> list[tuple[str, str, bool]]:
    """(the run's name where runs of a group differ, its state, whether that is bad)."""
    found = [state(run) for run in entry.runs]
    if len(set(found)) == 1:
        return [("", found[0][0] + (" each" if entry.several else ""), found[0][1])]
    return [(run.name, *one) for run, one in zip(entry.runs, found, strict=True)]


def state(run: RunData) -> tuple[str, bool]:
    """How far a run came, and whether that is something to be warned of."""
    if run.step is None:
        return "nothing logged", True
    if run.nonfinite is not None:
        return f"not finite at step {run.nonfinite[0]:,}", True
    if run.finished is False:
        return f"stopped at {run.step:,} of {run.planned_steps:,} steps", True
    return f"{run.step:,} steps" + ("" if run.finished else ", plan unknown"), False


def _columns(entries: list[Entry]) -> tuple[list[Column], list[str]]:
    """Columns that some entry has a value for, and the titles of the others."""
    sizes = {entry.letter: cache_bytes(entry.runs[0]) for entry in entries}

    def mean(of: Callable[[RunData], float | None], write: Callable[[float], str]) -> Callable[[Entry], str]:
        return lambda entry: "" if (value := entry.mean(of)) is None else write(value)

    columns: list[Column] = [
        ("parameters", mean(lambda run: run.parameters, amount)),
        ("tokens", mean(lambda run: run.tokens, amount)),
        ("training time", mean(lambda run: run.seconds, duration)),
        ("tokens/s", mean(tokens_per_second, lambda value: f"{value:,.0f}")),
        ("waiting for data", mean(loader_share, lambda value: f"{value:.1%}")),
        ("MFU", mean(lambda run: run.settled("system/mfu"), lambda value: f"{value:.1%}")),
        ("peak memory", mean(peak_memory, size)),
        ("K/V bytes per token", lambda e: "" if sizes[e.letter] is None else f"{sizes[e.letter]:,.0f}"),
    ]
    shown = [(title, of) for title, of in columns if any(of(entry) for entry in entries)]
    kept = {title for title, _ in shown}
    return shown, [title for title, _ in columns if title not in kept]


def tokens_per_second(run: RunData) -> float | None:
    """The median behind the warm-up."""
    return run.settled("tokens_per_second", "system/tokens_per_second")


def loader_share(run: RunData) -> float | None:
    """Share of a step's time that waits for data; the median."""
    return run.settled("loader_share", "system/loader_share")


def peak_memory(run: RunData) -> float | None:
    """Bytes, the largest that was logged."""
    return run.largest("system/peak_memory_bytes")


def _gold(entries: list[Entry]) -> list[str]:
    return [
        f"{entry.letter} ({run.name}): {line}"
        for entry in entries
        for run in entry.runs
        for result in run.evaluations.values()
        for line in gold_lines(result["gold"])
    ]


# ---- losses ----------------------------------------------------------------------------------------------------------


def _verdicts(comparison: Comparison) -> list[dict[str, Any]]:
    """For the main kinds: which entry is lowest, and whether it is clear of the first and of the next."""
    made = []
    for kind, title in comparison.kinds[:MAIN_KINDS]:
        ranked = best(comparison, kind)
        if len(ranked) < 2:
            continue
        lowest, following = ranked[0], ranked[1]
        first = comparison.entries[0]
        rivals = list(dict.fromkeys(other.letter for other in (following, first) if other is not lowest))
        others = {other.letter: other for other in ranked}
        made.append(
            {
                "title": title,
                "entry": lowest,
                "value": f"{comparison.losses[kind]['bits_per_byte'][lowest.letter].value:.3f}",
                "rivals": [
                    {"entry": others[key], "text": _against(difference(lowest, others[key], kind, "bits_per_byte"))}
                    for key in rivals
                    if key in others
                ],
            }
        )
    return made


def _against(found: Difference | None) -> str:
    """How far the lowest is from a rival, in words."""
    if found is None:
        return "not comparable with"
    if found.interval is None:
        return f"{-found.value:.3f} below (no interval)"
    if not found.interval.clear:
        return f"{-found.value:.3f} ± {found.interval.half:.3f} below, a tie with"
    return f"{-found.value:.3f} ± {found.interval.half:.3f} below"


def _units(comparison: Comparison) -> list[tuple[str, str]]:
    """The units of charts and tables, the first one shown at first; nats only where they compare."""
    units = list(UNIT_TITLES.items())
    return units if comparison.same_text else units[:1]


def _loss_tables(comparison: Comparison) -> list[dict[str, Any]]:
    tables = []
    for unit, title in UNIT_TITLES.items():
        kinds = [(kind, name) for kind, name in comparison.kinds if comparison.losses[kind][unit]]
        if kinds:
            tables.append(
                {
                    "unit": title,
                    "open": (unit, title) in _units(comparison),
                    "kinds": [name for _, name in kinds],
                    "rows": [
                        {
                            "entry": entry,
                            "cells": [_loss_cell(comparison, kind, unit, entry) for kind, _ in kinds],
                        }
                        for entry in comparison.entries
                    ],
                }
            )
    return tables


def _loss_cell(comparison: Comparison, kind: str, unit: str, entry: Entry) -> dict[str, str] | None:
    losses = comparison.losses[kind][unit]
    loss: Loss | None = losses.get(entry.letter)
    if loss is None:
        return None
    lowest = min(losses.values(), key=lambda one: one.value) is loss and len(losses) > 1
    comparable = unit != "nats" or comparison.same_text
    return {
        "value": f"{loss.value:.3f}",
        "lowest": "lowest" if lowest and comparable else "",
        "interval": ends(loss.interval) if loss.interval else "",
        "seeds": _range(loss.seeds),
        "difference": _difference_text(loss.difference) if loss.difference else "",
        "seed_differences": _range(loss.difference.seeds, sign=True) if loss.difference else "",
        "verdict": verdict(loss.difference),
    }


def ends(interval: Interval) -> str:
    """The ends of an interval."""
    return f"{interval.low:.3f}\N{EN DASH}{interval.high:.3f}"


def verdict(found: Difference | None) -> str:
    """`better`, `worse` or `tie`; empty without an interval."""
    if found is None or found.clear is None:
        return ""
    return "tie" if not found.clear else "better" if found.value < 0 else "worse"


def _difference_text(found: Difference) -> str:
    if found.interval is None:
        return signed(found.value)
    return f"{signed(found.value)} ± {found.interval.half:.3f}"


def _range(values: tuple[float, ...], *, sign: bool = False) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{signed(low)} to {signed(high)}" if sign else f"{low:.3f}\N{EN DASH}{high:.3f}"


def _difference_plot(comparison: Comparison) -> dict[str, Any] | None:
    """Dots with whiskers around zero: each entry minus the first, in bits per byte. None without any interval."""
    rows: list[tuple[str, list[tuple[Entry, Interval]]]] = []
    for kind, title in comparison.kinds:
        marks = []
        for entry in comparison.entries:
            loss = comparison.losses[kind]["bits_per_byte"].get(entry.letter)
            if loss is not None and loss.difference is not None and loss.difference.interval is not None:
                marks.append((entry, loss.difference.interval))
        if marks:
            rows.append((title, marks))
    if not rows:
        return None
    reach = max(max(abs(one.low), abs(one.high)) for _, marks in rows for _, one in marks) * 1.08 or 1.0

    def percent(value: float) -> float:
        return 50.0 + 50.0 * value / reach

    return {
        "first": comparison.entries[0],
        "ends": (f"{MINUS}{reach:.2g}", f"+{reach:.2g}"),
        "rows": [
            {
                "title": title,
                "marks": [
                    {
                        "entry": entry,
                        "value": f"{percent(one.value):.2f}",
                        "low": f"{percent(one.low):.2f}",
                        "width": f"{percent(one.high) - percent(one.low):.2f}",
                        "text": f"{signed(one.value)} ± {one.half:.3f}",
                        "verdict": "tie" if not one.clear else "better" if one.value < 0 else "worse",
                    }
                    for entry, one in marks
                ],
            }
            for title, marks in rows
        ],
    }


def _equal_tables(comparison: Comparison) -> list[dict[str, Any]]:
    made = []
    for axis, (limit, found) in comparison.at_equal.items():
        kinds = [(kind, title) for kind, title in comparison.kinds if kind in found]
        made.append(
            {
                "title": f"{amount(round(limit))} tokens" if axis == "tokens" else f"{duration(limit)} of training",
                "kinds": [title for _, title in kinds],
                "rows": [
                    {"entry": e, "cells": [_three(found[kind].get(e.letter)) for kind, _ in kinds]}
                    for e in comparison.entries
                ],
            }
        )
    return made


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


# ---- curves ----------------------------------------------------------------------------------------------------------


def _panels(comparison: Comparison) -> list[dict[str, Any]]:
    """For each kind: charts against tokens and against time, as views by unit and scale."""
    series = [
        (
            kind,
            title,
            [
                (unit, f"validation/{kind}/{'bpb' if unit == 'bits_per_byte' else 'loss'}")
                for unit, _ in _units(comparison)
            ],
        )
        for kind, title in comparison.kinds
    ]
    if comparison.same_text:
        series.append(("train", "training rows", [("nats", "train/loss")]))
    panels, number = [], 0
    for kind, title, names in series:
        views = []
        for unit, name in names:
            for log in (False, True):
                charts = _pair(comparison.entries, name, f"{title}, {UNIT_TITLES[unit]}", UNIT_TITLES[unit], log)
                if charts:
                    numbered = list(enumerate(charts, number))
                    number += len(charts)
                    views.append({"unit": unit, "log": log, "charts": charts, "numbered": numbered})
        if views:
            # Training rows have nats alone: they are shown whatever unit is chosen.
            panels.append({"kind": kind, "title": title, "views": views, "only": len(names) == 1})
    return panels


def _pair(entries: list[Entry], name: str, title: str, y_title: str, log: bool) -> list[Overlay]:
    longest = max((run.times[name][-1][0] for e in entries for run in e.runs if run.times.get(name)), default=1.0)
    unit, unit_name = time_unit(longest)

    def in_units(points: list[Point]) -> list[Point]:
        return [(x / unit, y) for x, y in points]

    by_tokens = [_line(entry, [run.curves.get(name, []) for run in entry.complete]) for entry in entries]
    by_time = [_line(entry, [in_units(run.times.get(name, [])) for run in entry.complete]) for entry in entries]
    charts = (
        overlay(f"{title} against tokens", "training tokens", y_title, by_tokens, log=log),
        overlay(f"{title} against time", f"training time, {unit_name}", y_title, by_time, log=log),
    )
    return [chart for chart in charts if chart is not None]


def _line(entry: Entry, curves: list[list[Point]]) -> Line:
    points, band = mean_curve(curves)
    return Line(entry.letter, entry.name, entry.index, points, band)
