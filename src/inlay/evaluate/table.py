"""The result of an evaluation as a table in the terminal: one row a category, the metrics that matter most as
columns."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

# What the report's tables show; the terminal has room for fewer.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("exact", "exact"),
    ("edit_similarity", "edit sim."),
    ("first_line", "first line"),
    ("syntax_valid", "valid"),
    ("stopped", "stops"),
    ("overrun_tokens", "overrun"),
    ("middle_bpb", "bits/byte"),
)
TERMINAL_COLUMNS = {
    "edit_similarity": "edit",
    "syntax_valid": "valid",
    "stopped": "stops",
    "overrun_tokens": "overrun",
    "middle_bpb": "bits/B",
}
PERCENT = frozenset({"exact", "edit_similarity", "first_line", "syntax_valid", "stopped"})


def print_table(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `evaluate` returned: a warning when gold fell short, then a table an order with 95 % intervals."""
    console = console or Console()
    settings = result["settings"]
    model = settings["run"] or "model in memory"
    of = f"{result['n']} gaps in {settings['documents_used']} documents"
    heading = f"{result['task']}: {of} · {model}, step {settings['step']}"
    console.print(heading, highlight=False, markup=False)
    for line in gold_lines(result["gold"]):
        console.print(line, style="bold red", highlight=False, markup=False)
    for order, overall in result["metrics"].items():
        # Ten columns must fit a terminal of 80 characters.
        table = Table(
            title=f"order {order}, greedy; shares in %",
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 0, 0, 1),
        )
        table.add_column("gap", no_wrap=True)
        for title in ("n", "exact", "95 %", *TERMINAL_COLUMNS.values()):
            table.add_column(title, justify="right", no_wrap=True)
        for category, scores in result["slices"][order]["category"].items():
            table.add_row(category_title(category), *_cells(scores))
        table.add_section()
        table.add_row("all", *_cells(overall))
        console.print(table)


def gold_lines(gold: dict[str, Any]) -> list[str]:
    """What to say about gold answers that did not pass their own harness; nothing when all did."""
    if not gold["failures"]:
        return []
    named = ", ".join(failure["id"] for failure in gold["failures"][:5])
    return [
        f"Only {gold['exact']:.1%} of the gold answers came back exact"
        + (f" and {gold['syntax_valid']:.1%} valid" if gold["syntax_valid"] is not None else "")
        + f": these scores are not to be trusted ({len(gold['failures'])} examples, such as {named})"
    ]


def category_title(category: str) -> str:
    """A category as people read it: "one word", "5-8 tokens"."""
    if category.startswith("tokens_"):
        _, low, high = category.split("_")
        return f"{low}\N{EN DASH}{high} tokens"
    titles = {"word": "one word", "line_end": "rest of a line", "line": "whole line"}
    return {**titles, "empty": "nothing missing", "three_tokens": "three tokens"}.get(category, category)


def format_score(name: str, score: dict[str, Any], *, interval: bool = True) -> str:
    """A score with its interval, as "43.5 % (38-49)"; an en dash where it was not measured."""
    value, low, high = score["value"], score["low"], score["high"]
    if value is None:
        return "\N{EN DASH}"
    if name in PERCENT:
        text, ends = f"{100 * value:.1f} %", f" ({100 * low:.0f}\N{EN DASH}{100 * high:.0f})" if low is not None else ""
    else:
        text, ends = f"{value:.2f}", f" ({low:.2f}\N{EN DASH}{high:.2f})" if low is not None else ""
    return text + (ends if interval else "")


def _cells(scores: dict[str, Any]) -> list[str]:
    exact, interval = (
        _bare("exact", scores["exact"]),
        format_score("exact", scores["exact"]).partition("(")[2].rstrip(")"),
    )
    return [str(scores["exact"]["n"]), exact, interval, *(_bare(name, scores[name]) for name in TERMINAL_COLUMNS)]


def _bare(name: str, score: dict[str, Any]) -> str:
    return format_score(name, score, interval=False).removesuffix(" %")
