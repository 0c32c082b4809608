"""The plan of a run as a table, one row a stage: what a run will do, before it does it.

It decides nothing: the numbers are those that the trainer's own plan gives. Rates are told as the share of the peak at
which a stage begins and ends. Narrow enough for 80 columns.
"""

import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inlay.data.config import DataConfig, check_supply
from inlay.data.loader import Rows
from inlay.data.mixture import MixedRows
from inlay.train.config import TrainRun
from inlay.train.plan import TIMED_STEPS, Plan, Stage
from inlay.train.stage import rotary_label

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80


@dataclass(frozen=True)
class StageUse:
    """What a stage, or the whole run, takes of a source of rows."""

    stage: str | None
    """None for the whole run."""
    source: str
    share: float
    """Of the tokens of text of that stage."""
    tokens: int
    """Tokens of text."""
    epochs: float
    """How many times over the source is read for it."""
    max_epochs: float | None


@dataclass(frozen=True)
class StageRow:
    """One stage. What is not known yet is None: the steps of a time budget."""

    name: str
    share: float
    start: int | None
    """Steps done when it begins, and when it ends."""
    stop: int | None
    tokens: int | None
    sequence_length: int
    rows: int
    accumulation: int
    tokens_per_step: int
    lr: tuple[float, ...] | None
    """Shares of the peak rates: at its first step, the highest in between where that is higher, at its last step."""
    rope: str
    fim_rate: float
    shares: dict[str, float] | None


def stage_rows(plan: Plan) -> list[StageRow]:
    """The stages of a plan in order."""
    return [_row(plan, stage) for stage in plan.stages]


def stage_uses(data: DataConfig, plan: Plan, rows: Rows | MixedRows | None = None) -> list[StageUse]:
    """What each stage takes of each source, and the run as a whole; nothing while its steps are not known.

    `rows`: the opened ones, which tell how much text a slot holds; without them a slot is taken for a token. Raises
    BadInput with one line where a source would be read more often than it may be.
    """
    if plan.total_steps is None:
        return []
    demand = [(plan.tokens(stage.stop or 0) - plan.tokens(stage.start), stage.shares) for stage in plan.stages]
    parts: list[tuple[str | None, list[tuple[int, dict[str, float] | None]]]] = [(None, demand)]
    if len(plan.stages) > 1:
        parts = [(stage.name, [asked]) for stage, asked in zip(plan.stages, demand, strict=True)] + parts
    check_supply(data, demand, rows)  # of the whole first: it tells what could be had
    return [
        StageUse(name, use.source, use.share, use.tokens, use.epochs, use.max_epochs)
        for name, asked in parts
        for use in check_supply(data, asked, rows)
    ]


def plan_dict(config: TrainRun, plan: Plan, uses: Sequence[StageUse] = ()) -> dict[str, Any]:
    """The plan as plain JSON types."""
    total = plan.total_steps
    return {
        "total_steps": total,
        "tokens": None if total is None else plan.tokens(total),
        "minutes": config.train.minutes,
        "warmup_steps": config.schedule.warmup_steps,
        "cooldown_step": plan.cooldown,
        "schedule": config.schedule.kind,
        "peak_lr": _peaks(config),
        "stages": [asdict(row) for row in stage_rows(plan)],
        "uses": [asdict(use) for use in uses],
    }


def print_plan(config: TrainRun, with_data: bool, as_json: bool) -> None:
    """Prints the plan of a run to standard output: tables for people, or one JSON object.

    `with_data`: whether to open its stores, and say how often they are read. Raises BadInput for stores or rows that
    cannot be had, and for a mixture that the stores do not give.
    """
    plan = Plan(config)
    uses: list[StageUse] = []
    if with_data:
        opened = [config.data.open("train", s.fim, s.sequence_length, config.seed, s.shares) for s in plan.stages]
        uses = stage_uses(config.data, plan, opened[0])
    print(json.dumps(plan_dict(config, plan, uses)) if as_json else plan_text(config, plan, uses))


def plan_notice(config: TrainRun, plan: Plan, rows: Rows | MixedRows) -> str:
    """What a trainer says before its first step. Raises BadInput as `stage_uses` does."""
    told = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in rows.notices]
    return "\n".join([plan_text(config, plan, stage_uses(config.data, plan, rows)), *told])


def plan_text(config: TrainRun, plan: Plan, uses: Sequence[StageUse] = ()) -> str:
    """The plan for people, in lines of at most 80 characters where no name is longer."""
    from rich.console import Console

    rows = stage_rows(plan)
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, color_system=None, markup=False)
    console.print(_title(config, plan))
    console.print(_stage_table(rows))
    for line in (*_schedule_lines(config, plan), *_notes(rows, plan)):
        console.print(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    "))
    if uses:
        console.print()
        console.print(_use_table(uses))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def plan_line(plan: Plan) -> str:
    """One line for the moment at which a time budget has become steps."""
    total = plan.total_steps
    if total is None:
        return "the run is not planned yet"
    borders = ", ".join(f"{stage.name} to step {stage.stop:,}" for stage in plan.stages)
    more = f": {borders}" if len(plan.stages) > 1 else ""
    return f"planned: {total:,} steps, {compact(plan.tokens(total))} tokens{more}"


def compact(count: float) -> str:
    """A count in at most six characters: 512, 36.9M, 1.2B."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size and count >= 10_000:
            shown = count / size
            return f"{shown:.0f}{unit}" if shown >= 99.95 else f"{shown:.1f}{unit}"
    return f"{count:,.0f}"


def _row(plan: Plan, stage: Stage) -> StageRow:
    known = plan.total_steps is not None and stage.stop is not None
    return StageRow(
        name=stage.name,
        share=stage.share,
        start=stage.start if known else None,
        stop=stage.stop,
        tokens=plan.tokens(stage.stop) - plan.tokens(stage.start) if known and stage.stop is not None else None,
        sequence_length=stage.sequence_length,
        rows=stage.rows,
        accumulation=stage.accumulation,
        tokens_per_step=stage.tokens_per_step,
        lr=_rates(plan, stage) if known else None,
        rope=rotary_label(stage.model),
        fim_rate=stage.fim.rate,
        shares=stage.shares,
    )


def _rates(plan: Plan, stage: Stage) -> tuple[float, ...]:
    if stage.stop is None:
        return ()
    first, last = stage.start, stage.stop - 1
    # Where a rate can turn from rising to falling.
    turns = (plan.warmup_steps - 1, plan.warmup_steps, (plan.cooldown or 0) - 1, first + stage.rewarm_steps)
    ends = (plan.multiplier(first), plan.multiplier(last))
    highest = max((plan.multiplier(step) for step in turns if first < step < last), default=0.0)
    return (ends[0], highest, ends[1]) if highest > max(ends) + 1e-9 else ends


def _title(config: TrainRun, plan: Plan) -> str:
    total = plan.total_steps
    if total is None:
        return f"plan: {config.train.minutes:g} minutes"
    return f"plan: {total:,} steps, {plan.tokens(total):,} tokens"


def _stage_table(rows: list[StageRow]) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    cuts = len({row.fim_rate for row in rows}) > 1
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("  stage", overflow="fold", min_width=10)
    for title in ("steps", "tokens", "length", "rows"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("lr, % of peak", justify="right", no_wrap=True)
    if cuts:
        table.add_column("FIM", justify="right", no_wrap=True)
    for row in rows:
        cells = [
            f"  {row.name}",
            "?" if row.start is None or row.stop is None else f"{row.start}-{row.stop}",
            f"{100.0 * row.share:.4g}%" if row.tokens is None else compact(row.tokens),
            f"{row.sequence_length:,}",
            f"{row.rows:,}",
        ]
        cells.append("?" if row.lr is None else " → ".join(map(_percent, row.lr)))
        if cuts:
            cells.append(f"{row.fim_rate:.0%}")
        table.add_row(*cells)
    return table


def _schedule_lines(config: TrainRun, plan: Plan) -> list[str]:
    schedule = config.schedule
    warmup = f"warmup {schedule.warmup_steps:,} steps, " if schedule.warmup_steps else ""
    if plan.total_steps is not None and plan.total_steps <= schedule.warmup_steps:
        rest = (
            f"and the run has {plan.total_steps:,}: its rates rise to the last and never fall; give fewer"
            f" (schedule.warmup_steps={plan.total_steps // 10}) or train longer"
        )
    elif schedule.stable >= 1.0:
        rest = "then the peak until the end" if warmup else "the peak from first to last step"
    elif plan.total_steps is not None:
        begins = f"from step {plan.cooldown:,} on " if plan.cooldown is not None else ""
        rest = f"{begins}{schedule.fall}"
    else:
        rest = (
            f"peak for {schedule.stable:.0%} of what follows, then {schedule.fall}"
            if schedule.stable
            else schedule.fall
        )
    peaks = ", ".join(f"{name} {rate:g}" for name, rate in _peaks(config).items())
    return [f"{schedule.kind}: {warmup}{rest}", f"{config.optim.kind}: peak rates {peaks}"]


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f}" if share >= 0.1 else f"{100.0 * share:.2g}"


def _notes(rows: list[StageRow], plan: Plan) -> list[str]:
    notes = []
    if len({row.tokens_per_step for row in rows}) > 1:
        sizes = ", ".join(f"{row.name} {row.tokens_per_step:,}" for row in rows)
        notes.append(f"tokens a step differ: {sizes}; rows times length keeps them equal")
    if len({row.accumulation for row in rows}) > 1:
        notes.append("micro-batches a step: " + ", ".join(f"{row.name} {row.accumulation}" for row in rows))
    if len({row.rope for row in rows}) > 1:
        notes.append("rotary embedding: " + "; ".join(f"{row.name} theta {row.rope}" for row in rows))
    if plan.total_steps is None:
        notes.append(
            f"the time becomes steps after {TIMED_STEPS + 1} timed steps of stage '{rows[0].name}', at whose"
            " tokens/s all stages are reckoned"
        )
    return notes


def _use_table(uses: Sequence[StageUse]) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("  text of", overflow="fold", min_width=10)
    table.add_column("source", overflow="fold")
    for title in ("share", "tokens", "epochs", "at most"):
        table.add_column(title, justify="right", no_wrap=True)
    for use in uses:
        cells = (f"{use.share:.1%}", compact(use.tokens), f"{use.epochs:,.2f}")
        most = "" if use.max_epochs is None else f"{use.max_epochs:g}"
        table.add_row(f"  {use.stage or 'the run'}", use.source, *cells, most)
    return table


def _peaks(config: TrainRun) -> dict[str, float]:
    """Peak learning rates by class of parameters; `head` counts only where it is not the embedding."""
    peaks = {name: treatment.lr for name, treatment in config.optim.treatments().items()}
    return {name: rate for name, rate in peaks.items() if name != "head" or not config.model.tie_embeddings}
