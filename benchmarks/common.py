"""What every benchmark shares: the process environment, a store, our own step, interleaved rounds, and how numbers are
told.

It decides that contenders take turns in one process (A B C A B C ...), that a ratio is taken inside a round and told as
the median with its range, and that every result carries the machine it was measured on. It asserts nothing: a benchmark
prints, and a goal is reached or not. Run the benchmarks from the repository's root, as modules: `python -m
benchmarks.train_step`.
"""

import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from inlay.cli.runtime import MARK, OPT_OUT, available_cores, runtime_changes
from inlay.config import BadInput, InlayError, validate
from inlay.config.compose import compose, quoted
from inlay.config.files import write_atomic
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch, Loader
from inlay.text.prepare import PrepareConfig, prepare
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.trainer import Trainer

CORPUS = ("stdlib", "pip", "rich")
"""Packages of the store that is made when none is given: beside every installation, and enough text for 8,192
tokens."""


def enter_runtime() -> None:
    """Replaces this process by itself in the environment that `inlay train` gives itself, once: both sides run in
    it."""
    environment = dict(os.environ)
    if not sys.platform.startswith("linux") or MARK in environment or environment.get(OPT_OUT, "") not in ("", "0"):
        return
    changes = runtime_changes(environment, glibc=platform.libc_ver()[0] == "glibc", cores=available_cores())
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environment, **changes, MARK: "1"})


def run_main(main: Callable[[Sequence[str] | None], None]) -> None:
    """`main` of a script in the runtime environment; an error the user can mend is one line and an exit status."""
    enter_runtime()
    try:
        main(None)
    except InlayError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None


def say(line: str) -> None:
    """A line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """The machine, the software and how busy the machine was, as plain JSON types."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "load_average": load,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """`result` as JSON at `path`, whole or not at all; nothing without a path."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(path), json.dumps(result, indent=1) + "\n")


# ---- numbers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Values of several rounds, told as their median and range."""

    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """`median (low to high)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"

    def to_dict(self) -> dict[str, float]:
        """As plain JSON types."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Median and range. Raises ValueError without values."""
    if not values:
        raise ValueError("a spread needs at least one value")
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Turn:
    """What one turn of a contender took, per step: seconds on the clock, and seconds of all its threads."""

    seconds: float
    processor_seconds: float


def interleave(steps: dict[str, Callable[[], object]], rounds: int, per_turn: int) -> dict[str, list[Turn]]:
    """Turns of `per_turn` steps each, one contender after the other, `rounds` times over; the order is that of `steps`.

    The median step of a turn is its time on the clock: a neighbour's burst shall not decide a round.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in steps}
    for number in range(rounds):
        for name, step in steps.items():
            took, before = [], time.process_time()
            for _ in range(per_turn):
                began = time.perf_counter()
                step()
                took.append(time.perf_counter() - began)
            turns[name].append(Turn(statistics.median(took), (time.process_time() - before) / per_turn))
        say(f"round {number + 1} of {rounds}")
    return turns


def ratios(slower: Sequence[Turn], faster: Sequence[Turn]) -> list[float]:
    """How many times faster `faster` was, round by round."""
    return [before.seconds / after.seconds for before, after in zip(slower, faster, strict=True)]


# ---- our side --------------------------------------------------------------------------------------------------------


def open_store(path: str | None, vocabulary: int | None, folder: Path) -> str:
    """The path of the store to read: `path`, or a new one in `folder` of Python that every installation has.

    Raises BadInput when the store's vocabulary is not `vocabulary` (None: whatever a given store has, else 8,192).
    """
    if path is None:
        vocabulary = vocabulary or 8192
        say(f"preparing a store of {', '.join(CORPUS)} with {vocabulary:,} tokens")
        path = str(folder / "store")
        overrides = [f"source.packages=[{','.join(CORPUS)}]", f"tokenizer.vocab_size={vocabulary}"]
        overrides.append(quoted_override("out", path))
        prepare(validate(PrepareConfig, compose("prepare", ["source=python", *overrides]), where="benchmark"))
    found = TokenStore.open(path, verify=False).tokenizer.vocab_size
    if vocabulary not in (None, found):
        raise BadInput(f"the store {path} has {found} tokens, not {vocabulary}: give --vocab {found}, or another store")
    return path


def quoted_override(key: str, path: str) -> str:
    """`key=path` for `compose`, whatever characters are in the path."""
    return f"{key}={quoted(path)}"


class Ours:
    """The real training step: a `Trainer` without callbacks, on batches of its own loader that are held in memory."""

    def __init__(self, overrides: Sequence[str], folder: Path, batches: int = 4) -> None:
        """`overrides` as for `inlay train`; `folder` gets an empty run directory."""
        data = compose("train", ["train.steps=1000000", *overrides])
        data["callbacks"] = {}
        config = validate(TrainRun, data, where="benchmark")
        self.trainer = Trainer(config, RunDir.create(folder, config))
        loader = Loader(self.trainer.rows, config.train.rows)
        self.batches = [next(loader) for _ in range(batches)]

    def compile(self) -> None:
        """As a run does."""
        self.trainer._compile()

    def step(self) -> None:
        """One optimizer step on the next of the held batches."""
        self.trainer._train_step(self.next_batch())
        self.trainer.step += 1

    def next_batch(self) -> Batch:
        """The batch of the coming step."""
        return self.batches[self.trainer.step % len(self.batches)]
