"""One model's answers under each public harness's definition: run where the definition runs tests, and as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from inlay.evaluate.harnesses import compare, harnesses
from inlay.evaluate.scored import Answered
from inlay.evaluate.task import TaskConfig

if TYPE_CHECKING:
    from inlay.evaluate.run import Runner

COLUMNS = (
    ("score", "its score"),
    ("exact", "equal"),
    ("valid", "valid"),
    ("passed", "pass"),
    ("gold_exact", "gold equal"),
    ("gold_valid", "gold valid"),
)
"""Of a row of `compare`; `score` is what the harness itself would report."""


def under_each(task: TaskConfig, answered: Sequence[Answered], runner: "Runner", order: str) -> list[dict[str, Any]]:
    """The rows of `compare`, with tests run on what each harness keeps of the answers, and `score`: tests passed where
    the harness runs tests and they could be run, else its own equality."""
    passed: dict[str, list[bool | None]] = {}
    kept: dict[str, list[str]] = {}
    for harness in harnesses(task):
        kept[harness.name] = [harness.post(one.example, one.answer.text) for one in answered]
        texts = [(one.example, text) for one, text in zip(answered, kept[harness.name], strict=True)]
        outcomes = runner.outcomes(texts, f"run tests as {harness.name}, {order}")
        passed[harness.name] = [None if one is None else one.passed for one in outcomes]
    rows = compare(answered, task, passed, kept=kept)
    for row in rows:
        ran = row["runs"] and row["passed"]["value"] is not None
        row["score"] = row["passed"] if ran else row["exact"]
    return rows


def print_harnesses(found: dict[str, list[dict[str, Any]]], console: Console | None = None) -> None:
    """A table for each order: shares in percent, and what each definition does to the gold."""
    console = console or Console()
    for order, rows in found.items():
        table = Table(
            title=f"order {order}, the same answers under each harness's definition; shares in %",
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 0, 0, 1),
        )
        table.add_column("definition")
        for _, title in COLUMNS:
            table.add_column(title, justify="right")
        for row in rows:
            cells = [row[name]["value"] for name, _ in COLUMNS]
            shown = ["\N{EN DASH}" if value is None else f"{100 * value:.1f}" for value in cells]
            table.add_row(row["title"], *shown)
        console.print(table)
