"""The verbs that judge runs: `evaluate`, `report`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Parameter

from inlay.cli.overrides import take

if TYPE_CHECKING:
    from inlay.config import BadInput
    from inlay.evaluate.subject import Decoding
    from inlay.evaluate.task import TaskConfig

Tail = Annotated[str, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]
ELSEWHERE = "evaluations"
"""Where results of what is no run go, in the current folder."""
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def evaluate(
    target: str | None = None,
    /,
    *overrides: Tail,
    task: str | None = None,
    data: str | None = None,
    completions: Path | None = None,
    order: Literal["psm", "spm", "spm_v2", "spm_joint", "spm_open"] | None = None,
    limit: int | None = None,
    family: str | None = None,
    api: Literal["auto", "completions", "infill"] = "auto",
    model: str | None = None,
    out: Path | None = None,
    tests: bool = True,
    allow_unsafe: Flag = False,
    strict: Flag = False,
    harnesses: Flag = False,
    as_json: Json = False,
) -> None:
    """Score a model on gaps whose answers are known: gold answers first, then the model's.

    Parameters
    ----------
    target
        A run directory, a checkpoint, an export, a Hugging Face folder, or a server's address (http://...).
    overrides
        Options of the task as key=value (seed=1, split=random-span ...; with several tasks TASK.key=value);
        decoding.samples=20 decoding.temperature=0.2 decoding.top_p=0.95 decoding.heal=true ...; family=NAME, out=DIR
    task
        One task or several with commas between; by default the run's held-out code and ten marked files.
    data
        What the task reads: a file, a folder, a token store, or hf:OWNER/NAME. By default the run's own held-out
        documents, or the few examples that inlay ships.
    completions
        A file of answers, in place of a target: JSON lines with task_id and completion.
    order
        The layout of prompts (psm, spm ...); by default every one that the model was trained in.
    limit
        Only the first so many examples.
    family
        The FIM format of a Hugging Face folder whose tokenizer does not tell, or of a server.
    api
        How a server is asked: completions (OpenAI's) or infill (llama.cpp's); by default it is found out.
    model
        The model's name on a server that has several.
    out
        Where results go; by default into the run, and for other targets to evaluations/NAME.
    tests
        Whether answers are run against the task's tests.
    allow_unsafe
        Run them even where no sandbox holds them.
    strict
        End with status 1, before the model is asked, when the gold answers are not at 100 %.
    harnesses
        Also score the same answers as public harnesses would, and show what each does to the gold.
    as_json
        One JSON object on standard output in place of the table.
    """
    from inlay.evaluate.harness_table import print_harnesses
    from inlay.evaluate.run import DEFAULT_TASKS, evaluate_tasks
    from inlay.evaluate.table import print_tables
    from inlay.text.progress import RichProgress

    if target is not None and "=" in target and not target.startswith(("http://", "https://")):
        # `inlay evaluate --completions F seed=1` has no target.
        overrides, target = (target, *overrides), None
    named, rest = take(overrides, "family")
    place, rest = take(rest, "out")
    kinds = task.split(",") if task is not None else ["held_out"] if data is not None else list(DEFAULT_TASKS)
    chosen, decoding = _options(kinds, rest)
    results = evaluate_tasks(
        target,
        chosen,
        data,
        order,
        limit,
        RichProgress(),
        decoding=decoding,
        completions=None if completions is None else completions.expanduser(),
        family=family or named,
        api=api,
        model=model,
        tests=tests,
        allow_unsafe=allow_unsafe,
        strict=strict,
        harnesses=harnesses,
        out=place if place is not None else out,
        elsewhere=ELSEWHERE,
        skip=_may_skip(task),
    )
    if as_json:
        first, *others = results
        print(json.dumps(first | ({"also": {one["task"]: one for one in others}} if others else {})))
    else:
        print_tables(results)
        for result in results:
            print_harnesses(result.get("harnesses", {}))
        for result in results:
            print(f"answers, failures first: {result['settings']['page']}")


def _options(kinds: list[str], overrides: list[str]) -> "tuple[list[TaskConfig], Decoding]":
    """The tasks with their options and the decoding, from the tail of the command line."""
    from inlay.config import BadInput, validate
    from inlay.config.compose import apply_overrides, compose_choice
    from inlay.evaluate.subject import GREEDY, Decoding
    from inlay.evaluate.task import tasks

    of_decoding = [text for text in overrides if text.lstrip("+~").startswith("decoding.")]
    rest = [text for text in overrides if text not in of_decoding]
    asked = apply_overrides({"decoding": GREEDY.to_dict()}, of_decoding)["decoding"]
    decoding = validate(Decoding, asked, where="command line")
    chosen: list[TaskConfig] = []
    for kind in dict.fromkeys(kinds):
        options = {kind: compose_choice("evaluate", kind)}
        own = [text for text in rest if text.lstrip("+~").startswith(f"{kind}.")]
        if len(kinds) == 1:
            own = [text if text in own else _under(kind, text) for text in rest]
        options = apply_overrides(options, own)
        rest = [text for text in rest if text not in own and len(kinds) > 1]
        cls = tasks.get(str(options[kind].get("kind")))
        chosen.append(cast("TaskConfig", validate(cls, options[kind], where="command line")))
    if rest:
        raise BadInput(f"'{rest[0]}' is of no task here; with several tasks write TASK.key=value ({', '.join(kinds)})")
    return chosen, decoding


def _under(kind: str, text: str) -> str:
    sign = text[: len(text) - len(text.lstrip("+~"))]
    return f"{sign}{kind}.{text[len(sign) :]}"


def _may_skip(task: str | None) -> "Callable[[TaskConfig, BadInput], bool]":
    """Without --task, what cannot be had is left out with a line: a store that is gone, say."""

    def skip(config: "TaskConfig", error: "BadInput") -> bool:
        if task is not None:
            return False
        print(f"inlay: {config.kind} is left out: {error}", file=sys.stderr)
        return True

    return skip


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
