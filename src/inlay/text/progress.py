"""Progress of long work, as the library sees it: named phases that advance.

Library code takes a `Progress` and knows nothing about terminals. `NoProgress` is the default; `RichProgress` draws
bars with rate and time left on standard error, and prints one plain line per finished phase when standard error is no
terminal.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Phase(Protocol):
    """A piece of work in progress."""

    def advance(self, amount: int) -> None:
        """Counts `amount` more units as done."""
        ...


class Progress(Protocol):
    """Where phases are shown."""

    def phase(self, name: str, total: int | None, unit: str = "items") -> AbstractContextManager[Phase]:
        """A phase of `total` units (None when unknown). The unit `bytes` is shown in megabytes."""
        ...


class _Silent:
    def advance(self, amount: int) -> None:
        pass


class NoProgress:
    """Shows nothing."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str = "items") -> Iterator[Phase]:
        yield _Silent()


class _Counted:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount


class _Bar:
    def __init__(self, bars: Any, task: Any, unit: str, scale: float) -> None:
        self.done = 0
        self._bars = bars
        self._task = task
        self._unit = unit
        self._scale = scale
        self._started = time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount
        text = amount_text(self.done, time.monotonic() - self._started, self._unit)
        self._bars.update(self._task, completed=self.done * self._scale, amount=text)


class RichProgress:
    """Bars on standard error, or one line per phase where standard error is no terminal."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str = "items") -> Iterator[Phase]:
        started = time.monotonic()
        if not sys.stderr.isatty():
            counted = _Counted()
            yield counted
            seconds = time.monotonic() - started
            print(f"{name}: {amount_text(counted.done, seconds, unit)} in {seconds:.1f} s", file=sys.stderr, flush=True)
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bars:
            bar = _Bar(bars, bars.add_task(name, total=total, amount=""), unit, 1.0)
            yield bar
            bars.update(bar._task, total=max(bar.done, 1), completed=max(bar.done, 1))


def amount_text(done: int, seconds: float, unit: str) -> str:
    """`40.1 MB (12.5 MB/s)` or `312 files (1,040 files/s)`."""
    rate = done / seconds if seconds > 0 else 0.0
    if unit == "bytes":
        return f"{done / 1e6:.1f} MB ({rate / 1e6:.1f} MB/s)"
    return f"{done:,} {unit} ({rate:,.0f} {unit}/s)"
