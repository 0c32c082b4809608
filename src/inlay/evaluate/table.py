"""The result of an evaluation as a table in the terminal: one row a category, the metrics that matter most as columns."""

from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS: tuple[tuple[str, str], ...] = (
    ("exact", "exact"),
    ("edit_similarity", "edit sim."),
    ("first_line", "first line"),
    ("syntax_valid", "valid"),
    ("stopped", "stops"),
    ("overrun_tokens", "overrun"),
    ("middle_bpb", "bits/byte"),
)
PERCENT = frozenset({"exact", "edit_similarity", "first_line", "syntax_valid", "stopped"})


def print_table(result: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `evaluate` returned: a warning when gold fell short, then a table an order with 95 % intervals."""
    console = console or Console()
    settings = result["settings"]
    model = settings["run"] or "model in memory"
    console.print(
        f"[bold]{result['task']}[/bold]: {result['n']} gaps in {settings['documents_used']} documents · {model}, step {settings['step']}",
        highlight=False,
    )
    for line in gold_lines(result["gold"]):
        console.print(line, style="bold red", highlight=False, markup=False)
    for order, overall in result["metrics"].items():
        table = Table(title=f"order {order}, greedy", title_justify="left", title_style="italic")
        table.add_column("gap")
        table.add_column("n", justify="right")
        for _, title in COLUMNS:
            table.add_column(title, justify="right")
        for category, scores in result["slices"][order]["category"].items():
            table.add_row(category_title(category), str(scores["exact"]["n"]), *_cells(scores))
        table.add_section()
        table.add_row("all", str(overall["exact"]["n"]), *_cells(overall))
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
    return {"word": "one word", "line_end": "rest of a line", "line": "whole line"}.get(category, category)


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
    return [format_score(name, scores[name], interval=name in ("exact", "syntax_valid")) for name, _ in COLUMNS]
