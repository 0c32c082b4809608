"""Processes on this machine: cores are divided among them, and each has GPUs of its own."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from inlay.config import BadInput
from inlay.config.files import disk_errors
from inlay.train.launcher import Job, LauncherConfig, Pool, Task, launchers, on_devices

PATIENCE_SECONDS = 60.0
"""How long a run that was asked to stop may take to save itself."""


@launchers.register
class LocalLauncher(LauncherConfig):
    """`processes` runs at a time."""

    kind: Literal["local"] = "local"
    processes: int = Field(1, ge=1, le=1024)
    gpus: int = Field(1, ge=1, le=1024)
    """Of each run, where there are GPUs; several are trained on through torchrun."""

    @property
    def slots(self) -> int:
        return self.processes

    @contextlib.contextmanager
    def open(self, folder: Path, lock: int | None) -> Iterator["LocalPool"]:
        pool = LocalPool(self, lock)
        try:
            yield pool
        finally:
            pool.close()


class LocalPool(Pool):
    """The processes that are under way. Each is in a session of its own: it is asked to stop once, however the signal
    came."""

    def __init__(self, config: LocalLauncher, lock: int | None) -> None:
        self._config = config
        self._lock = lock
        self._places: dict[int, LocalJob] = {}
        """Jobs by slot: the slot decides the GPUs."""
        self._environments = environments(config, os.environ, visible_gpus(os.environ))

    def start(self, task: Task) -> "LocalJob":
        slot = next(number for number in range(self._config.processes) if number not in self._places)
        command = on_devices(task.command, self._config.gpus if torch.cuda.is_available() else 1)
        with disk_errors(task.log), task.log.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=self._environments[slot],
                pass_fds=() if self._lock is None else (self._lock,),
            )
        self._places[slot] = LocalJob(process)
        return self._places[slot]

    def release(self, task: Task, job: Job) -> None:
        self._places = {slot: other for slot, other in self._places.items() if other is not job}

    def close(self) -> None:
        """Stops what is under way and waits for it."""
        jobs = list(self._places.values())
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait()
        self._places.clear()


class LocalJob(Job):
    """A child process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._asked_at: float | None = None

    def status(self) -> int | None:
        if self._asked_at is not None and time.monotonic() - self._asked_at > PATIENCE_SECONDS:
            self._kill()
        return self._process.poll()

    def stop(self) -> None:
        if self._process.poll() is None and self._asked_at is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Waits for one that was asked to stop."""
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()

    def _kill(self) -> None:
        if self._process.poll() is None:
            # The session of its own: its workers, and the ranks of a run on several GPUs, go with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def environments(config: LocalLauncher, environment: Mapping[str, str], gpus: list[str]) -> list[dict[str, str]]:
    """The environment of each slot: with one process as it is, with several an equal share of cores and own GPUs.

    Raises BadInput when there are GPUs, but too few.
    """
    if config.processes == 1 and len(gpus) <= config.gpus:
        return [dict(environment)]
    if gpus and len(gpus) < config.processes * config.gpus:
        raise BadInput(
            f"launcher.processes={config.processes} with {config.gpus} GPU each need"
            f" {config.processes * config.gpus} GPUs, and this machine shows {len(gpus)}: take fewer processes"
        )
    given = environment.get("OMP_NUM_THREADS", "")
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = int(given) if given.isdecimal() else affinity
    found = []
    for slot in range(config.processes):
        own = dict(environment)
        if config.processes > 1:
            own["OMP_NUM_THREADS"] = str(max(1, cores // config.processes))
        if gpus:
            own["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot * config.gpus : (slot + 1) * config.gpus])
        found.append(own)
    return found


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES would choose the GPUs that this process sees."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]
