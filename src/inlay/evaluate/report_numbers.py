"""A comparison for machines (`--json`) and for the terminal: the numbers of the page, computed once."""

import math
from typing import Any

from inlay.evaluate.charts import amount
from inlay.evaluate.report_bootstrap import Interval
from inlay.evaluate.report_compare import Comparison, Difference, Loss
from inlay.evaluate.report_compare_page import loader_share, peak_memory, state, tokens_per_second, verdict
from inlay.evaluate.report_data import RunData
from inlay.evaluate.report_entries import Entry
from inlay.evaluate.report_size import cache_bytes
from inlay.evaluate.report_text import duration, signed

TERMINAL_KINDS = 2
"""Kinds of validation rows that 80 characters have room for."""


def numbers(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data that any JSON reader takes: what is not known or not finite is null.

    `entries` in order, each with its runs and its losses by kind and unit; `difference` is to the first entry.
    """
    found = {
        "reference": comparison.entries[0].letter,
        "entries": [_entry(comparison, entry) for entry in comparison.entries],
        "kinds": [kind for kind, _ in comparison.kinds],
        "nats_compare": comparison.same_text,
        "at_equal": {
            axis: {"at": limit, "bits_per_byte": values} for axis, (limit, values) in comparison.at_equal.items()
        },
        "config_differences": {
            key: {entry.letter: text for entry, text in zip(comparison.entries, texts, strict=True)}
            for key, texts in comparison.differing
        },
        "notices": comparison.notices,
    }
    return _plain(found)


def print_comparison(comparison: Comparison) -> None:
    """A short table: how far each entry came and its held-out bits per byte, with differences to the first."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("run", overflow="fold")
    for title in ("tokens", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    kinds = comparison.kinds[:TERMINAL_KINDS]
    for _, title in kinds:
        table.add_column(f"{title}\nbits/byte", justify="right", no_wrap=True)
    for entry in comparison.entries:
        tokens, seconds = entry.mean(lambda run: run.tokens), entry.mean(lambda run: run.seconds)
        cells = [_cell(comparison.losses[kind]["bits_per_byte"].get(entry.letter)) for kind, _ in kinds]
        states = {text for run in entry.runs for text, bad in [state(run)] if bad}
        name = "\n".join([entry.name + (f" ({len(entry.runs)} seeds)" if entry.several else ""), *sorted(states)])
        table.add_row(
            entry.letter,
            _escape(name),
            "" if tokens is None else amount(round(tokens)),
            "" if seconds is None else duration(seconds),
            *cells,
        )
    console.print(table)
    if any(entry.letter != "A" for entry in comparison.entries) and kinds:
        console.print(f"± is half of a 95 % interval of the difference to {comparison.entries[0].letter}.", style="dim")
    for line in comparison.notices:
        console.print(line, style="yellow", highlight=False, markup=False)


def _cell(loss: Loss | None) -> str:
    if loss is None:
        return ""
    if loss.difference is None:
        return f"{loss.value:.3f}"
    half = f" ± {loss.difference.interval.half:.3f}" if loss.difference.interval else ""
    tie = " tie" if verdict(loss.difference) == "tie" else ""
    return f"{loss.value:.3f}\n{signed(loss.difference.value)}{half}{tie}"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _entry(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    return {
        "letter": entry.letter,
        "name": entry.name,
        "runs": [_run(run) for run in entry.runs],
        "losses": {
            kind: {unit: _loss(losses[entry.letter]) for unit, losses in units.items() if entry.letter in losses}
            for kind, units in comparison.losses.items()
            if any(entry.letter in losses for losses in units.values())
        },
    }


def _run(run: RunData) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "seed": run.config.get("seed"),
        "step": run.step,
        "planned_steps": run.planned_steps,
        "finished": run.finished,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "parameters": run.parameters,
        "kv_bytes_per_token": cache_bytes(run),
        "tokens_per_second": tokens_per_second(run),
        "loader_share": loader_share(run),
        "peak_memory_bytes": peak_memory(run),
        "mfu": run.settled("system/mfu"),
        "nonfinite": None if run.nonfinite is None else {"step": run.nonfinite[0], "name": run.nonfinite[1]},
        "warnings": [vars(warning) for warning in run.warnings],
        "evaluations": {
            task: {"n": result["n"], "metrics": result["metrics"]} for task, result in run.evaluations.items()
        },
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "value": loss.value,
        "interval": _interval(loss.interval),
        "seeds": list(loss.seeds),
        "difference": _difference(loss.difference),
    }


def _difference(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": found.value,
        "interval": _interval(found.interval),
        "seeds": list(found.seeds),
        "clear": found.clear,
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else {"low": found.low, "high": found.high, "documents": found.documents}


def _plain(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
