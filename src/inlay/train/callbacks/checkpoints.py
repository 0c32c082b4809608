"""Checkpoints by time and at the end, with retention. A killed run loses at most `every_seconds` of work.

What stays is decided when a new checkpoint is whole on the disk, never before, from what the records of the others say
of themselves: the rule needs no memory, so a resumed run and a copied one keep the same ones.
"""

import math
import time
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from inlay.config import InlayError
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer

KEPT_FOR, SCORES = "kept_for", "scores"
"""Names in a checkpoint's record: why it stays forever, and what was measured of its weights."""


@callbacks.register
class CheckpointsConfig(CallbackConfig):
    """Saves at the end always, and in between by seconds or steps."""

    kind: Literal["checkpoints"] = "checkpoints"
    every_seconds: float | None = Field(60.0, gt=0.0, le=1e9)
    every_steps: int | None = Field(None, ge=1, le=10**12)
    keep: int = Field(2, ge=1, le=10**6)
    """Newest checkpoints that stay."""
    keep_every: int | None = Field(None, ge=1, le=10**12)
    """Saves at every multiple of so many steps, and these stay."""
    keep_before_cooldown: bool = True
    """Saves where the learning rate begins to fall from its plateau and where a stage ends, and these stay: other
    lengths of a run, and other last stages, can go on from there."""
    best: str | None = None
    """A logged value such as validation/l2r/loss: saves when it is the best so far, and the best one stays."""
    best_is: Literal["lowest", "highest"] = "lowest"

    def build(self) -> "Checkpoints":
        return Checkpoints(self)


class Checkpoints(Callback):
    """The callback of CheckpointsConfig."""

    def __init__(self, config: CheckpointsConfig) -> None:
        self._config = config
        self._saved_at = 0.0
        self._saved_step: int | None = None
        self._planned = False
        self._best = math.inf
        self._score: float | None = None
        self._damaged: set[int] = set()

    def start(self, trainer: "Trainer") -> None:
        self._saved_at = time.monotonic()
        self._saved_step = trainer.step
        self._planned = trainer.total_steps is not None
        # What is newer was damaged, or the run would have resumed from it: it must not crowd out good ones.
        self._damaged = {step for step in trainer.run.steps() if step > trainer.step}
        if self._config.best is not None:
            scores = _scores(trainer.run, self._config)
            self._best = min((value for step, value in scores.items() if step <= trainer.step), default=math.inf)

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        value = values.get(self._config.best) if self._config.best is not None else None
        if value is not None and trainer.step > 0 and math.isfinite(value):
            self._score = float(value)

    def step(self, trainer: "Trainer") -> None:
        config = self._config
        due = config.every_seconds is not None and time.monotonic() - self._saved_at >= config.every_seconds
        best = self._score is not None and _cost(config, self._score) < self._best
        if config.every_seconds is not None or config.best is not None:
            due = bool(trainer.parallel.first(float(due or best)))
        by_step = any(
            every is not None and trainer.step % every == 0 for every in (config.every_steps, config.keep_every)
        )
        # A plan made from timed steps is saved at once: a run that is killed afterwards must not make another one.
        plans = not self._planned and trainer.total_steps is not None
        if due or by_step or plans or self._reasons(trainer):
            self._save(trainer)

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if trainer.savable and self._saved_step is not None and trainer.step != self._saved_step:
            self._save(trainer)

    def _reasons(self, trainer: "Trainer") -> list[str]:
        """Why the checkpoint of this step is to stay forever."""
        config, plan, step = self._config, trainer.plan, trainer.step
        reasons = []
        if config.keep_every is not None and step % config.keep_every == 0:
            reasons.append(f"every {config.keep_every} steps")
        if config.keep_before_cooldown:
            if step == plan.cooldown and trainer.config.schedule.stable > 0.0:
                reasons.append("before the cooldown")
            if step == plan.stage(step - 1).stop and step != plan.total_steps:
                reasons.append(f"end of stage {plan.stage(step - 1).name}")
        return reasons

    def _save(self, trainer: "Trainer") -> None:
        notes: dict[str, Any] = {KEPT_FOR: self._reasons(trainer)}
        if self._config.best is not None and self._score is not None:
            notes[SCORES] = {self._config.best: self._score}
            self._best = min(self._best, _cost(self._config, self._score))
        self._score = None
        self._planned = trainer.total_steps is not None
        self._damaged.discard(trainer.step)  # replaced
        damaged = frozenset(self._damaged)
        trainer.saver.save(trainer, notes, written=partial(clear, trainer.run, self._config, damaged))
        self._saved_at, self._saved_step = time.monotonic(), trainer.step


def clear(run: RunDir, config: CheckpointsConfig, damaged: Collection[int] = ()) -> None:
    """Removes the `damaged` checkpoints and those that need not stay; the newest is there by now."""
    saved = [step for step in run.steps() if step not in damaged]
    stay = set(saved[-config.keep :]) | {step for step in saved if _record(run, step).get(KEPT_FOR)}
    if config.best is not None:
        scores = {step: value for step, value in _scores(run, config).items() if step not in damaged}
        stay |= set(sorted(scores, key=lambda step: (scores[step], step))[:1])
    for step in [*damaged, *(step for step in saved if step not in stay)]:
        checkpoint.remove(run.checkpoint(step))


def _scores(run: RunDir, config: CheckpointsConfig) -> dict[int, float]:
    """By step of those that have it: what `best` says of a checkpoint, lower for a better one."""
    found = {step: _record(run, step).get(SCORES, {}).get(config.best) for step in run.steps()}
    return {step: _cost(config, value) for step, value in found.items() if value is not None}


def _cost(config: CheckpointsConfig, value: float) -> float:
    return value if config.best_is == "lowest" else -value


def _record(run: RunDir, step: int) -> dict[str, Any]:
    try:
        return checkpoint.read_record(run.checkpoint(step))
    except InlayError:  # damaged: it is as good as none
        return {}
