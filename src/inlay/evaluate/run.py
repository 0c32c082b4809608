"""Runs tasks on what is evaluated: gold first, then every order, and writes what came out.

Before any score of a model there is the score of the gold answers through the same path: prompt building, ids, the way
back to text, the task's post-processing, its tests and the metrics. Anything under 100 % there says that the harness,
not the model, is wrong: it stands at the top of the result with the ids of the examples, and ends a strict run before
the model is asked. It refuses an order that the model was not trained in, and code to run with nothing to run it in.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from inlay.config import BadInput, InlayError
from inlay.config.run_dir import RunDir
from inlay.evaluate.answer import Answer
from inlay.evaluate.cache import cached_answers, cached_losses, cached_outcomes
from inlay.evaluate.evaluation_items import item_of, write
from inlay.evaluate.gold import score_gold
from inlay.evaluate.harness_table import under_each
from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.metrics import METRICS, PER_EXAMPLE, Judge
from inlay.evaluate.result import result_of
from inlay.evaluate.result_names import name_of, settle
from inlay.evaluate.sandbox import Sandbox, open_sandbox
from inlay.evaluate.sandbox.program import Outcome, Program
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.subject import GREEDY, Decoding, Subject
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.subjects.open import open_subject
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks
from inlay.infer.best_of import best_of
from inlay.infer.open import DtypeName, Opened
from inlay.infer.run_stores import MainStore, main_store
from inlay.text.progress import NoProgress, Progress

DEFAULT_TASKS = ("held_out", "marked")
"""What is asked when no task is named: neither needs anything to be fetched."""


@dataclass(frozen=True)
class Options:
    """How tasks are run."""

    order: str | None = None
    """One of the subject's orders; None takes all."""
    data: str | None = None
    """What was named as data, for the result's name."""
    family: str | None = None
    """The format that was asked for, likewise."""
    limit: int | None = None
    """The first so many examples of each task."""
    decoding: Decoding = GREEDY
    tests: bool = True
    """Whether code is run where a task has tests."""
    allow_unsafe: bool = False
    """Whether code may run without a sandbox that holds it."""
    strict: bool = False
    """Whether gold under 100 % ends everything before the model is asked."""
    harnesses: bool = False
    """Whether the answers are also scored as public harnesses would."""
    cache: Path | None = None
    """Folder of answers that are kept from run to run; None keeps none."""


@dataclass
class Evaluation:
    """A task's result and every scored answer by row."""

    result: dict[str, Any]
    scored: dict[str, list[Scored]]
    items: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    target: str | Path | None,
    task: str | None = None,
    data: str | Path | None = None,
    order: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    *,
    config: TaskConfig | None = None,
    save: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Evaluates one task and returns `{task, n, of, gold, metrics, slices, settings, ...}`.

    `task`: a task's name with its default options ("held_out"), or give its options as `config`. The other arguments
    are those of `evaluate_tasks`. `save`: write the result into the run (or `out`).
    """
    chosen = _task(task, config)
    (result,) = evaluate_tasks(target, [chosen], data, order, limit, progress, save=save, **options)
    return result


def evaluate_tasks(
    target: str | Path | None,
    chosen: Sequence[TaskConfig],
    data: str | Path | None = None,
    order: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    *,
    decoding: Decoding = GREEDY,
    completions: str | Path | None = None,
    family: str | None = None,
    sequence_length: int | None = None,
    api: Literal["auto", "completions", "infill"] = "auto",
    model: str | None = None,
    device: str | None = None,
    dtype: DtypeName = "auto",
    tests: bool = True,
    allow_unsafe: bool = False,
    strict: bool = False,
    harnesses: bool = False,
    out: str | Path | None = None,
    elsewhere: str | Path | None = None,
    save: bool = True,
    skip: Callable[[TaskConfig, BadInput], bool] = lambda task, error: False,
) -> list[dict[str, Any]]:
    """Runs `chosen` tasks on what `open_subject` opens and returns their results.

    `target`: a run, a checkpoint, an export, a Hugging Face folder or a server's address; None with `completions`, a
    file of answers. `data`: where the tasks take their examples from (see `Place`); None for each task's own. `order`:
    psm, spm ...; None takes every order the model has. `limit`: the first so many examples. `family`,
    `sequence_length`, `api`, `model`: see `open_subject`. `tests`, `allow_unsafe`, `strict`, `harnesses`: see
    `Options`. `out`: the folder to write to; None is the run's own, and for what is no run its name under `elsewhere`
    (None: nothing is written). `skip` may say that a task whose examples cannot be had is left out. Raises BadInput for
    a wrong target, task, data, order or limit.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit = {limit}: evaluate at least one example")
    where = None if target is None else str(target)
    given = None if completions is None else str(completions)
    subject = open_subject(
        where, completions=given, family=family, api=api, model=model, sequence_length=sequence_length,
        device=device, dtype=dtype,
    )  # fmt: skip
    try:
        folder = _folder(subject, out, elsewhere) if save else None
        options = Options(
            order=order, data=None if data is None else str(data), family=family, limit=limit, decoding=decoding,
            tests=tests, allow_unsafe=allow_unsafe, strict=strict, harnesses=harnesses,
            cache=None if folder is None else folder / "cache",
        )  # fmt: skip
        place = place_of(subject, None if data is None else str(data))
        results = []
        for task in chosen:
            try:
                examples = task.examples(place, limit)
            except BadInput as error:
                if skip(task, error):
                    continue
                raise
            evaluation = evaluate_examples(subject, task, examples, options, progress)
            if folder is not None:
                result = evaluation.result
                result["name"] = settle(folder, result)
                page = folder / f"{result['name']}.html"
                result["settings"] |= {"target": where or given, "data": place.data, "page": str(page)}
                write(folder, result, evaluation.items)
            results.append(evaluation.result)
        if not results:
            raise BadInput("no task has anything to ask; name one with --task, or data with --data")
        return results
    finally:
        subject.close()


def evaluate_opened(
    opened: Opened,
    task: TaskConfig,
    examples: Examples,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """As `evaluate`, for a model that is open and examples at hand; writes nothing."""
    return evaluate_examples(LocalSubject(opened), task, examples, options or Options(), progress)


def evaluate_examples(
    subject: Subject, task: TaskConfig, examples: Examples, options: Options, progress: Progress | None = None
) -> Evaluation:
    """Asks `subject` for every example in every order and scores what it says, gold first.

    Raises BadInput for an order the subject does not have, or code to run with no sandbox; InlayError in a strict run
    whose gold is under 100 %.
    """
    started = time.monotonic()
    progress = progress or NoProgress()
    asked, task = task, task.fitted(examples)
    orders = orders_of(subject, options.order)
    subject.check_budget(task.max_tokens)
    decoding = subject.decoding(options.decoding, examples) if task.GENERATES else GREEDY
    metrics = metrics_of(task)
    with ExitStack() as stack:
        sandbox = _sandbox(task, examples, options)
        if sandbox is not None:
            stack.callback(sandbox.close)
        judge = stack.enter_context(Judge(task))
        runner = Runner(task, sandbox, options.cache, progress)
        gold = score_gold(subject, task, examples.items, orders, judge, runner, metrics, progress)
        if options.strict and gold.failures:
            raise InlayError(
                f"gold is not 100 % on {task.kind}: {gold.summary()}; the harness is wrong, so the model was not asked"
            )
        scored: dict[str, list[Scored]] = {}
        rows: dict[str, dict[str, Any]] = {}
        items: list[dict[str, Any]] = []
        compared: dict[str, list[dict[str, Any]]] = {}
        for order in orders:
            found = _ask(subject, task, examples.items, order, decoding, options, judge, runner, progress)
            chosen = _best(found, decoding) if decoding.samples > 1 else None
            scored[order] = found
            rows[order] = {"order": order, "samples": decoding.samples, "best_of": None}
            if chosen is not None:
                name = f"{order} best of {decoding.samples}"
                # Losses are the example's, not an answer's, and stand in the row of all samples.
                blank: dict[str, Measure | None] = dict.fromkeys(PER_EXAMPLE)
                scored[name] = [
                    replace(one, answered=replace(one.answered, sample=0), measures=one.measures | blank)
                    for one in (found[at] for at in chosen)
                ]
                rows[name] = {"order": order, "samples": 1, "best_of": decoding.samples}
            if options.harnesses:
                compared[order] = under_each(task, [one.answered for one in found], runner, order)
            picked = None if chosen is None else set(chosen)
            items += [
                item_of(one, order, order, None if picked is None else at in picked) for at, one in enumerate(found)
            ]
    name = name_of(
        asked, examples, data=options.data, family=options.family, decoding=options.decoding,
        order=options.order if len(subject.orders) > 1 else None,
        tested=options.tests or not task.EXECUTES, harnesses=options.harnesses,
    )  # fmt: skip
    result = result_of(
        subject.identity, task, examples, gold, scored, rows, metrics,
        name=name, killed=dict(judge.killed), orders=orders, decoding=decoding, limit=options.limit,
        sandbox=None if sandbox is None else sandbox.name, seconds=time.monotonic() - started,
    )  # fmt: skip
    if options.harnesses:
        result["harnesses"] = compared
    return Evaluation(result, scored, items)


class Runner:
    """Runs a task's programs, each text once, and remembers what became of them."""

    def __init__(self, task: TaskConfig, sandbox: Sandbox | None, cache: Path | None, progress: Progress) -> None:
        self._task = task
        self._sandbox = sandbox
        self._cache = cache
        self._progress = progress
        self._known: dict[Program, Outcome] = {}

    def outcomes(self, asked: Sequence[tuple[Example, str]], what: str) -> list[Outcome | None]:
        """What became of each text in its example; None where there is nothing to run."""
        if self._sandbox is None:
            return [None] * len(asked)
        programs = [self._task.program(example, text) for example, text in asked]
        new = list(dict.fromkeys(one for one in programs if one is not None and one not in self._known))
        if new:
            with self._progress.phase(what, len(new), "tests") as phase:
                found = cached_outcomes(self._sandbox, new, self._cache, phase.advance)
            self._known.update((one, outcome) for one, outcome in zip(new, found, strict=True) if outcome is not None)
        return [None if one is None else self._known[one] for one in programs]

    def answered(self, examples: Sequence[Example], answers: Sequence[Sequence[Answer]], what: str) -> list[Answered]:
        """Every answer, post-processed and run: the raw text and, where it differs, the other."""
        flat = [
            Answered(example, answer, at, self._task.postprocess(example, answer.text))
            for example, given in zip(examples, answers, strict=True)
            for at, answer in enumerate(given)
        ]
        raw = self.outcomes([(one.example, one.answer.text) for one in flat], what)
        changed = [at for at, one in enumerate(flat) if one.post != one.answer.text]
        post = dict(zip(changed, self.outcomes([(flat[at].example, flat[at].post) for at in changed], f"{what}, cut"),
                        strict=True))  # fmt: skip
        return [
            replace(one, raw_outcome=raw[at], post_outcome=post[at] if at in post else raw[at])
            for at, one in enumerate(flat)
        ]


def place_of(subject: Subject, data: str | None) -> Place:
    """Where tasks take their examples from, for this subject."""
    opened = subject.opened if isinstance(subject, LocalSubject) else None
    return Place(data, None if opened is None else lambda: run_store(opened), subject.tokenizer)


def run_store(opened: Opened) -> MainStore:
    """The store that a run was trained from, of a mixture the main one. Raises BadInput when the run does not say, or
    the store is gone or has another content by now."""
    try:
        main = main_store(opened.run, opened.config)
    except BadInput as error:
        reason = str(error)
        if opened.run is None and opened.config.get("data"):
            reason = f"the store that it was trained from does not open ({error})"
        raise BadInput(f"{reason}; say what to evaluate on with --data PATH") from None
    if main.store.tokenizer.hash != opened.tokenizer.hash:
        raise BadInput(f"the store at {main.store.path} was written again with another tokenizer; use --data PATH")
    return main


def orders_of(subject: Subject, order: str | None) -> tuple[str, ...]:
    """The orders to ask in. Raises BadInput for one that the subject cannot be asked in."""
    if order is None:
        return subject.orders
    subject.check_order(order)
    return (order,)


def metrics_of(task: TaskConfig) -> tuple[Metric, ...]:
    """The metrics of all tasks, and the task's own."""
    return (*METRICS, *task.METRICS)


def _ask(
    subject: Subject,
    task: TaskConfig,
    examples: Sequence[Example],
    order: str,
    decoding: Decoding,
    options: Options,
    judge: Judge,
    runner: Runner,
    progress: Progress,
) -> list[Scored]:
    answers = [[Answer("", "unknown")]] * len(examples)
    if task.GENERATES:
        with progress.phase(f"fill gaps, {order}", len(examples), "gaps") as phase:
            answers = cached_answers(subject, examples, order, task.max_tokens, decoding, options.cache, phase.advance)
    with progress.phase(f"losses, {order}", len(examples), "gaps") as phase:
        losses = cached_losses(subject, examples, order, task.max_tokens, options.cache, phase.advance)
    answered = runner.answered(examples, answers, f"run tests, {order}")
    at = dict(zip((example.id for example in examples), losses, strict=True))
    answered = [replace(one, losses=at[one.example.id]) if one.sample == 0 else one for one in answered]
    with progress.phase(f"score, {order}", len(answered), "answers") as phase:
        return judge.score(answered, phase.advance)


def _best(found: Sequence[Scored], decoding: Decoding) -> list[int] | None:
    """Where the best answer of each example stands; None when the answers carry no likelihood."""
    if any(one.answer.logprob is None for one in found):
        return None
    return [
        start + best_of([one.answer for one in found[start : start + decoding.samples]], decoding.rank)
        for start in range(0, len(found), decoding.samples)
    ]


def _sandbox(task: TaskConfig, examples: Examples, options: Options) -> Sandbox | None:
    if not (options.tests and task.EXECUTES):
        return None
    if not any(task.program(example, example.middle) is not None for example in examples.items):
        return None
    return open_sandbox(allow_unsafe=options.allow_unsafe)


def _folder(subject: Subject, out: str | Path | None, elsewhere: str | Path | None) -> Path | None:
    if out is not None:
        return Path(out)
    run = subject.opened.run if isinstance(subject, LocalSubject) else None
    if run is not None:
        return RunDir.open(run).evaluations
    name = re.sub(r"[^\w.-]+", "-", str(subject.identity["name"])).strip("-.") or "model"
    return None if elsewhere is None else Path(elsewhere) / name


def _task(task: str | None, config: TaskConfig | None) -> TaskConfig:
    if config is not None:
        if task is not None and task != config.kind:
            raise BadInput(f"task '{task}' and options of task '{config.kind}' do not go together")
        return config
    return tasks.get(task or DEFAULT_TASKS[0])()  # type: ignore[return-value]
