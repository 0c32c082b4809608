"""Validation loss by kind on fixed held-out rows: left-to-right, and each order as a whole and on its middles."""

import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from inlay.config.files import write_atomic
from inlay.evaluate.report_sums import FILE
from inlay.train.callback import Callback, CallbackConfig, callbacks, due
from inlay.train.validate import Validator

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


@callbacks.register
class ValidationConfig(CallbackConfig):
    """Measures `evaluations` times, evenly over the run's tokens, and at its end."""

    kind: Literal["validation"] = "validation"
    evaluations: int = Field(8, ge=1, le=10**6)
    every_steps: int | None = Field(None, ge=1, le=10**12)
    """In place of `evaluations`: before the first step, behind every so many, and the last."""
    rows: int = Field(24, ge=1, le=10**6)
    """Held-out rows per kind."""

    def build(self) -> "Validation":
        return Validation(self)


class Validation(Callback):
    """The callback of ValidationConfig."""

    def __init__(self, config: ValidationConfig) -> None:
        self._config = config
        self._validator: Validator | None = None

    def start(self, trainer: "Trainer") -> None:
        self._validator = Validator(trainer.config, self._config.rows)
        if trainer.step == 0:
            self._measure(trainer)

    def step(self, trainer: "Trainer") -> None:
        # Without a plan (a time budget before its warm-up) only the start and what comes after are measured.
        if due(trainer.step, trainer.total_steps, self._config.evaluations, self._config.every_steps):
            self._measure(trainer)

    def _measure(self, trainer: "Trainer") -> None:
        if self._validator is not None:
            trainer.phase("validation")
            with trainer.whole_model() as model:
                values = self._validator.measure(model)
            trainer.log(values)
            if trainer.parallel.main:
                record = self._validator.record(trainer.step, trainer.tokens, trainer.rows.store_hash)
                write_atomic(trainer.run.path / FILE, json.dumps(record) + "\n")
