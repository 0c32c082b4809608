"""The plan of a run: what holds at each step, as a pure function of the configuration and the number of steps.

Nothing here is state: a run that resumes makes the same plan again. A time budget has no plan until steps have been
timed; until then its first stage holds.
"""

import math
from dataclasses import dataclass, replace

from inlay.model.config import ModelConfig
from inlay.train.config import TrainRun

UNPLANNED = 1 << 40
"""Stands for the number of steps while it is not known: only the warmup is asked for then."""


@dataclass(frozen=True)
class Stage:
    """Steps `start` to `stop` (None while it is not known), and what holds in them."""

    name: str
    index: int
    start: int
    stop: int | None
    sequence_length: int
    rows: int
    accumulation: int
    model: ModelConfig

    @property
    def tokens_per_step(self) -> int:
        """Row slots of one optimizer step."""
        return self.rows * self.sequence_length


class Plan:
    """The stages of a run. `total_steps` is None while a time budget has not been turned into steps."""

    def __init__(self, config: TrainRun, total_steps: int | None = None) -> None:
        """`total_steps`: of a time budget, once it is known; other budgets say it themselves."""
        self._config = config
        first = self._stage(0, 0)
        train = config.train
        if train.tokens is not None:
            total_steps = math.ceil(train.tokens / first.tokens_per_step)
        elif train.steps is not None:
            total_steps = train.steps
        self.total_steps = total_steps
        self.stages: tuple[Stage, ...] = (replace(first, stop=total_steps),)

    def planned(self, total_steps: int) -> "Plan":
        """The plan of a time budget that is `total_steps` long."""
        return Plan(self._config, total_steps)

    def stage(self, step: int) -> Stage:
        """What holds at `step` (0-based); behind the end the last stage."""
        return next((stage for stage in self.stages if stage.stop is None or step < stage.stop), self.stages[-1])

    def multiplier(self, step: int) -> float:
        """Share of the peak learning rate at `step`."""
        return self._config.schedule.multiplier(step, self.total_steps or UNPLANNED)

    def tokens(self, step: int) -> int:
        """Row slots that are trained when `step` steps are done."""
        done = 0
        for stage in self.stages:
            stop = step if stage.stop is None else min(step, stage.stop)
            done += max(0, stop - stage.start) * stage.tokens_per_step
        return done

    def _stage(self, index: int, start: int) -> Stage:
        train = self._config.train
        return Stage(
            "all", index, start, None, train.sequence_length, train.rows, train.accumulation, self._config.model
        )
