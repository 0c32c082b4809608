"""metrics.jsonl: one object a line for everything that is logged. Always on in the shipped configuration."""

import json
from typing import TYPE_CHECKING, Any, Literal, TextIO

from inlay.config.files import disk_errors
from inlay.train.callback import Callback, CallbackConfig, callbacks, drop_lines_behind

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


@callbacks.register
class MetricsConfig(CallbackConfig):
    """Appends to the run's metrics.jsonl."""

    kind: Literal["metrics"] = "metrics"

    def build(self) -> "Metrics":
        return Metrics()


class Metrics(Callback):
    """A resumed run first drops the lines behind the step it resumes from, so that every step stands there once."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def start(self, trainer: "Trainer") -> None:
        if not trainer.parallel.main:
            return
        path = trainer.run.metrics_file
        drop_lines_behind(path, trainer.step)
        with disk_errors(path):
            self._file = path.open("a", encoding="utf-8")

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        if self._file is None:
            return
        with disk_errors(trainer.run.metrics_file):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with disk_errors(trainer.run.metrics_file):
                file.close()
