"""The rows that a run was trained on, made again from its own configuration: which they are, stage by stage.

It follows the stream of rows as the trainer does, over the borders of stages, and shows none that the run has not read
by the checkpoint in question. It refuses options: rows under others are those of the store.
"""

from collections.abc import Sequence
from pathlib import Path

from inlay.config import BadInput, InlayError, nearest, validate
from inlay.config.compose import apply_overrides
from inlay.data.config import STORE_OVERRIDE
from inlay.data.inspect import Shown
from inlay.data.loader import LoaderState, Rows
from inlay.data.mixture import MixedRows
from inlay.infer import run_stores
from inlay.infer.open import candidate_checkpoints
from inlay.model import checkpoint
from inlay.train.config import TrainRun
from inlay.train.plan import Plan, Stage

_AT_ONCE = 1 << 16
"""Rows whose places are reckoned together."""


def of_run(
    place: str | Path,
    overrides: Sequence[str] = (),
    stage: str | None = None,
    source: str | None = None,
    one_source: bool = False,
) -> Shown:
    """The rows of the stage in which the last step of a run, or of one of its checkpoints, was, or of `stage`, from its
    first row on. `source`: only those of one source; None is the main one with `one_source`.

    `overrides` may say where the stores are now. Raises BadInput for any other, for a stage or source that is not
    there, a stage that was not reached, and stores that are gone or changed.
    """
    others = [text for text in overrides if STORE_OVERRIDE.match(text) is None]
    if others:
        raise BadInput(
            f"the rows of a run are those of its own configuration: leave out {' '.join(others)}, or name its store"
        )
    run, candidates = candidate_checkpoints(Path(place))
    config = validate(TrainRun, apply_overrides(run.load_config(), overrides), where=str(run.config_file))
    said = {match[1] for text in overrides if (match := STORE_OVERRIDE.match(text)) is not None}
    data = run_stores.found_data(run.path, config.data, said)
    config = config.model_copy(update={"data": data})
    source = _source(config, source, one_source)
    step, plan = _reached(candidates, config)
    chosen = _stage(plan, stage, step, str(place))
    rows, start = _stream(config, plan, chosen)
    done = min(step, chosen.stop or step) - chosen.start
    named = f", stage {chosen.name}" if len(plan.stages) > 1 else ""
    mixed = f", source {source}" if source is not None else ""
    title = f"rows of {place}{named}{mixed}: steps {chosen.start:,} to {chosen.start + done - 1:,}, from the first on"
    return Shown(rows, start, done * chosen.rows, source, title)


def _reached(candidates: Sequence[Path], config: TrainRun) -> tuple[int, Plan]:
    """The steps that the newest readable checkpoint has, and the plan that they were trained by."""
    problem: InlayError | None = None
    for folder in candidates:
        try:
            record = checkpoint.read_record(folder)
        except InlayError as error:
            problem = problem or InlayError(f"{folder}: {error}")
            continue
        plan, total = Plan(config), record["total_steps"]
        return int(record["step"]), plan.planned(total) if plan.total_steps is None and total is not None else plan
    raise problem or AssertionError("a run without a checkpoint is refused before")


def _source(config: TrainRun, source: str | None, one_source: bool) -> str | None:
    names = tuple(config.data.sources)
    if source is None:
        return config.data.main_source if one_source else None
    if not names:
        raise BadInput(f"--source {source}: the run has one store, {config.data.main}")
    if source not in names:
        raise BadInput(f"--source {source}: the run has {', '.join(names)}{nearest(source, names)}")
    return source


def _stage(plan: Plan, name: str | None, step: int, place: str) -> Stage:
    if step < 1:
        raise BadInput(f"'{place}' was trained on no rows yet: its checkpoint is that of step 0")
    if name is None:
        return plan.stage(step - 1)
    names = [stage.name for stage in plan.stages]
    if name not in names:
        raise BadInput(f"--stage {name}: the run has {', '.join(names)}{nearest(name, names)}")
    chosen = plan.stages[names.index(name)]
    if chosen.start >= step:
        raise BadInput(f"--stage {name} begins at step {chosen.start:,}; '{place}' has {step:,} steps")
    return chosen


def _stream(config: TrainRun, plan: Plan, until: Stage) -> tuple[Rows | MixedRows, LoaderState]:
    """The rows of a stage, and where its first one is: the same way that the trainer goes."""
    state = LoaderState()
    for stage in plan.stages[: until.index + 1]:
        rows = config.data.open("train", stage.fim, stage.sequence_length, config.seed, stage.shares)
        if stage.index == 0:
            state = LoaderState(store=rows.store_hash)
        elif stage.order != plan.stages[stage.index - 1].order:
            state = rows.begin_stage(state)
        if stage is until:
            return rows, state
        left = ((stage.stop or stage.start) - stage.start) * stage.rows
        while left:
            taken = min(left, _AT_ONCE)
            _, state = rows.advance(state, taken)
            left -= taken
    raise AssertionError("the stage is one of the plan's")
