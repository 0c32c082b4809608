"""The page of one run: what it says and in which order, as the plain values that the template lays out.

A colour means a kind of text. Samples are the first of the evaluation's fixed list, right or wrong. Everything that
comes from a run is text to be escaped. Several runs have a page of another sort, `inlay.evaluate.report_compare_page`.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from inlay.evaluate.charts import Chart, Series, amount, line_chart
from inlay.evaluate.metrics import METRICS
from inlay.evaluate.report_compare import KINDS
from inlay.evaluate.report_data import RunData, main_evaluation
from inlay.evaluate.report_tasks import MISSING, best_order
from inlay.evaluate.report_text import (
    ORDER_TITLES,
    STOP_TITLES,
    duration,
    first_lines,
    last_lines,
    render,
    size,
)
from inlay.evaluate.table import COLUMNS, category_title, format_score, gold_lines, notes, row_facts, row_title

SHOWN_SAMPLES = 16
PREFIX_LINES, SUFFIX_LINES = 7, 5
TRAINING_COLOUR = 7


def render_page(run: RunData, folder: Path | None = None) -> str:
    """The page as HTML text. `folder`: where it will lie, for its links to pages of evaluations; None gives none."""
    return render(
        "report.html.jinja",
        title=run.name,
        facts=facts(run),
        sources=_sources(run),
        config=run.config_text,
        warnings=[line for result in run.evaluations.values() for line in gold_lines(result["gold"])] + troubles(run),
        headline=_headline(run),
        charts=_charts(run),
        evaluations=[_task(task, result, _link(run, task, folder)) for task, result in run.evaluations.items()],
        meanings=[(metric.title, metric.meaning) for metric in METRICS if metric.name in dict(COLUMNS)],
        samples=_samples(run),
        progress=_progress(run),
    )


def troubles(run: RunData) -> list[str]:
    """What is wrong with a run, a sentence each: values that are no numbers, and what its early warnings said."""
    found = []
    if run.nonfinite is not None:
        found.append(f"{run.nonfinite[1]} is not a finite number at step {run.nonfinite[0]:,}")
    for warning in run.warnings:
        at = "" if warning.step is None else f" (step {warning.step:,})"
        again = f", {warning.times} times" if warning.times > 1 else ""
        ended = ", which ended the run" if warning.stops else ""
        found.append(f"{warning.rule}{at}{again}{ended}: {warning.text}")
    return found


def facts(run: RunData) -> list[tuple[str, str]]:
    """The run in a line of numbers: (value, what it is)."""
    found: list[tuple[str, str]] = []
    if run.parameters is not None:
        found.append((amount(run.parameters), "parameters"))
    if run.tokens is not None:
        found.append((amount(run.tokens), "tokens seen"))
    if run.seconds is not None:
        found.append((duration(run.seconds), "of training"))
    if run.finished is False:
        found.append((f"{run.step or 0:,} of {run.planned_steps:,}", "steps: not finished"))
    if run.corpus is not None:
        train, held_out = (run.corpus["splits"].get(name) or {} for name in ("train", "validation"))
        if train:
            found.append((size(train.get("bytes", 0)), f"of code, {train.get('documents', 0):,} files"))
        if held_out:
            found.append(
                (f"{len(held_out.get('repos') or {}):,}", f"packages held out, {held_out.get('documents', 0):,} files")
            )
    return found


def _sources(run: RunData) -> list[tuple[str, str]]:
    """Languages and licences of the training split, most frequent first."""
    if run.corpus is None:
        return []
    train = run.corpus["splits"].get("train") or {}
    languages = sorted(((size["bytes"], name) for name, size in (train.get("languages") or {}).items()), reverse=True)
    licences = sorted(((count, name) for name, count in (train.get("licences") or {}).items()), reverse=True)
    total = sum(count for count, _ in licences) or 1
    shown = [f"{name} {count / total:.0%}" for count, name in licences[:6]]
    rest = sum(count for count, _ in licences[6:])
    shown += [f"{len(licences) - 6} others {rest / total:.0%}"] if rest else []
    found = [("Languages", ", ".join(name for _, name in languages[:8]))] if languages else []
    return found + ([("Licences, by files", ", ".join(shown))] if shown else [])


def _headline(run: RunData) -> list[dict[str, str]]:
    """The few numbers to read first, in the order the model does best in."""
    result = main_evaluation(run.evaluations)
    if result is None:
        return []
    order = best_order(result)
    by_category, overall = result["slices"][order]["category"], result["metrics"][order]
    wanted = [
        (name, "exact", f"{category_title(name)}, exact") for name in ("word", "tokens_1_4") if name in by_category
    ]
    tiles = [(by_category[category].get(metric, MISSING), metric, title) for category, metric, title in wanted]
    tiles += [
        (overall.get("syntax_valid", MISSING), "syntax_valid", "still valid code, all gaps"),
        (overall.get("stopped", MISSING), "stopped", "stops by itself, all gaps"),
    ]
    made = []
    for score, metric, title in tiles:
        if score["value"] is None:
            continue
        interval = f"{100 * score['low']:.0f}\N{EN DASH}{100 * score['high']:.0f} %" if score["low"] is not None else ""
        made.append({"value": format_score(metric, score, interval=False), "interval": interval, "title": title})
    return made


def _charts(run: RunData) -> list[Chart]:
    made: list[Chart | None] = []
    kinds = [(key, title, colour) for colour, (key, title) in enumerate(KINDS)]
    for unit, title, axis in (
        ("bpb", "Held-out code, bits per byte", "bits per byte"),
        ("loss", "Loss, nats per token", "nats per token"),
    ):
        # The middles are what infilling is about; whole rows are drawn thinner.
        series = [
            Series(name, run.curves.get(f"validation/{key}/{unit}", []), colour, faint=name.startswith("whole"))
            for key, name, colour in kinds
        ]
        if unit == "loss":
            series.insert(0, Series("training rows", run.curves.get("train/loss", []), TRAINING_COLOUR, faint=True))
        made.append(line_chart(title, axis, series))
    return [chart for chart in made if chart is not None]


def _link(run: RunData, task: str, folder: Path | None) -> str:
    """The page of an evaluation as a relative address; empty where there is none."""
    page = run.path / "evaluations" / f"{task}.html"
    return "" if folder is None or not page.is_file() else quote(os.path.relpath(page, folder).replace(os.sep, "/"))


def _task(task: str, result: dict[str, Any], link: str) -> dict[str, Any]:
    """The plot of exact shares by category, and a table for each order."""
    lines = [
        (row_title(result, order), number, result["slices"][order]["category"])
        for number, order in enumerate(result["metrics"])
    ]
    categories = list(dict.fromkeys(category for _, _, scores in lines for category in scores))
    rows = [
        {
            "title": category_title(category),
            "marks": [
                _mark(label, colour, score)
                for label, colour, scores in lines
                if (score := scores.get(category, {}).get("exact", MISSING))["value"] is not None
            ],
        }
        for category in categories
    ]
    return {
        "name": task,
        "n": result["n"],
        "asked": _asked(result),
        "about": _about(task, result),
        "notes": notes(result),
        "link": link,
        "gold": result["gold"],
        "rows": [row for row in rows if row["marks"]],
        "legend": [(label, colour) for label, colour, _ in lines],
        "columns": [title for _, title in COLUMNS],
        "tables": [
            {
                "title": row_title(result, order),
                "open": order == best_order(result),
                "rows": [
                    (category_title(c), _count(scores), _cells(scores))
                    for c, scores in result["slices"][order]["category"].items()
                ]
                + [("all gaps", _count(overall), _cells(overall))],
            }
            for order, overall in _best_first(result)
        ],
    }


def _asked(result: dict[str, Any]) -> str:
    """What was asked and how it was answered, in a sentence."""
    settings = result["settings"]
    groups = settings.get("documents_used")
    cut = f" cut from {groups:,} held-out files" if groups and result["task"] == "held_out" else ""
    cut = f" in {groups:,} documents" if groups and not cut else cut
    how = settings.get("decoding") or "greedy"
    budget = settings.get("max_tokens")
    return f"{result['n']:,} gaps{cut}, decoding {how}" + (f", at most {budget:,} tokens each." if budget else ".")


def _about(task: str, result: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the gaps and the weights come from, for a result of any version."""
    settings = result["settings"]
    corpus = settings.get("corpus") or {}
    size = f" ({corpus['documents']:,} files)" if corpus.get("documents") else ""
    size = f" ({corpus['of']:,} in all)" if not size and corpus.get("of") else size
    step = "" if settings.get("step") is None else f"step {settings['step']:,}, "
    weights = f"{step}{settings.get('weights_hash') or 'no hash'}"
    weights += f", {settings['dtype']}" if settings.get("dtype") else ""
    return [("task", f"{task}, {corpus.get('source') or 'unknown source'}{size}"), ("weights", weights)]


def _count(scores: dict[str, Any]) -> int:
    return max((score["n"] for score in scores.values()), default=0)


def _mark(label: str, colour: int, score: dict[str, Any]) -> dict[str, Any]:
    """A dot with its whisker, in percent of the track."""
    value = 100 * score["value"]
    low, high = (value, value) if score["low"] is None else (100 * score["low"], 100 * score["high"])
    return {
        "label": label,
        "colour": colour,
        "value": f"{value:.2f}",
        "low": f"{low:.2f}",
        "width": f"{high - low:.2f}",
        "text": format_score("exact", score, interval=False),
        "hint": f"{label}: {format_score('exact', score)} of {score['n']}",
    }


def _cells(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """(value, interval) of each column."""
    cells = []
    for name, _ in COLUMNS:
        score = scores.get(name, MISSING)
        whole, short = format_score(name, score), format_score(name, score, interval=False)
        cells.append((short, whole[len(short) :].strip(" ()")))
    return cells


def _samples(run: RunData) -> list[dict[str, Any]]:
    result = main_evaluation(run.evaluations)
    if result is not None:
        order = best_order(result)
        listed = [sample for sample in result.get("samples", []) if _of_row(sample, result, order)]
    else:
        last = max((sample["step"] for sample in run.samples), default=None)
        listed = [sample for sample in run.samples if sample["step"] == last]
    return [_sample(sample) for sample in listed[:SHOWN_SAMPLES]]


def _of_row(sample: dict[str, Any], result: dict[str, Any], row: str) -> bool:
    """Whether a sample is the row's answer: its first, or where several were made the one that best-of chose."""
    facts = row_facts(result, row)
    if sample.get("row", sample["order"]) not in (row, facts["order"]) or sample["order"] != facts["order"]:
        return False
    return bool(sample.get("chosen")) if facts["best_of"] and "chosen" in sample else sample.get("sample", 0) == 0


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    prefix, cut_before = last_lines(sample["prefix"], PREFIX_LINES)
    suffix, cut_after = first_lines(sample["suffix"], SUFFIX_LINES)
    return {
        "path": sample["path"],
        "category": category_title(sample["category"]),
        "order": ORDER_TITLES.get(sample["order"], sample["order"]),
        "prefix": prefix,
        "suffix": suffix,
        "cut_before": cut_before,
        "cut_after": cut_after,
        "middle": sample["middle"],
        "gold": sample["gold"],
        "exact": sample["exact"],
        "stopped": STOP_TITLES.get(sample["stopped"], sample["stopped"]),
        "by_itself": sample["stopped"] == "eot",
    }


def _progress(run: RunData) -> list[dict[str, Any]]:
    """The first gaps of samples.jsonl as training went on: what was put there at each step."""
    gaps: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for sample in run.samples:
        key = (*(str(sample[name]) for name in ("doc", "category", "order", "gold")), str(sample["prefix"])[-40:])
        gaps.setdefault(key, []).append(sample)
    shown = []
    for samples in list(gaps.values())[:4]:
        if len(samples) < 2:
            continue
        before = samples[0]["prefix"].splitlines()[-1:] if not samples[0]["prefix"].endswith("\n") else []
        after = samples[0]["suffix"].split("\n", 1)[0]
        shown.append(
            {
                "title": f"{samples[0]['path']} · {category_title(samples[0]['category'])}",
                "before": before[0].lstrip() if before else "",
                "after": after,
                "gold": samples[0]["gold"],
                "steps": [{"step": s["step"], "middle": s["middle"], "exact": s["exact"]} for s in samples],
            }
        )
    return shown


def _best_first(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    best = best_order(result)
    return sorted(result["metrics"].items(), key=lambda item: item[0] != best)
