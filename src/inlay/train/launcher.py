"""Where the runs of a sweep are trained. One file a kind in `inlay.train.launchers`.

A run is started as a process that resumes its directory, so that starting it, going on with it and trying it again are
the same. A launcher says how many may be under way, starts them, and tells how they ended.
"""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from inlay.config import Config, Registry

launchers = Registry("launcher", "inlay.train.launchers")


@dataclass(frozen=True)
class Task:
    """One run to train. `command` trains it or goes on with it."""

    name: str
    command: tuple[str, ...]
    log: Path
    """What the process prints is added to it."""


class Job:
    """A run under way."""

    @abstractmethod
    def status(self) -> int | None:
        """The exit status of its process, negative for a signal; None while it is under way."""

    @abstractmethod
    def stop(self) -> None:
        """Asks it to save itself and end. Returns at once; `status` tells when it has."""


class Pool:
    """An open launcher."""

    @abstractmethod
    def start(self, task: Task) -> Job:
        """Starts a task, or finds the job again that an earlier sweep process has started for it."""

    @abstractmethod
    def release(self, task: Task, job: Job) -> None:
        """Its end has been recorded: the task may be started anew."""

    @property
    def farewell(self) -> str:
        """What a user who interrupts the sweep should know of its jobs; empty when none is left."""
        return ""


class LauncherConfig(Config):
    """Options of a launcher."""

    kind: str

    @property
    @abstractmethod
    def slots(self) -> int:
        """Runs that may be under way at a time."""

    @property
    def poll_seconds(self) -> float:
        """How often to look at the runs."""
        return 0.2

    @property
    def elsewhere(self) -> bool:
        """Whether runs train on another machine than this."""
        return False

    @abstractmethod
    def open(self, folder: Path, lock: int | None) -> AbstractContextManager[Pool]:
        """A pool whose own files are in `folder`; jobs that die with this process are stopped at the end. `lock` is a
        file descriptor that each of them keeps open."""


def on_devices(command: Sequence[str], gpus: int) -> tuple[str, ...]:
    """`command` (a Python interpreter and its arguments) as one process for each of several GPUs."""
    if gpus <= 1 or not command or command[0] != sys.executable:
        return tuple(command)
    launch = ("-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}")
    # torchrun starts Python itself, which then has `-P` from its environment.
    return (command[0], *launch, *(word for word in command[1:] if word != "-P"))
