"""Trains the runs of a sweep: asks the search what it wants, hands runs to the launcher, and records how they end.

A run that fails does not stop the others. One whose loss or gradient was not finite has diverged: that is an outcome,
infinitely bad, and it is not tried again. Any other failure is tried again when the sweep goes on.
"""

import contextlib
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inlay.config import BadInput
from inlay.config.files import disk_errors, read_bounded_text
from inlay.text.progress import NoProgress, Phase, Progress
from inlay.train.launcher import Job, Pool, Task
from inlay.train.search import Outcome
from inlay.train.sweep import Arm, Slot, Sweep, is_complete, metric_curve, trained_tokens

DIVERGED = re.compile(r"not finite|non-finite", re.IGNORECASE)
"""In the last line of a run that diverged."""


def train_all(
    sweep: Sweep,
    command: Sequence[str],
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Trains what is not complete; returns why by folder for each run that failed or diverged now.

    `command` is that of `inlay train`, to which `resume=RUN` is added; `say` takes a line for people about every run.
    Raises KeyboardInterrupt, once the runs under way have saved themselves, after SIGINT or SIGTERM; BadInput when
    another process is at work on the sweep.
    """
    with (
        _interrupting(),
        _lock(sweep.path) as lock,
        sweep.config.launcher.open(sweep.path / "jobs", lock) as pool,
    ):
        conductor = _Conductor(sweep, command, pool, say)
        try:
            return conductor.run(progress or NoProgress())
        except KeyboardInterrupt:
            raise KeyboardInterrupt(pool.farewell) from None


@dataclass
class _Running:
    arm: Arm
    task: Task
    job: Job
    number: int
    load: float | None
    tokens: int
    began: float = field(default_factory=time.monotonic)
    pruned: bool = False


class _Conductor:
    """The state of one call of `train_all`."""

    def __init__(self, sweep: Sweep, command: Sequence[str], pool: Pool, say: Callable[[str], None]) -> None:
        self._sweep, self._command, self._pool, self._say = sweep, command, pool, say
        self._launcher = sweep.config.launcher
        self._failed: dict[str, str] = {}
        self._gave_up: dict[tuple[str, int], Outcome] = {}
        self._running: dict[str, _Running] = {}
        self._expected: int | None = None
        """Tokens that this call will train, as far as is known."""
        self._trained = 0
        self._began = time.monotonic()

    def run(self, progress: Progress) -> dict[str, str]:
        waiting = self._waiting()
        ended = len(self._sweep.outcomes())
        if ended:
            self._say(f"{ended} of {self._total} runs are complete already")
        if waiting:
            arm = self._sweep.arm(waiting[0])
            trained = sum(trained_tokens(self._sweep.run(slot)) for slot in waiting)
            left = (self._total - ended) * arm.tokens - trained
            if self._sweep.config.search is None:  # arms may be of different lengths
                left = sum(self._sweep.arm(slot).tokens for slot in waiting) - trained
            self._expected = left if left > 0 else None
        with progress.phase("sweep", self._expected, "tokens") as phase:
            while waiting or self._running:
                while waiting and len(self._running) < self._launcher.slots:
                    self._start(waiting.pop(0))
                self._watch(phase)
                waiting = self._waiting()
        return self._failed

    @property
    def _total(self) -> int:
        return self._sweep.config.most_runs

    def _waiting(self) -> list[Slot]:
        """What is wanted and has neither ended nor started, given what is known now."""
        outcomes = {**self._sweep.outcomes(), **self._gave_up}
        slots = self._sweep.slots(outcomes, self._launcher.slots)
        return [slot for slot in slots if (slot.name, slot.seed) not in outcomes and slot.folder not in self._running]

    def _start(self, slot: Slot) -> None:
        arm = self._sweep.arm(slot)
        run = self._sweep.run(arm)
        log = self._sweep.path / "logs" / f"{arm.folder}.txt"
        task = Task(arm.folder, (*self._command, f"resume={run}"), log)
        number = len({**self._sweep.outcomes(), **self._gave_up}) + len(self._running) + 1
        load, tokens = _load(), trained_tokens(run)
        self._running[arm.folder] = _Running(arm, task, self._pool.start(task), number, load, tokens)

    def _watch(self, phase: Phase) -> None:
        """Returns when a run has ended."""
        while True:
            ended = []
            for running in self._running.values():
                status = running.job.status()  # asked first: what it logs before its end is then read
                self._count(running, trained_tokens(self._sweep.run(running.arm)), phase)
                if status is not None:
                    ended.append((running, status))
                elif not running.pruned and self._is_hopeless(running.arm):
                    running.pruned = True
                    running.job.stop()
            for running, status in ended:
                self._end(running, status, phase)
            if ended or not self._running:
                return
            time.sleep(self._launcher.poll_seconds)

    def _count(self, running: _Running, tokens: int, phase: Phase) -> None:
        if tokens > running.tokens:
            phase.advance(tokens - running.tokens)
            self._trained += tokens - running.tokens
            running.tokens = tokens

    def _is_hopeless(self, arm: Arm) -> bool:
        search = self._sweep.config.search
        if search is None or not search.adaptive:
            return False
        curve = metric_curve(self._sweep.run(arm), self._sweep.config.metric)
        prefix = f"{arm.branch}-" if arm.branch else ""
        others = [
            outcome.curve
            for (name, _), outcome in self._sweep.outcomes().items()
            if outcome.state == "complete" and name.startswith(prefix)
        ]
        return bool(curve) and search.hopeless(curve, others)

    def _end(self, running: _Running, status: int, phase: Phase) -> None:
        arm, run = running.arm, self._sweep.run(running.arm)
        reason = None if status == 0 else _reason(running.task.log, status)
        outcome, value = "complete", None
        if not is_complete(run):
            if running.pruned:
                outcome, reason = "pruned", None
            elif reason is not None and DIVERGED.search(reason):
                outcome = "diverged"
            else:
                outcome, reason = "failed", reason or "it ended without its last checkpoint"
        elif reason is not None:
            reason = None  # somebody has trained it to its end meanwhile with `inlay train resume=`
        curve = metric_curve(run, self._sweep.config.metric)
        if outcome in ("complete", "pruned") and curve:
            value = curve[-1][1]
        seconds = round(time.monotonic() - running.began, 1)
        entry = {
            "run": arm.folder, "status": status, "outcome": outcome, "reason": reason,
            "seconds": seconds, "load_before": running.load,
        }  # fmt: skip
        with disk_errors(self._sweep.path), (self._sweep.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        # The search is told of a failed run only within this call: it is tried again when the sweep goes on.
        if outcome == "failed":
            self._gave_up[arm.name, arm.seed] = Outcome("failed", math.inf, curve)
        if reason is not None:
            self._failed[arm.folder] = reason
        if outcome == "complete":
            self._count(running, arm.tokens, phase)
        self._pool.release(running.task, running.job)
        del self._running[arm.folder]
        self._report(running, outcome, reason, value, seconds)

    def _report(self, running: _Running, outcome: str, reason: str | None, value: float | None, seconds: float) -> None:
        metric = self._sweep.config.metric.removeprefix("validation/").replace("/", " ")
        text = {"complete": "done", "pruned": "pruned", "diverged": "diverged", "failed": "failed"}[outcome]
        if reason is not None:
            text = f"{text}: {reason}"
        elif value is not None:
            text = f"{text}, {metric} {value:.4g}"
        left = (self._expected or 0) - self._trained
        spent = time.monotonic() - self._began
        rest = f", about {_duration(spent * left / self._trained)} left" if self._trained > 0 and left > 0 else ""
        self._say(f"{running.number}/{self._total} {running.arm.folder}: {text} ({_duration(seconds)}{rest})")


def _reason(log: Path, status: int) -> str:
    """The last line that a process printed, or its exit status."""
    text = read_bounded_text(log, errors="replace") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    if status < 0 or not lines:
        return f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    # torchrun's report follows what the run itself said.
    said = [line for line in lines if line.startswith("inlay: ")]
    return (said[-1] if said and not lines[-1].startswith("inlay: ") else lines[-1]).removeprefix("inlay: ")


@contextlib.contextmanager
def _interrupting() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt inside, as Ctrl-C is."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """Held by this process and the runs that it starts: one that outlives a killed sweep is not joined by another."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield None
        return
    with disk_errors(path):
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"a process is still at work on the sweep '{path}': wait for it, or end it first") from None
        yield descriptor
    finally:
        os.close(descriptor)


def _load() -> float | None:
    """Processes that wanted a core in the last minute, where the system says."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
