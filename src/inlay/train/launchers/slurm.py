"""Jobs of a Slurm cluster, through submitit.

    SWEEP/jobs/ARM-seed0/job.json              the job of this run that has not been recorded yet
                         JOB_submitted.pkl     submitit's own: it is there as soon as the job is
                         status.json           the exit status of the training process, when it has ended
                         stop                  asks the job to have its run save itself and end
                         JOB_0_log.out, ...    what Slurm and submitit print

A job outlives the sweep that submitted it: one that is killed or interrupted and goes on finds its jobs again by these
files, and submits none twice. Before its time is up (or it is preempted) a job has its run save itself, and is queued
again.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from inlay.config import BadInput, InlayError
from inlay.config.files import parse_json, read_bounded_text, write_atomic
from inlay.train.launcher import Job, LauncherConfig, Pool, Task, launchers, on_devices

SAVING_SECONDS = 90
"""From the signal that a job's time is up to its end."""
REQUEUES = 100
LOST_CHECKS = 3
"""Times in a row that a job without a status must be seen as ended: files arrive late on a cluster's disks."""
STATUS, STOP = "status.json", "stop"
LOOK_SECONDS = 1.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


@launchers.register
class SlurmLauncher(LauncherConfig):
    """One job a run."""

    kind: Literal["slurm"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = Field(1, ge=0, le=1024)
    """Of each run; several are trained on through torchrun on one machine."""
    cpus: int = Field(8, ge=1, le=4096)
    memory_gb: float | None = Field(None, gt=0.0, le=1e6)
    hours: float = Field(4.0, gt=0.0, le=1e5)
    """Of each job; a longer run saves itself and is queued again."""
    at_once: int = Field(16, ge=1, le=10**5)
    """Jobs that are queued or running at a time."""
    setup: tuple[str, ...] = ()
    """Shell lines before each job, such as `module load cuda`."""
    cluster: Literal["slurm", "local"] = "slurm"
    """`local` runs the same jobs as processes on this machine, to try things out."""
    seconds: float = Field(10.0, gt=0.0, le=86400.0)
    """Between two looks at the jobs."""

    @property
    def slots(self) -> int:
        return self.at_once

    @property
    def poll_seconds(self) -> float:
        return self.seconds

    @property
    def elsewhere(self) -> bool:
        return self.cluster == "slurm" and self.gpus > 0

    @contextlib.contextmanager
    def open(self, folder: Path, lock: int | None) -> Iterator["SlurmPool"]:
        yield SlurmPool(self, folder)


class SlurmPool(Pool):
    """Jobs, found again or submitted."""

    def __init__(self, config: SlurmLauncher, folder: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise BadInput("launcher.kind=slurm needs a package: pip install 'inlay[search]'") from None
        self._submitit = submitit
        self._config = config
        self._folder = folder
        self._jobs: dict[str, str] = {}

    def start(self, task: Task) -> "SlurmJob":
        place = (self._folder / task.name).absolute()
        identity = _recorded(place)
        if identity is None:
            for left in (STATUS, STOP):
                (place / left).unlink(missing_ok=True)
            identity = self._submit(task, place)
        write_atomic(place / "job.json", json.dumps({"job": identity}) + "\n")
        self._jobs[task.name] = identity
        return SlurmJob(self._submitit, self._config.cluster, place, identity)

    def release(self, task: Task, job: Job) -> None:
        place = self._folder / task.name
        # The pickle goes last: with it and without job.json the job would still be found.
        for left in (place / "job.json", *place.glob("*_submitted.pkl")):
            left.unlink(missing_ok=True)
        self._jobs.pop(task.name, None)

    @property
    def farewell(self) -> str:
        if not self._jobs:
            return ""
        jobs = " ".join(self._jobs.values())
        return f"{len(self._jobs)} jobs go on without it (scancel {jobs} would end them)"

    def _submit(self, task: Task, place: Path) -> str:
        config = self._config
        given = {
            "slurm_partition": config.partition,
            "slurm_account": config.account,
            "slurm_qos": config.qos,
            "slurm_constraint": config.constraint,
            "slurm_setup": list(config.setup) or None,
            "mem_gb": config.memory_gb,
        }
        try:
            executor = self._submitit.AutoExecutor(
                folder=place, cluster=config.cluster, slurm_max_num_timeout=REQUEUES, local_max_num_timeout=REQUEUES
            )
            executor.update_parameters(
                name=task.name,
                timeout_min=max(1, round(config.hours * 60)),
                nodes=1,
                tasks_per_node=1,
                gpus_per_node=config.gpus,
                cpus_per_task=config.cpus,
                slurm_signal_delay_s=SAVING_SECONDS,
                **{key: value for key, value in given.items() if value is not None},
            )
            command = on_devices(task.command, config.gpus)
            training = Training(command, str(task.log.absolute()), str(place), os.getcwd())
            return str(executor.submit(training).job_id)
        except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
            raise InlayError(f"cannot submit {task.name}: {' '.join(str(error).split())[:300]}") from None


class SlurmJob(Job):
    """A job by its number."""

    def __init__(self, submitit: Any, cluster: str, place: Path, identity: str) -> None:
        self._place = place
        self._identity = identity
        self._slurm = submitit.SlurmJob(folder=place, job_id=identity) if cluster == "slurm" else None
        self._missing = 0

    def status(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(parse_json(read_bounded_text(self._place / STATUS))["status"])
        self._missing = self._missing + 1 if self._has_ended() else 0
        return -signal.SIGKILL if self._missing >= LOST_CHECKS else None

    def stop(self) -> None:
        write_atomic(self._place / STOP, "")

    def _has_ended(self) -> bool:
        if self._slurm is None:
            return not _is_alive(int(self._identity))
        return self._slurm.state.split()[0].rstrip("+") in ENDED


class Training:
    """What a job does: trains one run, and writes down how that ended."""

    def __init__(self, command: tuple[str, ...], log: str, place: str, folder: str) -> None:
        self.command, self.log, self.place, self.folder = command, log, place, folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        place, asked = Path(self.place), False
        with open(self.log, "ab") as file:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=self.folder
            )
        while True:
            try:
                status = self._process.wait(LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if not asked and (place / STOP).exists():
                    asked = True
                    self._process.send_signal(signal.SIGINT)
        write_atomic(place / STATUS, json.dumps({"status": status}) + "\n")
        return status

    def checkpoint(self) -> Any:
        """Called by submitit when time is up or the job is preempted: the run saves itself, and the job comes again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SAVING_SECONDS - 15)
        return DelayedSubmission(Training(self.command, self.log, self.place, self.folder))


def _recorded(place: Path) -> str | None:
    """The job that was submitted for a run and whose end has not been recorded."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        return str(parse_json(read_bounded_text(place / "job.json"))["job"])
    submitted = [path.name.removesuffix("_submitted.pkl") for path in place.glob("*_submitted.pkl")]
    return max(submitted, key=lambda name: (len(name), name), default=None)


def _is_alive(process: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)  # one that we started is a zombie until it is waited for
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
