"""The result of an evaluation in the terminal: what was asked and of whom, whether gold passed, then a table for each
order, a row for each category.

It decides which scores suit a task (tests where they ran, the task's own metrics, raw beside post-processed where the
benchmark has a rule) and leaves out the least of them where the terminal has no room, which it says. Reports share the
names, titles and the writing of numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inlay.evaluate.metrics import METRICS

# What the report of a run shows; the page of the evaluation has every metric.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("exact", "exact"),
    ("edit_similarity", "edit sim."),
    ("first_line", "first line"),
    ("syntax_valid", "valid"),
    ("stopped", "stops"),
    ("overrun_tokens", "overrun"),
    ("middle_bpb", "bits/byte"),
)
PERCENT = frozenset(metric.name for metric in METRICS if metric.share)
"""Scores in 0 to 1 that every task has; a result's own definitions say the same of the task's own."""
POST = {"passed": "passed_post", "exact": "exact_post", "edit_similarity": "edit_similarity_post"}
"""Raw score and the same one after the benchmark's post-processing."""
SHARED = frozenset(metric.name for metric in METRICS)
"""Metrics of all tasks; others are a task's own."""
HEADS = {
    "passed": "pass", "passed_post": "pass post", "exact": "exact", "exact_post": "exact post",
    "edit_similarity": "edit", "edit_similarity_post": "edit post", "syntax_valid": "valid", "stopped": "stops",
    "middle_bpb": "bits/B", "overrun_tokens": "over- run", "pass@10": "p@10", "pass@100": "p@100",
}  # fmt: skip
LEAST = ("edit_similarity_post", "pass@100", "overrun_tokens", "pass@10", "edit_similarity", "exact_post", "exact")
"""What a narrow terminal goes without, first of all first; after these the task's own, from the right."""
MAIN = ("passed", "exact", "middle_bpb")
NONE = "\N{EN DASH}"
LABEL_WIDTH = 24
GUTTER = 2
"""Characters between two columns: the box's own and one of padding."""

Score = Mapping[str, Any]


@dataclass(frozen=True)
class _Column:
    name: str
    head: str
    share: bool
    interval: bool = False


def print_tables(results: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Each result as `print_table` shows it; then, for more than one, a line for each task and order."""
    console = console or Console()
    for result in results:
        print_table(result, console)
        console.print()
    if len(results) < 2:
        return
    table = _table("all tasks; shares in %")
    for at, title in enumerate(("task", "order", "gold", "score", "value", "95 %", "stops", "valid", "bits/B")):
        table.add_column(title, justify="left" if at in (0, 1, 3) else "right", no_wrap=at > 0, overflow="fold")
    for result in results:
        main = main_metric(result)
        for row, scores in result["metrics"].items():
            table.add_row(
                Text(_plain(str(result.get("name") or f"{result['task']}{'-sample' if result.get('sample') else ''}"))),
                Text(_plain(row_title(result, row))),
                f"{_floor(100 * result['gold']['exact'])}{'' if not gold_lines(result['gold']) else ' !'}",
                metric_title(result, main),
                _bare(main, scores.get(main), result),
                _ends(main, scores.get(main), result),
                *(_bare(name, scores.get(name), result) for name in ("stopped", "syntax_valid", "middle_bpb")),
            )
    console.print(table)


def print_table(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints a result: what was asked, gold first, then a table for each order (and best-of) with 95 % intervals."""
    console = console or Console()
    for line in heading_lines(result):
        console.print(line, highlight=False, markup=False)
    for line in notes(result):
        console.print(line, style="yellow", highlight=False, markup=False)
    wrong = gold_lines(result["gold"])
    for line in wrong:
        console.print(line, style="bold red", highlight=False, markup=False)
    if not wrong:
        console.print(gold_title(result["gold"]), style="green", highlight=False, markup=False)
    if by_language := language_line(result):
        console.print(by_language, highlight=False, markup=False)
    for row, overall in result["metrics"].items():
        slices = result["slices"][row]
        groups = [[(category_title(name), scores) for name, scores in slices["category"].items()]]
        languages = slices.get("language", {})
        groups += [list(languages.items())] if len(languages) > 1 else []
        groups.append([("all", overall)])
        columns, left_out = _fitting(result, groups, console.width)
        table = _table(_plain(f"{'' if row == 'given' else 'order '}{row}{_samples_title(result, row)}; shares in %"))
        table.add_column("gap", no_wrap=False, overflow="fold", min_width=4, max_width=LABEL_WIDTH)
        table.add_column("n", justify="right", no_wrap=True)
        for column in columns:
            table.add_column(Text(column.head.replace(" ", "\n")), justify="right", no_wrap=True)
        for group in groups:
            for label, scores in group:
                cells = [_cell(column, scores, result) for column in columns]
                table.add_row(Text(_plain(label)), _count(result, scores), *cells)
            table.add_section()
        console.print(table)
        if left_out:
            named = ", ".join(metric_title(result, column.name) for column in left_out)
            console.print(f"no room here for: {named}", style="dim", highlight=False, markup=False)


def heading_lines(result: dict[str, Any]) -> list[str]:
    """The task, how much of it, the model, and how it answered."""
    settings = result["settings"]
    whole = result.get("of") or result["n"]
    asked = f"{result['n']:,} of {whole:,}" if whole != result["n"] else f"{whole:,}"
    groups = settings.get("documents_used")
    of = f"{asked} gaps" + (f" in {groups:,} documents" if groups else "")
    model = settings.get("name") or settings.get("run") or "model in memory"
    step = "" if settings.get("step") is None else f", step {settings['step']:,}"
    budget = "" if settings.get("max_tokens") is None else f", at most {settings['max_tokens']} tokens"
    source = (settings.get("corpus") or {}).get("source")
    data = f" · data: {source}" if source else ""
    return [f"{result['task']}: {of} · {model}{step}", f"{settings.get('decoding', 'greedy')}{budget}{data}"]


def language_line(result: dict[str, Any]) -> str | None:
    """Which share of the gaps each language has, where there are several."""
    rows = list(result["slices"].values())
    languages = rows[0].get("language", {}) if rows else {}
    counts = {name: max((score["n"] for score in scores.values()), default=0) for name, scores in languages.items()}
    total = sum(counts.values())
    if len(counts) < 2 or not total:
        return None
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return "gaps by language: " + ", ".join(f"{counts[name] / total:.0%} {_plain(name)}" for name in ordered)


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know before the scores: a sample, an unsafe sandbox, languages that nothing here can run."""
    found = []
    if result.get("sample"):
        found.append(
            f"Only the shipped sample of {result['n']:,}, not the benchmark: its scores are not the benchmark's."
        )
    sandbox = result["settings"].get("sandbox")
    if sandbox and "unsafe" in str(sandbox):
        found.append(f"Code of the model ran in a sandbox that does not hold it back ({sandbox}).")
    unavailable = result["gold"].get("unavailable") or {}
    if unavailable:
        named = ", ".join(f"{language} ({count:,})" for language, count in unavailable.items())
        found.append(f"Not run for want of a toolchain, so not counted: {named}.")
    if result.get("not_finite"):
        found.append(f"Not a finite number, so not shown: {', '.join(result['not_finite'][:5])}.")
    return found


def gold_title(gold: dict[str, Any]) -> str:
    """That every gold answer passed, and in what."""
    parts = ["exact"]
    parts += ["valid"] if gold.get("syntax_valid") is not None else []
    parts += ["passed their tests"] if gold.get("passed") is not None else []
    count = f" {gold['n']:,}" if "n" in gold else ""
    return (
        f"gold: 100 % of{count} answers came back {' and '.join(parts[:2])}{''.join(f', and {p}' for p in parts[2:])}"
    )


def gold_lines(gold: dict[str, Any]) -> list[str]:
    """What to say about gold answers that did not pass their own harness; nothing when all did."""
    if not gold["failures"]:
        return []
    named = ", ".join(_plain(str(failure["id"])) for failure in gold["failures"][:5])
    reasons = ", ".join(dict.fromkeys(_plain(str(failure["reason"])) for failure in gold["failures"]))
    return [
        f"Only {_floor(100 * gold['exact'])} % of the gold answers came back exact"
        + (f", {_floor(100 * gold['syntax_valid'])} % valid" if gold.get("syntax_valid") is not None else "")
        + (f", {_floor(100 * gold['passed'])} % passed" if gold.get("passed") is not None else "")
        + f": these scores are not to be trusted ({len(gold['failures']):,} examples, such as {named}; "
        + f"{reasons[:200]})"
    ]


def main_metric(result: dict[str, Any]) -> str:
    """The score that says most: tests passed, else exact, else the task's own, else bits per byte."""
    rows = list(result["metrics"].values())
    measured = [name for name in MAIN[:2] if any(_measured(row.get(name)) for row in rows)]
    own = [name for name in own_metrics(result) if any(_measured(row.get(name)) for row in rows)]
    return [*measured, *own, MAIN[2]][0]


def own_metrics(result: dict[str, Any]) -> list[str]:
    """Metrics that only this task has, in its own order."""
    return [str(one["name"]) for one in result.get("definitions", ()) if one["name"] not in SHARED]


def metric_title(result: dict[str, Any], name: str) -> str:
    """A metric as a heading."""
    titles = {str(one["name"]): str(one["title"]) for one in result.get("definitions", ())}
    return titles.get(name) or dict(COLUMNS).get(name) or name.replace("_", " ")


def is_share(result: dict[str, Any], name: str) -> bool:
    """Whether a score is read in percent."""
    stated = {str(one["name"]): bool(one["share"]) for one in result.get("definitions", ())}
    return stated.get(name, name in PERCENT)


def has_post(result: dict[str, Any]) -> bool:
    """Whether the benchmark has a post-processing of its own."""
    return not str(result["settings"].get("post") or "none").lower().startswith("none")


def row_title(result: dict[str, Any], row: str) -> str:
    """A row as people read it: "SPM", "PSM, best of 8", "as given"."""
    order = str(row_facts(result, row)["order"])
    known = {"spm": "SPM", "psm": "PSM", "spm_v2": "SPM v2", "given": "as given"}
    rest = row.removeprefix(order).strip() if row.startswith(order) else row
    return known.get(order, order) + (f", {rest}" if rest else "")


def row_facts(result: dict[str, Any], row: str) -> dict[str, Any]:
    """`order`, `samples` and `best_of` of a row."""
    return {"order": row, "samples": 1, "best_of": None} | (result.get("rows") or {}).get(row, {})


def category_title(category: str) -> str:
    """A category as people read it: "one word", "5-8 tokens"."""
    if category.startswith("tokens_") and category.count("_") == 2:
        _, low, high = category.split("_")
        return f"{low}\N{EN DASH}{high} tokens"
    titles = {"word": "one word", "line_end": "rest of a line", "line": "whole line"}
    return {**titles, "empty": "nothing missing", "three_tokens": "three tokens"}.get(category, category)


def format_score(name: str, score: Score, *, interval: bool = True, share: bool | None = None) -> str:
    """A score with its interval, as "43.5 % (38-49)"; an en dash where it was not measured.

    `share`: whether it is read in percent; None goes by the name.
    """
    value, low, high = score["value"], score["low"], score["high"]
    if value is None:
        return NONE
    if name in PERCENT if share is None else share:
        text, ends = f"{100 * value:.1f} %", f" ({100 * low:.0f}{NONE}{100 * high:.0f})" if low is not None else ""
    else:
        text, ends = number(value), f" ({number(low)}{NONE}{number(high)})" if low is not None else ""
    return text + (ends if interval else "")


def number(value: float) -> str:
    """A number that is no share: two digits behind the point, none from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def _fitting(
    result: dict[str, Any], groups: list[list[tuple[str, Mapping[str, Score]]]], width: int
) -> tuple[list[_Column], list[_Column]]:
    """The columns that `width` characters hold, and those it does not."""
    columns = _columns(result, [scores for group in groups for _, scores in group])
    rows = [(label, scores) for group in groups for label, scores in group]
    labels = min(LABEL_WIDTH, max(len(label) for label, _ in rows))
    counts = max(len(_count(result, scores)) for _, scores in rows)

    def wide(column: _Column) -> int:
        cells = [len(_cell(column, scores, result)) for _, scores in rows]
        return GUTTER + max(*cells, *(len(word) for word in column.head.split(" ")))

    def dispensable(column: _Column) -> int:
        if column.name in LEAST:
            return len(columns) + len(LEAST) - LEAST.index(column.name)
        return columns.index(column)

    kept, left_out = list(columns), []
    while len(kept) > 2 and labels + GUTTER + counts + sum(map(wide, kept)) > width:
        worst = max((column for column in kept[1:] if not column.interval), key=dispensable)
        kept.remove(worst)
        left_out.append(worst)
    return kept, left_out


def _columns(result: dict[str, Any], scores: list[Mapping[str, Score]]) -> list[_Column]:
    """What was measured anywhere in this row of the result, in the order of reading."""
    main, post = main_metric(result), has_post(result)
    names = [main, *([POST[main]] if post and main in POST else [])]
    names += ["pass@10", "pass@100", *own_metrics(result)]
    for name in ("exact", "edit_similarity"):
        names += [name, *([POST[name]] if post else [])]
    names += ["syntax_valid", "stopped", "overrun_tokens", "middle_bpb"]
    found: list[_Column] = []
    for name in dict.fromkeys(names):
        if not any(_measured(one.get(name)) for one in scores) and name != main:
            continue
        head = HEADS.get(name) or metric_title(result, name)
        found.append(_Column(name, head, is_share(result, name)))
        if name == main:
            found.append(_Column(name, "95\N{NO-BREAK SPACE}%", is_share(result, name), interval=True))
    return found


def _cell(column: _Column, scores: Mapping[str, Score], result: dict[str, Any]) -> str:
    score = scores.get(column.name)
    return _ends(column.name, score, result) if column.interval else _bare(column.name, score, result)


def _count(result: dict[str, Any], scores: Mapping[str, Score]) -> str:
    """Examples behind the row's main score; where that is not measured, behind the one measured most."""
    main = scores.get(main_metric(result))
    if main is not None and main["value"] is not None:
        return f"{main['n']:,}"
    return f"{max((one['n'] for one in scores.values()), default=0):,}"


def _bare(name: str, score: Score | None, result: dict[str, Any]) -> str:
    if score is None:
        return NONE
    return format_score(name, score, interval=False, share=is_share(result, name)).removesuffix(" %")


def _ends(name: str, score: Score | None, result: dict[str, Any]) -> str:
    if score is None:
        return ""
    return format_score(name, score, share=is_share(result, name)).partition("(")[2].rstrip(")")


def _measured(score: Score | None) -> bool:
    return score is not None and score["value"] is not None


def _floor(percent: float) -> str:
    """A percentage that never rounds up to 100."""
    return f"{percent:.0f}" if percent in (0.0, 100.0) else f"{min(percent, 99.9):.1f}"


def _plain(text: str) -> str:
    """Text of a data set in one line, without what would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _samples_title(result: dict[str, Any], row: str) -> str:
    facts = row_facts(result, row)
    return f", mean of {facts['samples']} samples" if facts["samples"] > 1 and not facts["best_of"] else ""


def _table(title: str) -> Table:
    return Table(
        title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1)
    )
