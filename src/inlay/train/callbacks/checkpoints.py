"""Checkpoints by time and at the end, with retention. A killed run loses at most `every_seconds` of work."""

import time
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from inlay.model import checkpoint
from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


@callbacks.register
class CheckpointsConfig(CallbackConfig):
    """Saves at the end always, and in between by seconds or steps."""

    kind: Literal["checkpoints"] = "checkpoints"
    every_seconds: float | None = Field(60.0, gt=0.0)
    every_steps: int | None = Field(None, ge=1)
    keep: int = Field(2, ge=1)
    """Newest checkpoints that stay."""

    def build(self) -> "Checkpoints":
        return Checkpoints(self)


class Checkpoints(Callback):
    """The callback of CheckpointsConfig."""

    def __init__(self, config: CheckpointsConfig) -> None:
        self._config = config
        self._saved_at = 0.0
        self._saved_step: int | None = None
        self._planned = False

    def start(self, trainer: "Trainer") -> None:
        self._saved_at = time.monotonic()
        self._saved_step = trainer.step
        self._planned = trainer.total_steps is not None

    def step(self, trainer: "Trainer") -> None:
        config = self._config
        by_time = config.every_seconds is not None and time.monotonic() - self._saved_at >= config.every_seconds
        by_step = config.every_steps is not None and trainer.step % config.every_steps == 0
        # A plan made from timed steps is saved at once: a run that is killed afterwards must not make another one.
        plans = not self._planned and trainer.total_steps is not None
        if by_time or by_step or plans:
            self._planned = trainer.total_steps is not None
            self._save(trainer)

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if trainer.savable and self._saved_step is not None and trainer.step != self._saved_step:
            self._save(trainer)

    def _save(self, trainer: "Trainer") -> None:
        trainer.save()
        self._saved_at, self._saved_step = time.monotonic(), trainer.step
        steps = trainer.run.steps()
        # What is newer was damaged, or the run would have resumed from it: it must not crowd out good ones.
        damaged = [step for step in steps if step > trainer.step]
        for step in damaged + [step for step in steps if step <= trainer.step][: -self._config.keep]:
            checkpoint.remove(trainer.run.checkpoint(step))
