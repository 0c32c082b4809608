"""The page of an evaluation: every score with its interval, and the answers to look through, in one HTML file.

It decides what stands at the top (gold, then the scores that say most), what is compared with what (orders side by
side, raw against post-processed), and which answers the page holds: all failures before any success, MOST_ANSWERS at
most, and the rest is counted. Everything that comes from a data set or a model is text to be escaped; how an answer is
prepared for the page is in `inlay.evaluate.evaluation_answers`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inlay.evaluate.evaluation_answers import answers_view, bucket_title
from inlay.evaluate.evaluation_command import command_of
from inlay.evaluate.evaluation_verdicts import MARKS
from inlay.evaluate.report_paired import gaps_by_row, paired_difference
from inlay.evaluate.report_text import duration, render, signed
from inlay.evaluate.table import (
    NONE,
    POST,
    category_title,
    format_score,
    gold_lines,
    gold_title,
    has_post,
    is_share,
    main_metric,
    metric_title,
    notes,
    own_metrics,
    row_facts,
    row_title,
)

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The answer", ("passed", "pass@10", "pass@100", "exact", "edit_similarity", "first_line", "exact_bigcode",
                    "exact_qwen")),
    ("The code around it", ("syntax_valid", "compiles", "indentation")),
    ("Where it stops", ("stopped", "overrun_tokens", "underrun_tokens", "continued", "underrun", "empty",
                        "empty_right", "suffix_copied", "looped", "leaked")),
    ("Loss of the gold", ("middle_bpb", "middle_nats", "terminator_nats", "l2r_bpb", "document_bpb")),
)  # fmt: skip
SLICES = (("category", "kind of gap"), ("language", "language"), ("length", "length of the gold"), ("cut", "cut"))
CUT_TITLES = {"neither": "between words", "left": "inside a word, left", "right": "inside a word, right",
              "both": "inside a word, both ends"}  # fmt: skip

Scores = Mapping[str, Mapping[str, Any]]


def render_evaluation(result: dict[str, Any], items: Sequence[dict[str, Any]]) -> str:
    """The page as HTML text, which UTF-8 can always hold."""
    rows = [(row, row_title(result, row)) for row in result["metrics"]]
    gold = result["gold"]
    page = render(
        "evaluation.html.jinja",
        title=str(result.get("name") or result["task"]),
        facts=_facts(result),
        alarms=gold_lines(gold),
        gold="" if gold_lines(gold) else gold_title(gold),
        failing=[(str(one["id"]), str(one["reason"])) for one in gold["failures"][:200]],
        notes=notes(result),
        tiles=_tiles(result),
        rows=rows,
        post=str(result["settings"].get("post") or "none"),
        with_post=has_post(result),
        groups=_overview(result),
        differences=_differences(result, items),
        pickers=_pickers(result),
        legend=_legend(result),
        answers=answers_view(result, items),
        marks=[(mark.name, mark.title, mark.tone, mark.meaning) for mark in MARKS],
        settings=_settings(result),
        command=command_of(result),
        whole=json.dumps(result["settings"], indent=1, ensure_ascii=False, default=str),
    )
    # A lone surrogate, which no UTF-8 file can hold, becomes a question mark; NUL is no character of HTML.
    return page.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{SYMBOL FOR NULL}")


def _facts(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The identity in a line: (word before, value, word after)."""
    settings, whole = result["settings"], result.get("of") or result["n"]
    found = [("", f"{result['n']:,}", "gaps" if whole == result["n"] else f"of {whole:,} gaps")]
    found += [("in", f"{settings['documents_used']:,}", "documents")] if settings.get("documents_used") else []
    found.append(("model", str(settings.get("name") or settings.get("run") or "in memory"), ""))
    found += [("step", f"{settings['step']:,}", "")] if settings.get("step") is not None else []
    found.append(("decoding", str(settings.get("decoding") or "greedy"), ""))
    found += [("at most", f"{settings['max_tokens']:,}", "tokens")] if settings.get("max_tokens") else []
    return found


def _tiles(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores to read first: for each a line a row of the result."""
    main = main_metric(result)
    names = dict.fromkeys([main, POST.get(main, main), "exact", "stopped", "syntax_valid", "middle_bpb"])
    made = []
    for name in names:
        lines = [
            (row_title(result, row), *_value(result, name, scores.get(name)))
            for row, scores in result["metrics"].items()
            if _measured(scores.get(name))
        ]
        if lines and not (name in POST.values() and not has_post(result)):
            made.append({"title": metric_title(result, name), "lines": lines})
    return made[:5]


def _overview(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every metric that was measured anywhere, in groups: for each row its raw score and its post-processed one."""
    found = []
    for title, names in _groups(result):
        lines = []
        for name in names:
            pairs = []
            for scores in result["metrics"].values():
                post = scores.get(POST[name]) if name in POST and has_post(result) else None
                pairs.append((_cell(result, name, scores.get(name)), _cell(result, name, post) if post else None))
            lines.append({"title": metric_title(result, name), "better": _better(result, name), "cells": pairs})
        found += [{"title": title, "lines": lines}] if lines else []
    return found


def _pickers(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A block for each metric: tables by category, language, length and cut, a column a row of the result."""
    blocks = []
    main = main_metric(result)
    for group, names in _groups(result):
        for name in [one for raw in names for one in (raw, POST.get(raw)) if one and (one == raw or has_post(result))]:
            if any(_measured(scores.get(name)) for scores in result["metrics"].values()):
                blocks.append(
                    {
                        "name": name,
                        "group": group,
                        "title": metric_title(result, name),
                        "share": is_share(result, name),
                        "better": _better(result, name),
                        "chosen": name == main,
                        "tables": _tables(result, name),
                    }
                )
    return blocks


def _tables(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = list(result["metrics"])
    # Bars of a score that is no share are drawn against the largest of the block.
    every = [
        scores.get(name)
        for row in rows
        for kind in result["slices"][row].values()
        for scores in [*kind.values(), result["metrics"][row]]
    ]
    scale = 1.0 if is_share(result, name) else max((_top(score) for score in every), default=0.0)
    tables = []
    for kind, title in SLICES:
        labels = list(dict.fromkeys(label for row in rows for label in result["slices"][row].get(kind, {})))
        lines = []
        for label in labels:
            scores = [result["slices"][row].get(kind, {}).get(label, {}).get(name) for row in rows]
            if any(_measured(score) for score in scores):
                n = max(score["n"] for score in scores if score is not None)
                cells = [_cell(result, name, score, scale) for score in scores]
                lines.append({"title": _label(kind, label), "n": f"{n:,}", "cells": cells})
        if lines and (len(lines) > 1 or kind == "category"):
            tables.append({"title": title, "lines": lines})
    return tables


def _label(kind: str, label: str) -> str:
    if kind == "length":
        return bucket_title(label)
    return category_title(label) if kind == "category" else CUT_TITLES.get(label, label) if kind == "cut" else label


def _groups(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Metrics that were measured anywhere, raw ones only: (group, names)."""
    rows = list(result["metrics"].values())
    groups: list[tuple[str, Sequence[str]]] = [("This benchmark's own", own_metrics(result)), *GROUPS]
    kept = [(title, [n for n in names if any(_measured(row.get(n)) for row in rows)]) for title, names in groups]
    return [(title, names) for title, names in kept if names]


def _differences(result: dict[str, Any], items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each further row against the first, gap by gap, in the shares that say most."""
    gaps = gaps_by_row(items, {row: row_facts(result, row) for row in result["metrics"]})
    first, *others = result["metrics"] or [""]
    made = []
    for row in others:
        found = []
        for name in ("passed", "exact", "stopped", "syntax_valid"):
            difference = paired_difference(gaps.get(row, {}), gaps.get(first, {}), name)
            if difference is not None:
                verdict = "tie" if not difference.clear else "better" if difference.value > 0 else "worse"
                text = f"{signed(100 * difference.value, 1)} ± {100 * difference.half:.1f}"
                found.append({"metric": metric_title(result, name), "text": text, "verdict": verdict})
        title = f"{row_title(result, row)} against {row_title(result, first)}"
        made += [{"rows": title, "found": found}] if found else []
    return made


def _legend(result: dict[str, Any]) -> list[tuple[str, str]]:
    measured = {name for row in result["metrics"].values() for name, score in row.items() if _measured(score)}
    return [(str(d["title"]), str(d["meaning"])) for d in result.get("definitions", ()) if d["name"] in measured]


def _settings(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to get the same numbers again."""
    settings = result["settings"]
    corpus = settings.get("corpus") or {}
    whole = f", {corpus['of']:,} gaps in all" if isinstance(corpus.get("of"), int) else ""
    versions = settings.get("versions") or ({"inlay": settings["version"]} if settings.get("version") else {})
    known = [
        ("model", settings.get("name")),
        ("weights", settings.get("weights_hash")),
        ("tokenizer", settings.get("tokenizer_hash")),
        ("format", settings.get("format")),
        ("orders", ", ".join(settings.get("orders") or ())),
        ("data", f"{corpus.get('source')}{whole}" if corpus.get("source") else None),
        ("content hash", corpus.get("hash")),
        ("published in", settings.get("citation")),
        ("task options", _options(settings.get("task"))),
        ("decoding", settings.get("decoding")),
        ("its options", _options(settings.get("decoding_options"))),
        ("post-processing", settings.get("post")),
        ("sandbox", settings.get("sandbox")),
        ("intervals", settings.get("interval")),
        ("versions", _options(versions)),
        ("took", None if settings.get("seconds") is None else duration(float(settings["seconds"]))),
    ]
    return [(title, str(value)) for title, value in known if value not in (None, "")]


def _options(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    plain = {key: value for key, value in values.items() if value is not None}
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)}"
        for key, value in plain.items()
    )


def _better(result: dict[str, Any], name: str) -> str:
    found = {str(one["name"]): one.get("better") for one in result.get("definitions", ())}
    return {"high": "higher", "low": "lower"}.get(found.get(name) or "", "")


def _value(result: dict[str, Any], name: str, score: Mapping[str, Any] | None) -> tuple[str, str]:
    """(value, interval)."""
    if score is None or score["value"] is None:
        return NONE, ""
    share = is_share(result, name)
    whole, short = format_score(name, score, share=share), format_score(name, score, interval=False, share=share)
    return short, whole[len(short) :].strip(" ()")


def _cell(
    result: dict[str, Any], name: str, score: Mapping[str, Any] | None, scale: float | None = None
) -> dict[str, Any]:
    """A score as the template lays it out; `bar` in percent of `scale` (None: no bar)."""
    value, interval = _value(result, name, score)
    cell: dict[str, Any] = {"value": value, "interval": interval, "n": 0 if score is None else score["n"], "bar": None}
    if scale is None and is_share(result, name):
        scale = 1.0
    if score is not None and score["value"] is not None and scale:
        low, high = (score["value"] if score[end] is None else score[end] for end in ("low", "high"))
        spot, low, high = (min(100.0, max(0.0, 100 * x / scale)) for x in (score["value"], low, high))
        cell["bar"] = (f"{spot:.2f}", f"{low:.2f}", f"{high - low:.2f}")
    return cell


def _top(score: Mapping[str, Any] | None) -> float:
    return max((score[end] or 0.0 for end in ("value", "high")), default=0.0) if score is not None else 0.0


def _measured(score: Mapping[str, Any] | None) -> bool:
    return score is not None and score["value"] is not None
