"""Evaluations of several runs side by side, a task at a time: shares exact by category as dots with 95 % intervals,
every score in a table, a row for each run and order."""

from collections.abc import Sequence
from typing import Any

from inlay.config.files import json_lines
from inlay.evaluate.report_data import RunData
from inlay.evaluate.report_entries import Entry
from inlay.evaluate.report_paired import Gaps, gaps_by_row, paired_difference
from inlay.evaluate.report_text import signed
from inlay.evaluate.table import COLUMNS, PERCENT, category_title, format_score, row_facts, row_title

MISSING = {"value": None, "low": None, "high": None, "n": 0}


def task_view(task: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """One task for the template. A group of seeds is shown by its first run that has the task, which is said."""
    found = [(entry, run, run.evaluations[task]) for entry in entries if (run := _first(entry, task)) is not None]
    best = [(entry, result, best_order(result)) for entry, _, result in found]
    items = {entry.letter: read_items(run, task) for entry, run, _ in found}
    first = found[0][0].letter
    categories = list(dict.fromkeys(c for _, result, order in best for c in result["slices"][order]["category"]))
    plotted = [("all gaps", [(e, r["metrics"][order].get("exact", MISSING)) for e, r, order in best])]
    for category in categories:
        scores = [(entry, result["slices"][order]["category"].get(category)) for entry, result, order in best]
        marks = [(entry, score.get("exact", MISSING)) for entry, score in scores if score]
        plotted.append((category_title(category), marks))
    return {
        "name": task,
        "asked": _asked([result for _, _, result in found]),
        "columns": [title for _, title in COLUMNS],
        "rows": [
            {
                "entry": entry,
                "order": row_title(result, order),
                "best": order == best_order(result),
                "step": result["settings"].get("step"),
                "run": run.name if entry.several else "",
                "n": result["n"],
                "cells": [
                    (*_cell(name, overall.get(name, MISSING)), _difference(name, items, entry.letter, first, order))
                    for name, _ in COLUMNS
                ],
            }
            for entry, run, result in found
            for order, overall in result["metrics"].items()
        ],
        "plot": [
            {"title": title, "open": at == 0, "marks": [_mark(e, s) for e, s in marks if s["value"] is not None]}
            for at, (title, marks) in enumerate(plotted)
        ],
    }


def read_items(run: RunData, task: str) -> dict[str, Gaps]:
    """What became of each gap, by row of the result; empty where the run has no items (older versions left none)."""
    result = run.evaluations[task]
    items = json_lines(run.path / "evaluations" / f"{task}.items.jsonl")
    return gaps_by_row(items, {row: row_facts(result, row) for row in result["metrics"]})


def _difference(
    metric: str, items: dict[str, dict[str, Gaps]], letter: str, first: str, order: str
) -> dict[str, str] | None:
    """In points of a hundred, for shares; the other scores have no weights by gap to be drawn with."""
    if letter == first or metric not in PERCENT:
        return None
    found = paired_difference(items[letter].get(order, {}), items[first].get(order, {}), metric)
    if found is None:
        return None
    verdict = "tie" if not found.clear else "better" if found.value > 0 else "worse"
    return {"text": f"{signed(100 * found.value, 1)} ± {100 * found.half:.1f}", "verdict": verdict}


def best_order(result: dict[str, Any]) -> str:
    """The order (a row of the result) with the most exact answers; the first of equals."""
    return max(result["metrics"], key=lambda order: result["metrics"][order].get("exact", MISSING)["value"] or 0.0)


def _first(entry: Entry, task: str) -> Any:
    return next((run for run in entry.runs if task in run.evaluations), None)


def _asked(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs were asked, and whether it was the same for all."""
    asked = {
        (result["n"], str((result["settings"].get("corpus") or {}).get("hash")), result["settings"].get("max_tokens"))
        for result in results
    }
    settings = results[0]["settings"]
    return {
        "n": results[0]["n"],
        "documents": settings.get("documents_used"),
        "max_tokens": settings.get("max_tokens"),
        "same": len(asked) == 1,
    }


def _mark(entry: Entry, score: dict[str, Any]) -> dict[str, Any]:
    """A dot with its whisker, in percent of the track."""
    value = 100 * score["value"]
    low, high = (value, value) if score["low"] is None else (100 * score["low"], 100 * score["high"])
    return {
        "entry": entry,
        "value": f"{value:.2f}",
        "low": f"{low:.2f}",
        "width": f"{high - low:.2f}",
        "text": format_score("exact", score, interval=False),
        "hint": f"{entry.letter}: {format_score('exact', score)} of {score['n']}",
    }


def _cell(name: str, score: dict[str, Any]) -> tuple[str, str]:
    """(value, interval)."""
    whole, short = format_score(name, score), format_score(name, score, interval=False)
    return short, whole[len(short) :].strip(" ()")
