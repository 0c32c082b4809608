"""The demo: real code to a model that infills it, in minutes, with no download: prepare, train, evaluate, report.

It decides the order of the rooms it calls, and what a second demo does: an unfinished one is gone on with, a complete
one stays as it is. Every option is in `conf/demo.yaml`; the run keeps them as `demo.yaml`. What is printed is in
`demo_screens`.
"""

import functools
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inlay.config import Config
    from inlay.config.run_dir import RunDir

DEFAULT = Path("runs/demo")
"""Where a demo goes without `out`."""
OPTIONS = "demo.yaml"
"""In the run: the options that this demo was begun with."""


@functools.cache
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


def demo(
    minutes: float | None,
    corpus: str | None,
    out: str | None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    new: bool = False,
) -> None:
    """Runs the main job end to end into `out`, or goes on with it where it was stopped.

    `resume`: go on, whatever the other options say; `new`: leave what is there, and begin in a new folder beside it.
    Raises BadInput for a directory that holds something else or a demo with other options, and for an unusable corpus.
    """
    from inlay.config import BadInput
    from inlay.config.files import write_atomic
    from inlay.config.run_dir import RunDir
    from inlay.config.yaml_file import dump_yaml

    if resume and new:
        raise BadInput("--resume goes on with a demo, --new begins another: give one of them")
    target = Path(out) if out is not None else DEFAULT
    occupied = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if resume and not occupied:
        raise BadInput(f"no demo at '{target}' to go on with: leave out --resume, or name its folder with --out")
    if occupied and new:
        target = _beside(target)
    if occupied and not new:
        config = _kept(target)
        options = not resume and (minutes is not None or corpus is not None or overrides)
        if options and _composed(target, minutes, corpus, overrides).to_dict() != config.to_dict():
            raise BadInput(
                f"'{target}' holds a demo with other options: --resume goes on with that, --new begins this one in"
                " a new folder beside it"
            )
        run = RunDir.open(target)
        if run.report_file.is_file() and run.evaluations.is_dir():
            from inlay.cli.demo_screens import terminal, there_screen

            for line in there_screen(str(run.path), str(run.report_file), _out(run)):
                terminal().print(line)
            return
        _run_all(config, run, fresh=False)
        return
    config = _composed(target, minutes, corpus, overrides)
    run = RunDir.create(target, config.run.anchored())
    write_atomic(run.path / OPTIONS, dump_yaml(config.to_dict()))
    _run_all(config, run, fresh=True)


def _composed(target: Path, minutes: float | None, corpus: str | None, overrides: Sequence[str]) -> Any:
    from inlay.config import validate
    from inlay.config.compose import compose, quoted

    chosen = [f"prepare.out={quoted(str(target / 'store'))}"]
    if corpus is not None:
        chosen += ["source@prepare.source=folder", f"prepare.source.path={quoted(corpus)}"]
    if minutes is not None:
        chosen.append(f"run.train.minutes={minutes}")
    return validate(schema(), compose("demo", [*chosen, *overrides]), where="demo")


def _kept(target: Path) -> Any:
    """The options of the demo at `target`. Raises BadInput where no demo is."""
    from inlay.config import BadInput, validate
    from inlay.config.yaml_file import load_yaml

    file = target / OPTIONS
    if not file.is_file():
        raise BadInput(
            f"'{target}' is there, and no demo made it: --new begins in a new folder beside it, --out DIR in another"
        )
    data = load_yaml(file)
    place = data["prepare"].get("out") if isinstance(data.get("prepare"), dict) else None
    if isinstance(place, str) and not (Path(place) / "manifest.json").is_file():
        data["prepare"]["out"] = str(target / "store")  # from whichever folder it goes on
    return validate(schema(), data, where=str(file))


def _beside(target: Path) -> Path:
    """`target` with the time behind it, and a number where that is there too."""
    name = f"{target.name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = target.with_name(name), 2
    while path.exists():
        path, number = target.with_name(f"{name}-{number}"), number + 1
    return path


def _out(run: "RunDir") -> list[str]:
    return [] if run.path == DEFAULT else ["--out", str(run.path)]


def _run_all(config: Any, run: "RunDir", fresh: bool) -> None:
    """Every step that is not done yet. A stop says how to go on."""
    from inlay.cli.demo_screens import program
    from inlay.train.trainer import Interrupted

    options = ["--resume", *_out(run)]
    try:
        _steps(config, run, options, fresh)
    except (KeyboardInterrupt, Interrupted) as error:
        reason = str(error).partition("; go on with")[0] or "interrupted"
        line = f"{reason}; go on with: {program()} demo {shlex.join(options)}"
        if isinstance(error, Interrupted):
            raise Interrupted(line, error.exit_status - 128) from None
        raise KeyboardInterrupt(line) from None


def _steps(config: Any, run: "RunDir", options: list[str], fresh: bool) -> None:
    from inlay.cli.demo_screens import first_screen, last_screen, terminal
    from inlay.evaluate.report import write_report
    from inlay.evaluate.run import evaluate
    from inlay.evaluate.table import print_table
    from inlay.text.prepare import prepare
    from inlay.text.progress import RichProgress
    from inlay.text.source import left_out_line
    from inlay.train.compiler import why_slow

    began = time.monotonic()
    store = Path(config.prepare.out)
    corpus = getattr(config.prepare.source, "path", None)
    minutes = config.run.train.minutes
    code = corpus if corpus is not None else "the Python standard library on this machine"
    screen = terminal(sys.stderr)
    for line in first_screen(str(run.path), code, minutes, why_slow(), options):
        screen.print(line)
    progress = RichProgress()
    if (store / "manifest.json").is_file():
        screen.print(f"1/4  Prepared already: {store}")
    else:
        screen.print(f"1/4  Preparing real code into {store}")
        try:
            made = prepare(config.prepare, progress)
        except Exception:
            if fresh:
                shutil.rmtree(run.path, ignore_errors=True)  # nothing of worth is in it yet, and the name stays free
            raise
        taken = sum(made.split(name).document_count for name in made.splits)
        if left_out := left_out_line(made.manifest["dropped"], taken):
            screen.print(left_out)
    _train(config, run, screen)
    screen.print("3/4  Filling gaps in code that the model has never seen")
    result = evaluate(run.path, progress=progress, config=config.evaluation)
    screen.print("4/4  Writing the report")
    report = write_report([str(run.path)], str(run.report_file))
    print_table(result, terminal())
    last_screen(result, str(run.path), str(store), report, corpus, minutes or 5.0, time.monotonic() - began)


def _train(config: Any, run: "RunDir", screen: Any) -> None:
    from inlay.train.run import begin, resume

    if not run.metrics_file.is_file() and not run.steps():
        how = f"for {config.run.train.minutes:g} minutes " if config.run.train.minutes is not None else ""
        screen.print(f"2/4  Training {how}on this machine")
        begin(config.run.anchored(), run)
    elif _is_trained(run):
        screen.print("2/4  Trained already")
    else:
        screen.print("2/4  Training goes on from its newest checkpoint")
        resume(str(run.path))


def _is_trained(run: "RunDir") -> bool:
    from inlay.config import InlayError
    from inlay.model import checkpoint

    for folder in checkpoint.folders(run.path):
        try:
            record = checkpoint.read_record(folder)
        except InlayError:
            continue
        return record["total_steps"] is not None and record["step"] >= record["total_steps"]
    return False
