"""A sweep: named arms (overrides each) times seeds, every one an ordinary run in the sweep's folder, trained in order.

    runs/sweep-NAME-DATE/sweep.yaml        the sweep as it was asked for, written last: without it there is no sweep
                         ARM-seed0/        a run directory, as `inlay train` makes it
                         logs/ARM-seed0.txt
                         log.jsonl         one object per process that ended: seconds, exit status, load

All run directories are there from the beginning, each with its resolved configuration, so that starting a run and going
on with a killed one are the same: `inlay train resume=RUN`, one process each, for clean memory and caches. A run that
fails does not stop the others. What the runs are compared by is `inlay.train.study`'s matter.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from inlay.config import BadInput, Config, ConfigError, InlayError, validate
from inlay.config.compose import compose
from inlay.config.files import disk_errors, write_atomic
from inlay.config.run_dir import RunDir, config_text, default_path
from inlay.config.yaml_file import load_yaml
from inlay.model import checkpoint
from inlay.text.progress import NoProgress, Phase, Progress
from inlay.train.config import TrainRun

Measure = Literal["loss", "speed", "size", "decode"]
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
"""How long a run that was asked to stop may take to save itself."""


class SweepConfig(Config):
    """What a sweep trains. An override is one of `inlay train`'s."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    base: tuple[str, ...] = ()
    """Overrides of every run; those of the command line come behind them."""
    arms: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Overrides of each arm. The first arm is the one that the others are compared with."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Every arm is trained with each of them: the spread between seeds is what a difference has to exceed."""
    measures: tuple[Measure, ...] = ("loss", "speed", "size")
    """Columns of the table: validation loss, training speed, parameters and K/V bytes, decoding speed."""

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in arms:
            if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name[0] in "._-":
                raise ValueError(f"arm '{name}' would name a folder: use letters, digits, points and dashes")
        return arms

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are distinct and not negative")
        return seeds


@dataclass(frozen=True)
class Arm:
    """One run of a sweep."""

    name: str
    seed: int
    config: TrainRun

    @property
    def folder(self) -> str:
        """Its run directory inside the sweep's."""
        return f"{self.name}-seed{self.seed}"

    @property
    def tokens(self) -> int:
        """Row slots that it will train on. 0 for a run that is limited by minutes."""
        train = self.config.train
        if train.steps is not None:
            return train.steps * train.tokens_per_step
        return 0 if train.tokens is None else -(-train.tokens // train.tokens_per_step) * train.tokens_per_step


def planned(config: SweepConfig) -> list[Arm]:
    """Every run in the order of training: all arms with the first seed, then all with the next.

    Raises ConfigError that names the arm whose configuration is wrong, BadInput for an override that an arm would
    silently beat.
    """
    fixed = {_key(override) for override in config.base}
    found = []
    for seed in config.seeds:
        for name, overrides in config.arms.items():
            for override in overrides:
                if "=" in override and _key(override) in fixed:
                    raise BadInput(f"arm '{name}' sets {override}, which base or the command line sets too: drop one")
            try:
                data = compose("train", [*config.base, *overrides, f"seed={seed}"])
                found.append(Arm(name, seed, validate(TrainRun, data, where=f"arm '{name}'")))
            except ConfigError as error:
                raise ConfigError(f"arm '{name}': {error}") from None
    return found


@dataclass(frozen=True)
class Sweep:
    """A sweep on the disk. Make one with `create`, or `open` one that exists."""

    path: Path
    config: SweepConfig

    @classmethod
    def create(cls, path: str | Path | None, config: SweepConfig) -> "Sweep":
        """A new sweep with all its run directories; without `path` it is `runs/sweep-NAME-DATE`.

        Raises BadInput when the folder holds anything already, and what `planned` raises before anything is written.
        """
        arms = planned(config)
        target = default_path(f"sweep-{config.name}") if path is None else Path(path)
        if (target / "sweep.yaml").is_file():
            raise BadInput(f"the sweep '{target}' exists: go on with it (resume={target}) or choose another out=DIR")
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            occupied = any(target.iterdir())
        if occupied:
            raise BadInput(f"'{target}' is not empty, and a sweep would mix with it: choose another out=DIR")
        with disk_errors(target):
            (target / "logs").mkdir()
        for arm in arms:
            RunDir.create(target / arm.folder, arm.config)
        write_atomic(target / "sweep.yaml", config_text(config, "sweep", target / "sweep.yaml"))
        return cls(target, config)

    @classmethod
    def open(cls, path: str | Path) -> "Sweep":
        """The sweep at `path`. Raises BadInput when there is none."""
        target = Path(path)
        if not (target / "sweep.yaml").is_file():
            raise BadInput(f"no sweep at '{target}': it has no sweep.yaml")
        return cls(target, validate(SweepConfig, load_yaml(target / "sweep.yaml"), where=str(target / "sweep.yaml")))

    @property
    def arms(self) -> list[Arm]:
        """Every run, in the order of training, as its own configuration file has it."""
        found = []
        for seed in self.config.seeds:
            for name in self.config.arms:
                run = RunDir.open(self.path / f"{name}-seed{seed}")
                found.append(Arm(name, seed, validate(TrainRun, run.load_config(), where=str(run.config_file))))
        return found

    def run(self, arm: Arm) -> RunDir:
        """The run directory of an arm."""
        return RunDir(self.path / arm.folder)

    def log(self) -> list[dict[str, Any]]:
        """What processes have left in log.jsonl, in order."""
        return list(_lines(self.path / "log.jsonl"))


def is_complete(run: RunDir) -> bool:
    """Whether the newest readable checkpoint of a run is that of its last step."""
    try:
        _, record, _ = checkpoint.newest_good(checkpoint.folders(run.path))
    except InlayError:
        return False
    return record.get("total_steps") is not None and record["step"] >= record["total_steps"]


def train_all(
    sweep: Sweep,
    command: Sequence[str],
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Trains what is not complete, one process after the other; returns why by folder for each run that failed.

    `command` is that of `inlay train`, to which `resume=RUN` is added; `say` takes a line for people about every run.
    Raises KeyboardInterrupt, once the run under way has saved itself, after SIGINT or SIGTERM; BadInput when another
    process is at work on the sweep.
    """
    arms = sweep.arms
    failed = {}
    with _lock(sweep.path) as lock:
        waiting = [arm for arm in arms if not is_complete(sweep.run(arm))]
        if len(waiting) < len(arms):
            say(f"{len(arms) - len(waiting)} of {len(arms)} runs are complete already")
        left = sum(arm.tokens - _tokens(sweep.run(arm)) for arm in waiting)
        with (progress or NoProgress()).phase("sweep", left if left > 0 else None, "tokens") as phase:
            began, trained = time.monotonic(), 0
            for number, arm in enumerate(waiting, len(arms) - len(waiting) + 1):
                if is_complete(sweep.run(arm)):  # somebody has trained it meanwhile with `inlay train resume=`
                    continue
                before, started = _tokens(sweep.run(arm)), time.monotonic()
                reason = _train_one(sweep, arm, command, lock, phase)
                trained += arm.tokens - before
                seconds, spent = time.monotonic() - started, time.monotonic() - began
                outcome = "done" if reason is None else f"failed: {reason}"
                if reason is not None:
                    failed[arm.folder] = reason
                rest = f", about {_duration(spent * (left - trained) / trained)} left" if 0 < trained < left else ""
                say(f"{number}/{len(arms)} {arm.folder}: {outcome} ({_duration(seconds)}{rest})")
    return failed


def _train_one(sweep: Sweep, arm: Arm, command: Sequence[str], lock: int | None, phase: Phase) -> str | None:
    """Trains or goes on with one run; why it failed, or None."""
    run, log = sweep.run(arm), sweep.path / "logs" / f"{arm.folder}.txt"
    started, load, tokens = time.monotonic(), _load(), _tokens(run)
    with _process([*command, f"resume={run}"], log, lock) as child:
        while child.poll() is None:
            time.sleep(POLL_SECONDS)
            now = max(tokens, _tokens(run))
            phase.advance(now - tokens)
            tokens = now
    phase.advance(max(0, arm.tokens - tokens))
    seconds = round(time.monotonic() - started, 1)
    entry = {"run": arm.folder, "status": child.returncode, "seconds": seconds, "load_before": load}
    with disk_errors(sweep.path), (sweep.path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return None if child.returncode == 0 else _last_line(log, child.returncode)


@contextlib.contextmanager
def _process(command: list[str], log: Path, lock: int | None) -> "Iterator[subprocess.Popen[bytes]]":
    """A child in a session of its own: it is asked to stop once, however the signal came, and waited for."""
    with disk_errors(log), log.open("ab") as file:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
    with _interrupting():
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                try:
                    child.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


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
    """Held by this process and the run that it starts: one that outlives a killed sweep is not joined by another."""
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


def _tokens(run: RunDir) -> int:
    """Row slots that a run has logged as trained."""
    found = [row["tokens"] for row in _lines(run.metrics_file) if isinstance(row.get("tokens"), int)]
    return max(found, default=0)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; half a line is passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _last_line(path: Path, status: int) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if status < 0 or not lines:
        return f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return lines[-1].removeprefix("inlay: ")


def _load() -> float | None:
    """Processes that wanted a core in the last minute, where the system says."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
