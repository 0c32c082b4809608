"""Progress for people: a bar with loss, tokens/s and time left in a terminal, a plain line now and then elsewhere."""

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from rich.progress import Progress

    from inlay.train.trainer import Trainer


@callbacks.register
class ProgressConfig(CallbackConfig):
    """On standard error, so that standard output stays for results."""

    kind: Literal["progress"] = "progress"
    every_seconds: float = Field(15.0, gt=0.0, le=1e9)
    """Where standard error is no terminal: seconds between lines."""
    every_steps: int | None = Field(None, ge=1, le=10**12)
    """In place of `every_seconds`: a line behind every so many steps."""

    def build(self) -> "ProgressLines":
        return ProgressLines(self)


class ProgressLines(Callback):
    """The callback of ProgressConfig."""

    def __init__(self, config: ProgressConfig) -> None:
        self._config = config
        self._bars: Progress | None = None
        self._task: Any = None
        self._loss = ""
        self._validation = ""
        self._rate = ""
        self._printed_at = 0.0
        self._phase = ""
        self._silent = False

    def start(self, trainer: "Trainer") -> None:
        self._silent = not trainer.parallel.main
        if self._silent:
            return
        for line in trainer.notices:
            self._say(line)
        self._printed_at = time.monotonic()
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=Console(stderr=True),
            speed_estimate_period=60.0,
        )
        self._task = self._bars.add_task("train", total=None, text="")
        self._bars.start()

    def phase(self, trainer: "Trainer", name: str) -> None:
        self._phase = name
        if self._bars is not None:
            self._bars.update(self._task, text=name if trainer.step == 0 else self._text)
        elif trainer.step == 0:
            self._say(name)

    def step(self, trainer: "Trainer") -> None:
        if self._bars is not None:
            self._bars.update(self._task, total=trainer.total_steps, completed=trainer.step, text=self._text)
        elif (
            self._text and trainer.step != trainer.total_steps and self._is_due(trainer.step)
        ):  # `finish` says the last
            total = trainer.total_steps or "?"
            self._say(f"train: step {trainer.step}/{total} · {self._text}")
            self._printed_at = time.monotonic()

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        if "validation/l2r/bpb" in values:
            self._validation = f" · held out {values['validation/l2r/bpb']:.2f} bits/byte"
        if "train/loss" in values:
            self._loss = f"loss {values['train/loss']:.2f}"
            self._rate = f" · {values['tokens_per_second']:,.0f} tokens/s"
        warning = values.get("warning")
        if warning is not None and not warning["stops"]:  # what stops a run is its last line anyway
            self._say(f"warning ({warning['rule']}): {warning['text']}")

    def _is_due(self, step: int) -> bool:
        if self._config.every_steps is not None:
            return step % self._config.every_steps == 0
        return time.monotonic() - self._printed_at >= self._config.every_seconds

    @property
    def _text(self) -> str:
        """Made when it is shown: the validation of the last step comes after its loss."""
        return f"{self._loss}{self._validation}{self._rate}" if self._loss else ""

    def _say(self, line: str) -> None:
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False)
        elif not self._silent:
            with contextlib.suppress(OSError):  # a full disk or a closed pipe behind it must not end the run
                print(line, file=sys.stderr, flush=True)

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=trainer.step, text=self._text)
            self._bars.stop()
            self._bars = None
        elif self._text:
            self._say(f"train: step {trainer.step}/{trainer.total_steps} · {self._text}")
