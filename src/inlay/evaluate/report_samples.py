"""The same held-out gaps as filled by each run, side by side: at its last sampling, with the earlier ones behind.

Gaps are the first of the fixed list of the first run that has samples, in the order they were sampled in, and never
chosen by how they came out. A group of seeds shows the samples of its first run. A run that was not asked a gap says
so.
"""

from collections.abc import Sequence
from typing import Any

from inlay.evaluate.report_data import main_evaluation
from inlay.evaluate.report_entries import Entry
from inlay.evaluate.report_text import ORDER_TITLES, STOP_TITLES, first_lines, last_lines
from inlay.evaluate.table import category_title

SHOWN_GAPS = 8
PREFIX_LINES, SUFFIX_LINES = 7, 5

Sample = dict[str, Any]


def gap_of(sample: Sample) -> tuple[str, ...]:
    """What makes two samples fillings of the same gap, whatever run, step or order they are of."""
    return tuple(str(sample[name]) for name in ("doc", "category", "gold", "prefix", "suffix"))


def gaps(entries: Sequence[Entry], count: int = SHOWN_GAPS) -> list[dict[str, Any]]:
    """The first `count` gaps for the template."""
    found = [_by_gap(entry) for entry in entries]
    first = next((own for own in found if own), {})
    return [_gap(key, entries, found) for key in list(first)[:count]]


def tallies(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """How many of an entry's gaps at its last sampling, shown or not, were exact and stopped; entries with samples."""
    made = []
    for entry in entries:
        last = [samples[-1] for samples in _by_gap(entry).values()]
        if last:
            made.append(
                {
                    "entry": entry,
                    "step": max(sample["step"] for sample in last),
                    "gaps": len(last),
                    "exact": sum(bool(sample["exact"]) for sample in last),
                    "stopped": sum(sample["stopped"] == "eot" for sample in last),
                }
            )
    return made


def _by_gap(entry: Entry) -> dict[tuple[str, ...], list[Sample]]:
    """The samples of an entry's first run by gap, in order of steps; only gaps of the last sampling, in its order."""
    run = entry.runs[0]
    samples = run.samples or _of_evaluation(run.evaluations, run.step)
    last = max((sample["step"] for sample in samples), default=None)
    found: dict[tuple[str, ...], list[Sample]] = {gap_of(s): [] for s in samples if s["step"] == last}
    for sample in samples:
        if gap_of(sample) in found:
            found[gap_of(sample)].append(sample)
    return found


def _of_evaluation(evaluations: dict[str, Any], step: int | None) -> list[Sample]:
    """What an evaluation shows in full, for a run that was not sampled while it trained: in the first order."""
    result = main_evaluation(evaluations) or {}
    samples = [s for s in result.get("samples", []) if isinstance(s, dict) and s.get("sample", 0) == 0]
    needed = ("doc", "path", "category", "order", "prefix", "suffix", "gold", "middle", "stopped", "exact")
    samples = [{"step": step or 0, **s} for s in samples if all(name in s for name in needed)]
    return [sample for sample in samples if sample["order"] == samples[0]["order"]]


def _gap(
    key: tuple[str, ...], entries: Sequence[Entry], found: Sequence[dict[tuple[str, ...], list[Sample]]]
) -> dict[str, Any]:
    one = next(own[key][-1] for own in found if key in own)
    prefix, cut_before = last_lines(str(one["prefix"]), PREFIX_LINES)
    suffix, cut_after = first_lines(str(one["suffix"]), SUFFIX_LINES)
    orders = {str(own[key][-1]["order"]) for own in found if key in own}
    return {
        "path": one["path"],
        "category": category_title(str(one["category"])),
        "order": ORDER_TITLES.get(one["order"], one["order"]) if len(orders) == 1 else "",
        "prefix": prefix,
        "suffix": suffix,
        "cut_before": cut_before,
        "cut_after": cut_after,
        "gold": one["gold"],
        "answers": [
            _answer(entry, own.get(key, []), len(orders) > 1) for entry, own in zip(entries, found, strict=True)
        ],
    }


def _answer(entry: Entry, samples: list[Sample], with_order: bool) -> dict[str, Any]:
    *earlier, last = samples or [None]
    return {
        "entry": entry,
        "last": None if last is None else _filled(last, with_order),
        "earlier": [_filled(sample, False) for sample in earlier if sample is not None],
    }


def _filled(sample: Sample, with_order: bool) -> dict[str, Any]:
    stopped = str(sample["stopped"])
    return {
        "step": sample["step"],
        "middle": str(sample["middle"]),
        "exact": bool(sample["exact"]),
        "note": "" if stopped == "eot" else STOP_TITLES.get(stopped, stopped),
        "order": ORDER_TITLES.get(str(sample["order"]), str(sample["order"])) if with_order else "",
    }
