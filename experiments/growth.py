"""How every infilling metric grows with training tokens: one run, each of its kept checkpoints, the same gaps.

Train with `callbacks.checkpoints.keep_every=N`, then

    python -m experiments.growth runs/long --task held_out --limit 400 --out growth.json
    python -m experiments.growth runs/long --task humaneval_infilling --data FILE.jsonl.gz --limit 200 --out he.json

The result has a line for each checkpoint and order, written as it comes; the table at the end is for LOG.md. The gaps
are the same for all checkpoints, so differences between them are smaller than their intervals say.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from inlay.config import BadInput, validate
from inlay.config.compose import apply_overrides, compose_choice
from inlay.config.files import write_atomic
from inlay.evaluate.run import evaluate
from inlay.evaluate.task import TaskConfig, tasks
from inlay.model import checkpoint
from inlay.text.progress import RichProgress

SHOWN = (
    "exact", "edit_similarity", "first_line", "syntax_valid", "passed", "stopped", "overrun_tokens", "middle_bpb",
    "l2r_bpb", "terminator_nats",
)  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every checkpoint's scores, oldest first."""
    run = Path(options.run)
    folders = sorted(checkpoint.folders(run), key=lambda folder: int(folder.name.rpartition("-")[2]))
    if not folders:
        raise BadInput(f"'{run}' has no checkpoint")
    data = apply_overrides({options.task: compose_choice("evaluate", options.task)}, options.overrides)[options.task]
    task = cast(TaskConfig, validate(tasks.get(data["kind"]), data))
    found: list[dict[str, Any]] = []
    for folder in folders:
        result = evaluate(
            folder,
            None,
            options.data,
            None,
            options.limit,
            RichProgress(),
            config=task,
            save=False,
            tests=options.tests,
        )
        step = int(result["settings"]["step"])
        tokens = int(checkpoint.read_record(folder)["tokens"])
        for row, scores in result["metrics"].items():
            found.append({"step": step, "tokens": tokens, "row": row, "n": result["n"], "scores": scores})
        write_atomic(options.out, json.dumps({"gold": result["gold"], "settings": result["settings"], "rows": found}))
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """The scores as a Markdown table; shares in percent."""
    shown = [name for name in SHOWN if any((row["scores"].get(name) or {}).get("value") is not None for row in found)]
    lines = [f"| tokens | order | {' | '.join(shown)} |", "|" + "---|" * (len(shown) + 2)]
    for row in found:
        cells = []
        for name in shown:
            score = row["scores"][name]
            value = score["value"]
            share = name in ("exact", "edit_similarity", "first_line", "syntax_valid", "passed", "stopped")
            cells.append("–" if value is None else f"{100 * value:.1f}" if share else f"{value:.2f}")
        lines.append(f"| {row['tokens'] / 1e6:.1f}M | {row['row']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, writes JSON as it goes, prints the table."""
    parser = argparse.ArgumentParser(description="Infilling metrics of every kept checkpoint of a run.")
    parser.add_argument("run")
    parser.add_argument("overrides", nargs="*", help="options of the task, as TASK.key=value")
    parser.add_argument("--task", default="held_out")
    parser.add_argument("--data", default=None)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--no-tests", dest="tests", action="store_false")
    parser.add_argument("--out", required=True)
    print(table(measure(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
