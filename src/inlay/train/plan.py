"""The plan of a run: what holds at each step, as a pure function of the configuration and the number of steps.

Nothing here is state: a run that resumes makes the same plan again. Stages share the run's tokens, and their borders
are rounded to whole steps. Rates go by the share of the tokens that is done (see `inlay.train.schedule`).

A time budget has no plan until steps have been timed; until then its first stage holds. The steps that are timed are
of the first stage, and the tokens that the rest of the time allows are reckoned at their rate: a later stage that is
slower per token (longer rows, in which attention costs more) makes such a run take longer than it was given.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

from inlay.fim.transform import FimConfig
from inlay.model.config import ModelConfig
from inlay.train.config import TrainRun
from inlay.train.stage import StageConfig, with_rotary

UNPLANNED = 1 << 40
"""Stands for the number of steps while it is not known: only the warmup is asked for then."""
TIMED_STEPS = 8
"""Steps that are timed to turn minutes into steps; the first one after compiling is not among them."""


@dataclass(frozen=True)
class Stage:
    """Steps `start` to `stop`, and what holds in them. While the steps of a time budget are not known, the first stage
    has no stop (None) and the others start at UNPLANNED."""

    name: str
    index: int
    share: float
    """Of the run's tokens."""
    start: int
    stop: int | None
    sequence_length: int
    rows: int
    accumulation: int
    model: ModelConfig
    fim: FimConfig
    shares: dict[str, float] | None
    """The mixture by source; None for that of the data."""
    lr: float
    rewarm_steps: int

    @property
    def tokens_per_step(self) -> int:
        """Row slots of one optimizer step."""
        return self.rows * self.sequence_length

    @property
    def order(self) -> tuple[object, ...]:
        """What the order of the rows depends on: stages that agree in it continue one stream."""
        return self.sequence_length, None if self.shares is None else tuple(sorted(self.shares.items()))

    def same_rows(self, other: "Stage") -> bool:
        """Whether both read the very same rows, each cut for infilling as often."""
        return self.order == other.order and self.fim == other.fim


class Plan:
    """The stages of a run. `total_steps` is None while a time budget has not been turned into steps."""

    def __init__(self, config: TrainRun, total_steps: int | None = None) -> None:
        """`total_steps`: of a time budget, once it is known; other budgets say it themselves."""
        self._config = config
        entries = config.stages or (StageConfig(name="all", share=1.0),)
        stages = [_stage(config, entry, index) for index, entry in enumerate(entries)]
        train = config.train
        counts: list[int] | None = None
        if train.tokens is not None:
            counts = _by_tokens(stages, train.tokens)
        elif train.steps is not None:
            counts = _by_steps(stages, train.steps)
        elif total_steps is not None:
            # What was timed is trained already: the first stage holds it.
            counts = _by_steps(stages, max(total_steps, TIMED_STEPS + len(stages)), least=TIMED_STEPS + 1)
        self.total_steps = None if counts is None else sum(counts)
        if counts is None:
            unknown = [replace(stage, start=UNPLANNED) for stage in stages[1:]]
            self.stages: tuple[Stage, ...] = (stages[0], *unknown)
        else:
            stops = list(accumulate(counts))
            self.stages = tuple(
                replace(stage, start=stop - count, stop=stop)
                for stage, count, stop in zip(stages, counts, stops, strict=True)
            )

    def planned(self, total_steps: int, trained: int = 0) -> "Plan":
        """The plan of a time budget that is `total_steps` long; longer where its stages take more at least, or where
        its first stage would not hold the steps that are `trained` already."""
        plan = Plan(self._config, total_steps)
        while plan.total_steps is not None and plan.stage(trained - 1).index > 0:
            plan = Plan(self._config, plan.total_steps + 1)
        return plan

    def steps_of(self, tokens: float) -> int:
        """Steps of a whole run of `tokens` row slots, over all its stages."""
        steps_per_token = math.fsum(stage.share / stage.tokens_per_step for stage in self.stages)
        return max(1, math.ceil(tokens * steps_per_token - 1e-6))

    def stage(self, step: int) -> Stage:
        """What holds at `step` (0-based); behind the end the last stage."""
        return next((stage for stage in self.stages if stage.stop is None or step < stage.stop), self.stages[-1])

    def multiplier(self, step: int) -> float:
        """Share of the peak learning rate at `step`, in [0, 1]."""
        stage = self.stage(step)
        value = stage.lr * self._config.schedule.multiplier(step, self.total_steps or UNPLANNED, self.tokens)
        return (
            value if step >= stage.start + stage.rewarm_steps else value * (step - stage.start + 1) / stage.rewarm_steps
        )

    @property
    def warmup_steps(self) -> int:
        """Steps of the schedule's warmup."""
        return self._config.schedule.warmup_steps

    @property
    def cooldown(self) -> int | None:
        """The first step below the peak of the schedule: a checkpoint of so many steps is the last before the cooldown.

        None where the rate never falls, and while the plan is not known.
        """
        schedule, total = self._config.schedule, self.total_steps
        if total is None:
            return None
        steps = range(min(schedule.warmup_steps, total), total)
        index = bisect_right(steps, schedule.stable, key=lambda step: schedule.progress(step, total, self.tokens))
        return steps[index] if index < len(steps) else None

    def tokens(self, step: int) -> int:
        """Row slots that are trained when `step` steps are done."""
        done = 0
        for stage in self.stages:
            stop = step if stage.stop is None else min(step, stage.stop)
            done += max(0, stop - stage.start) * stage.tokens_per_step
        return done

    def remaining(self, step: int) -> float:
        """Share of the run's tokens, in [0, 1], that is still to come when `step` steps are done."""
        return 1.0 - self.tokens(step) / max(1, self.tokens(self.total_steps or UNPLANNED))

    def context(self, stage: Stage) -> int:
        """The longest rows that weights at `stage` have been trained on with its rotary embedding."""
        return max(before.sequence_length for before in self.stages[: stage.index + 1] if before.model == stage.model)


def _stage(config: TrainRun, entry: StageConfig, index: int) -> Stage:
    train, fim = config.train, config.fim
    return Stage(
        name=entry.name,
        index=index,
        share=entry.share,
        start=0,
        stop=None,
        sequence_length=entry.sequence_length or train.sequence_length,
        rows=entry.rows or train.rows,
        accumulation=entry.accumulation or train.accumulation,
        model=with_rotary(config.model, entry.rope_theta, entry.rope_scaling),
        fim=fim if entry.fim_rate is None else fim.model_copy(update={"rate": entry.fim_rate}),
        shares=entry.shares,
        lr=entry.lr,
        rewarm_steps=entry.rewarm_steps,
    )


def _by_tokens(stages: list[Stage], tokens: int) -> list[int]:
    """Steps of each stage, at least one: borders at the nearest whole step, the whole rounded up."""
    shares = list(accumulate(stage.share for stage in stages))
    done, counts = 0, []
    for stage, share in zip(stages, shares, strict=True):
        size = stage.tokens_per_step
        last = len(counts) == len(stages) - 1
        count = -(-(tokens - done) // size) if last else round((tokens * share / shares[-1] - done) / size)
        counts.append(max(1, count))
        done += counts[-1] * size
    return counts


def _by_steps(stages: list[Stage], steps: int, least: int = 1) -> list[int]:
    """Steps of each stage, `steps` together: at least one each, and `least` for the first."""
    weights = list(accumulate(stage.share / stage.tokens_per_step for stage in stages))
    done, counts = 0, []
    for index, weight in enumerate(weights):
        lowest, highest = done + (least if index == 0 else 1), steps - (len(stages) - 1 - index)
        border = min(highest, max(lowest, round(steps * (weight / weights[-1]))))
        counts.append(border - done)
        done = border
    return counts
