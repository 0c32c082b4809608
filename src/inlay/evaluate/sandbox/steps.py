"""What a worker asks of its launcher, and what it hears back: the two sides of one run of one command.

It decides the messages' fields and that a launcher which breaks is replaced. It knows neither languages nor verdicts.
"""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inlay.config import InlayError
from inlay.evaluate.sandbox.launcher import receive, send

LAUNCHER = Path(__file__).with_name("launcher.py")
RUNNER = Path(__file__).with_name("runner.py")
_CLOSE_SECONDS = 10.0

Killed = Literal["timeout", "memory", "output", "processes", "files"]
"""Why a launcher ends a step."""


@dataclass(frozen=True)
class File:
    """A file that the program finds in its folder."""

    name: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Step:
    """One run of one command, and what it may use. Sizes in bytes."""

    argv: tuple[str, ...]
    """`{box}` stands for the program's folder. For Python the name of its file alone."""
    mode: Literal["run", "print", "exec"]
    """See `inlay.evaluate.sandbox.runner`."""
    files: tuple[File, ...]
    stdin: bytes
    seconds: float
    memory_bytes: int
    """Of all its processes together, resident; watched."""
    address_bytes: int
    """Of each process, a limit of the system; 0 for what reserves far more than it uses (node, Java)."""
    processes: int
    """And threads; watched."""
    file_bytes: int
    folder_bytes: int
    output_bytes: int
    files_most: int
    """In its folder, folders and links included; watched."""


@dataclass(frozen=True)
class Ran:
    """How a step ended."""

    status: int
    """Of the command; below zero or from 129 on where a signal ended it."""
    killed: Killed | None
    seconds: float
    memory_bytes: int
    """The most that was seen; 0 where it was too short to be looked at."""
    processes: int
    started: bool
    """Whether the sandbox stood and the program's own time began."""
    ended: bool
    """Whether the secret number came back, and nothing else."""
    stdout: bytes
    stderr: bytes
    result: bytes
    """What the runner said, without the secret number."""


class LauncherLost(Exception):
    """The launcher, or the sandbox itself, broke: nothing is known of the program."""


class Worker:
    """A launcher and the pipe to it; one step at a time."""

    def __init__(self, python: str, setup: dict[str, Any], blobs: tuple[bytes, ...]) -> None:
        """Starts the launcher. Raises InlayError, in one line, when it does not come up."""
        # In a folder that stays: bubblewrap would not start from one that was removed.
        self._process = subprocess.Popen(
            [python, "-I", "-S", "-B", str(LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            send(self._stdin, setup, blobs)
            answer, _ = receive(self._stdout)
        except (EOFError, OSError):
            answer = {"error": "its launcher did not start"}
        if answer["error"] is not None:
            self.close()
            raise InlayError(f"the sandbox cannot start: {answer['error']}")

    @property
    def pid(self) -> int:
        """Of its launcher."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its launcher still runs."""
        return self._process.poll() is None

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def run(self, step: Step, shown: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Ran:
        """Runs `step`, which sees the folders `shown` and finds `environment` beside the usual.

        Raises LauncherLost when that broke for a reason that is not the program's."""
        message = {
            "argv": step.argv,
            "mode": step.mode,
            "shown": shown,
            "environment": environment or {},
            "files": [(one.name, one.mode) for one in step.files],
            "seconds": step.seconds,
            "memory_bytes": step.memory_bytes,
            "address_bytes": step.address_bytes,
            "processes": step.processes,
            # The system's own limit stands a little above the watched one: to reach it is to be seen.
            "process_limit": step.processes + 8,
            "file_bytes": step.file_bytes,
            "folder_bytes": step.folder_bytes,
            "output_bytes": step.output_bytes,
            "files_most": step.files_most,
        }
        try:
            send(self._stdin, message, [step.stdin, *(one.content for one in step.files)])
            answer, blobs = receive(self._stdout)
        except (EOFError, OSError) as error:
            raise LauncherLost("its launcher was ended") from error
        if "error" in answer:
            raise LauncherLost(answer["error"])
        ran = Ran(**answer, stdout=blobs[0], stderr=blobs[1], result=blobs[2])
        if not ran.started:
            last = ran.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise LauncherLost(last or f"it did not stand within {step.seconds:g} s")
        return ran

    def close(self) -> None:
        """Ends the launcher and what runs below it."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
