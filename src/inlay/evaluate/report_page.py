"""What the report says and in which order: turns runs into the plain values that the template lays out.

With one run a colour means a kind of text; with several it means a run, and each kind has a chart of its own. Samples
are the first of the evaluation's fixed list, right or wrong. Everything that comes from a run is text to be escaped.
"""

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from inlay import __version__
from inlay.evaluate.charts import Chart, Series, amount, line_chart
from inlay.evaluate.metrics import METRICS
from inlay.evaluate.report_data import RunData
from inlay.evaluate.table import COLUMNS, category_title, format_score, gold_lines

SHOWN_SAMPLES = 16
PREFIX_LINES, SUFFIX_LINES = 7, 5
KINDS = (
    ("l2r", "left to right"),
    ("spm_middle", "middle, SPM"),
    ("psm_middle", "middle, PSM"),
    ("spm_v2_middle", "middle, SPM v2"),
    ("spm", "whole row, SPM"),
    ("psm", "whole row, PSM"),
    ("spm_v2", "whole row, SPM v2"),
)
TRAINING_COLOUR = 7
ORDER_TITLES = {"spm": "SPM", "psm": "PSM", "spm_v2": "SPM v2"}
STOP_TITLES = {
    "eot": "stopped by itself",
    "limit": "did not stop",
    "sentinel": "stopped at a stray token",
    "deadline": "out of time",
}


def render_page(runs: list[RunData]) -> str:
    """The page as HTML text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("inlay.evaluate").joinpath("report.html.jinja").read_text(encoding="utf-8")
    names = _distinct([run.name for run in runs])
    return environment.from_string(template).render(
        title=" · ".join(names),
        single=len(runs) == 1,
        runs=[
            {
                "name": name,
                "colour": index % 7,
                "facts": facts(run),
                "config": run.config_text,
                "sources": _sources(run),
            }
            for index, (name, run) in enumerate(zip(names, runs, strict=True))
        ],
        warnings=[line for run in runs for result in run.evaluations.values() for line in gold_lines(result["gold"])],
        headline=_headline(runs[0]) if len(runs) == 1 else [],
        charts=_charts(runs, names),
        evaluations=_evaluations(runs, names),
        meanings=[(metric.title, metric.meaning) for metric in METRICS if metric.name in dict(COLUMNS)],
        samples=_samples(runs[0]),
        progress=_progress(runs[0]),
        version=__version__,
    )


def facts(run: RunData) -> list[tuple[str, str]]:
    """The run in a line of numbers: (value, what it is)."""
    found: list[tuple[str, str]] = []
    if run.parameters is not None:
        found.append((amount(run.parameters), "parameters"))
    if run.tokens is not None:
        found.append((amount(run.tokens), "tokens seen"))
    if run.seconds is not None:
        found.append((_duration(run.seconds), "of training"))
    if run.corpus is not None:
        train, held_out = (run.corpus["splits"].get(name) or {} for name in ("train", "validation"))
        if train:
            found.append((_megabytes(train.get("bytes", 0)), f"of code, {train.get('documents', 0):,} files"))
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
    result = _main_evaluation(run)
    if result is None:
        return []
    order = _best_order(result)
    by_category, overall = result["slices"][order]["category"], result["metrics"][order]
    wanted = [
        (name, "exact", f"{category_title(name)}, exact") for name in ("word", "tokens_1_4") if name in by_category
    ]
    tiles = [(by_category[category][metric], metric, title) for category, metric, title in wanted]
    tiles += [
        (overall["syntax_valid"], "syntax_valid", "valid Python, all gaps"),
        (overall["stopped"], "stopped", "stops by itself, all gaps"),
    ]
    made = []
    for score, metric, title in tiles:
        if score["value"] is None:
            continue
        interval = f"{100 * score['low']:.0f}\N{EN DASH}{100 * score['high']:.0f} %" if score["low"] is not None else ""
        made.append({"value": format_score(metric, score, interval=False), "interval": interval, "title": title})
    return made


def _charts(runs: list[RunData], names: list[str]) -> list[Chart]:
    made: list[Chart | None] = []
    if len(runs) == 1:
        curves = runs[0].curves
        kinds = [(key, title, colour) for colour, (key, title) in enumerate(KINDS)]
        for unit, title, axis in (
            ("bpb", "Held-out code, bits per byte", "bits per byte"),
            ("loss", "Loss, nats per token", "nats per token"),
        ):
            # The middles are what infilling is about; whole rows are drawn thinner.
            series = [
                Series(name, curves.get(f"validation/{key}/{unit}", []), colour, faint=name.startswith("whole"))
                for key, name, colour in kinds
            ]
            if unit == "loss":
                series.insert(0, Series("training rows", curves.get("train/loss", []), TRAINING_COLOUR, faint=True))
            made.append(line_chart(title, axis, series))
    else:
        wanted = [
            (f"validation/{key}/{unit}", f"Held-out, {title}, {axis}", axis)
            for unit, axis in (("bpb", "bits per byte"), ("loss", "nats per token"))
            for key, title in KINDS[:4]
        ]
        wanted.append(("train/loss", "Training loss, nats per token", "nats per token"))
        for key, title, axis in wanted:
            series = [
                Series(name, run.curves.get(key, []), at % 7)
                for at, (name, run) in enumerate(zip(names, runs, strict=True))
            ]
            made.append(line_chart(title, axis, series))
    return [chart for chart in made if chart is not None]


def _evaluations(runs: list[RunData], names: list[str]) -> list[dict[str, Any]]:
    """For each task: the plot of exact shares by category, and a table for each run and order."""
    tasks = list(dict.fromkeys(task for run in runs for task in run.evaluations))
    return [_task(task, runs, names) for task in tasks]


def _task(task: str, runs: list[RunData], names: list[str]) -> dict[str, Any]:
    pairs = [
        (at, name, run.evaluations[task])
        for at, (name, run) in enumerate(zip(names, runs, strict=True))
        if task in run.evaluations
    ]
    lines: list[tuple[str, int, dict[str, Any]]] = []
    for at, name, result in pairs:
        for number, order in enumerate(result["metrics"]):
            if len(runs) == 1:
                lines.append((ORDER_TITLES.get(order, order), number, result["slices"][order]["category"]))
            elif order == _best_order(result):
                lines.append((f"{name}, {ORDER_TITLES.get(order, order)}", at % 7, result["slices"][order]["category"]))
    categories = list(dict.fromkeys(category for _, _, scores in lines for category in scores))
    rows = [
        {
            "title": category_title(category),
            "marks": [
                _mark(label, colour, scores[category]["exact"]) for label, colour, scores in lines if category in scores
            ],
        }
        for category in categories
    ]
    first = pairs[0][2]
    return {
        "name": task,
        "n": first["n"],
        "settings": first["settings"],
        "gold": first["gold"],
        "rows": rows,
        "legend": [(label, colour) for label, colour, _ in lines],
        "columns": [title for _, title in COLUMNS],
        "tables": [
            {
                "title": (f"{name} · " if len(runs) > 1 else "") + ORDER_TITLES.get(order, order),
                "open": order == _best_order(result),
                "rows": [
                    (category_title(c), scores["exact"]["n"], _cells(scores))
                    for c, scores in result["slices"][order]["category"].items()
                ]
                + [("all gaps", overall["exact"]["n"], _cells(overall))],
            }
            for _, name, result in pairs
            for order, overall in _best_first(result)
        ],
    }


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
        whole, short = format_score(name, scores[name]), format_score(name, scores[name], interval=False)
        cells.append((short, whole[len(short) :].strip(" ()")))
    return cells


def _samples(run: RunData) -> list[dict[str, Any]]:
    result = _main_evaluation(run)
    if result is not None:
        order = _best_order(result)
        listed = [sample for sample in result.get("samples", []) if sample["order"] == order]
    else:
        last = max((sample["step"] for sample in run.samples), default=None)
        listed = [sample for sample in run.samples if sample["step"] == last]
    return [_sample(sample) for sample in listed[:SHOWN_SAMPLES]]


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    prefix, cut_before = _last_lines(sample["prefix"], PREFIX_LINES)
    suffix, cut_after = _first_lines(sample["suffix"], SUFFIX_LINES)
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


def _main_evaluation(run: RunData) -> dict[str, Any] | None:
    return run.evaluations.get("held_out") or next(iter(run.evaluations.values()), None)


def _best_order(result: dict[str, Any]) -> str:
    """The order with the most exact answers; the first of equals."""
    return max(result["metrics"], key=lambda order: result["metrics"][order]["exact"]["value"] or 0.0)


def _best_first(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    best = _best_order(result)
    return sorted(result["metrics"].items(), key=lambda item: item[0] != best)


def _last_lines(text: str, count: int) -> tuple[str, bool]:
    lines = text.split("\n")
    return "\n".join(lines[-count:]), len(lines) > count


def _first_lines(text: str, count: int) -> tuple[str, bool]:
    lines = text.split("\n")
    return "\n".join(lines[:count]), len(lines) > count


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({at + 1})" for at, name in enumerate(names)]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
