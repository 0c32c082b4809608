"""The demo: real code to a model that infills it, in minutes, with no download: prepare, train, evaluate, report.

It decides only the order of the rooms it calls and what is printed; every option is in `conf/demo.yaml`.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inlay.config import Config
    from inlay.config.run_dir import RunDir

DEFAULT = Path("runs/demo")
"""Where the first demo goes; later ones get a dated name beside it."""
SHOWN = 3
"""Infills printed at the end: the first one-word gaps of the fixed list, right or wrong."""


def schema() -> "type[Config]":
    """The typed configuration of the demo; made here because its parts live in rooms that import torch."""
    from inlay.config import Config
    from inlay.evaluate.tasks.held_out import HeldOutConfig
    from inlay.text.prepare import PrepareConfig
    from inlay.train.config import TrainRun

    class DemoConfig(Config):
        """Everything `inlay demo` does."""

        prepare: PrepareConfig
        run: TrainRun
        evaluation: HeldOutConfig

    return DemoConfig


def demo(minutes: float | None, corpus: str | None, out: str | None, overrides: Sequence[str] = ()) -> None:
    """Runs the main job end to end into `out`. Raises BadInput for an existing directory or an unusable corpus."""
    from inlay.config import validate
    from inlay.config.compose import compose, quoted
    from inlay.config.run_dir import RunDir, default_path
    from inlay.evaluate.report import write_report
    from inlay.evaluate.run import evaluate
    from inlay.evaluate.table import print_table
    from inlay.text.prepare import prepare
    from inlay.text.progress import RichProgress
    from inlay.text.source import left_out_line
    from inlay.train.run import begin

    began = time.monotonic()
    target = Path(out) if out is not None else DEFAULT if not DEFAULT.exists() else default_path("demo")
    chosen = [f"prepare.out={quoted(str(target / 'store'))}"]
    if corpus is not None:
        chosen += ["source@prepare.source=folder", f"prepare.source.path={quoted(corpus)}"]
    if minutes is not None:
        chosen.append(f"run.train.minutes={minutes}")
    config: Any = validate(schema(), compose("demo", [*chosen, *overrides]), where="demo")
    run = RunDir.create(target, config.run.anchored())
    progress = RichProgress()
    try:
        _say(f"1/4  Preparing real code into {run.path / 'store'}")
        store = prepare(config.prepare, progress)
        taken = sum(store.split(name).document_count for name in store.splits)
        if left_out := left_out_line(store.manifest["dropped"], taken):
            _say(left_out)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # nothing of worth is in it yet, and the name stays free
        raise
    _say(f"2/4  Training for {config.run.train.minutes:g} minutes on this machine")
    begin(config.run, run)
    _say("3/4  Filling gaps in packages the model has never seen")
    result = evaluate(run.path, progress=progress, config=config.evaluation)
    _say("4/4  Writing the report")
    report = write_report([str(run.path)], str(run.report_file))
    print_table(result)
    _show_infills(result)
    _say_next(run, report, time.monotonic() - began)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show_infills(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    words = [sample for sample in result["samples"] if sample["category"] == "word"]
    console.print(f"\nThe first {SHOWN} one-word gaps of the held-out list, right or wrong:", highlight=False)
    for sample in words[:SHOWN]:
        head = "".join(sample["prefix"].splitlines(keepends=True)[-3:])
        tail = "".join(sample["suffix"].splitlines(keepends=True)[:2]).rstrip("\n")
        verdict = "the same as the original" if sample["exact"] else f"the original has: {sample['gold']!r}"
        console.print(f"\n[dim]{sample['path']}[/dim]", highlight=False)
        text = Text(head)
        text.append(sample["middle"], "bold green" if sample["exact"] else "bold yellow")
        text.append(tail)
        console.print(text)
        console.print(f"[dim]→ filled {sample['middle']!r}, {verdict}[/dim]", highlight=False)


def _say_next(run: "RunDir", report: str, seconds: float) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    command = Path(sys.argv[0])
    name = "inlay" if shutil.which("inlay") else str(command) if command.name == "inlay" else "python -m inlay"
    console.print(f"\nDone in {seconds / 60:.1f} minutes. The report: [bold]{report}[/bold]")
    console.print("Next:")
    console.print(f"  echo 'for i in <CURSOR>(10):' | {name} complete {run.path}", markup=False)
    console.print(f"  {name} inspect rows {run.path / 'store'} --count 2", markup=False)
    console.print(f"  {name} demo --corpus PATH/TO/YOUR/CODE --minutes 10", markup=False)
