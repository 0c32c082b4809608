"""The verbs that judge runs: `evaluate`, `report`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Parameter

from inlay.cli.overrides import take

if TYPE_CHECKING:
    from inlay.evaluate.task import TaskConfig

Tail = Annotated[str, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


def evaluate(
    target: str,
    /,
    *overrides: Tail,
    task: str = "held_out",
    data: Path | None = None,
    order: Literal["psm", "spm", "spm_v2"] | None = None,
    limit: int | None = None,
    family: str | None = None,
    as_json: Json = False,
) -> None:
    """Score a model on code that it was not trained on.

    Parameters
    ----------
    target
        A run directory, a checkpoint, or a Hugging Face folder.
    overrides
        Options of the task as key=value: seed=1, categories.word=50 ...; family=NAME
    task
        One of the files of the group evaluate.
    data
        A file or folder to cut gaps from; by default the run's own held-out documents.
    order
        The layout of prompts; by default every one that the model was trained in.
    limit
        Only the first so many examples.
    family
        The FIM format of a Hugging Face folder whose tokenizer does not tell.
    as_json
        One JSON object on standard output in place of the table.
    """
    from inlay.config import validate
    from inlay.config.compose import apply_overrides, compose_choice
    from inlay.evaluate.run import evaluate as run_evaluate
    from inlay.evaluate.table import print_table
    from inlay.evaluate.task import tasks
    from inlay.text.progress import RichProgress

    named, rest = take(overrides, "family")
    options = apply_overrides(compose_choice("evaluate", task), rest)
    config = cast("TaskConfig", validate(tasks.get(str(options.get("kind"))), options, where="command line"))
    place = None if data is None else str(data.expanduser())
    result = run_evaluate(target, None, place, order, limit, RichProgress(), config=config, family=family or named)
    if as_json:
        print(json.dumps(result))
    else:
        print_table(result)


def report(first: str, /, *more: Tail, out: Path | None = None, as_json: Json = False) -> None:
    """One run as an HTML page, or several compared: losses with intervals, curves, speed, samples, what was different.

    Parameters
    ----------
    first
        A run directory, a checkpoint of one, or a folder of runs such as a sweep. The first run is what the others are
        compared with.
    more
        Further ones, and out=FILE.
    out
        The page to write; by default report.html in the run directory (or in the one folder of runs), or here.
    as_json
        The numbers as one JSON object on standard output, in place of the path and the table.
    """
    from inlay.evaluate.report import report as write_report
    from inlay.evaluate.report_numbers import numbers, print_comparison

    given, others = take(more, "out")
    place = Path(given) if given is not None else out.expanduser() if out is not None else None
    page, comparison = write_report([first, *others], place)
    if as_json:
        print(json.dumps({"page": page, **numbers(comparison)}, allow_nan=False))
        return
    print(page)
    if sum(len(entry.runs) for entry in comparison.entries) > 1:
        print_comparison(comparison)
