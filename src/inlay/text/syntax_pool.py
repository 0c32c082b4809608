"""Parsing a corpus in worker processes, so that no file can stop the work: one that hangs or crashes its grammar is
counted and named, its worker is replaced, and the rest of its batch goes on.

Two clocks end a file: processor time, kept by the kernel in the worker (see `inlay.text.syntax_worker`), and silence on
the clock of the wall, four times as long, kept here. A busy machine therefore does not change what is parsed, and what
is parsed does not depend on the number of workers.
"""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from enum import Enum
from types import TracebackType

from inlay.config import InlayError
from inlay.python_process import python_command, safe_path
from inlay.text.syntax import ParsedSyntax, judged, nodes_of
from inlay.text.syntax_grammars import GRAMMARS, Grammar
from inlay.text.syntax_worker import (
    ABSENT,
    ANSWER,
    BROKEN,
    NAMES,
    NODES,
    PATIENCE,
    READY,
    REQUEST,
    TIME_OUT_SIGNALS,
    time_limit,
)

_START_SECONDS = 60.0
_SLICE_SECONDS = 0.25
_CHUNK = 1 << 18
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from inlay.text.syntax_worker import main; main()"


class Failure(Enum):
    """Why a text has no syntax. The values are keys of the store's manifest."""

    FAILED = "failed"
    """The grammar found too much error in it."""
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class ParseJob:
    """A text to parse: the name of its language, which has a grammar, and its UTF-8 bytes."""

    language: str
    data: bytes


class SyntaxPool:
    """Up to `workers` processes that parse; a context manager, after which none of them is left.

    Workers start when there is work for them. `timeout_seconds` is processor time for each megabyte of a file, at
    least one.
    """

    def __init__(self, workers: int, timeout_seconds: float, grammars: Mapping[str, Grammar] = GRAMMARS) -> None:
        self._timeout_seconds = timeout_seconds
        setup = {"grammars": {name: astuple(entry) for name, entry in grammars.items()}}
        self._setup = json.dumps({**setup, "timeout_seconds": timeout_seconds}).encode() + b"\n"
        self._threads = ThreadPoolExecutor(workers, "syntax")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._living: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Starts a worker ahead of the first batch, so that it is up by then."""
        self._threads.submit(lambda: self._idle.put(self._take()))

    def submit(self, jobs: Sequence[ParseJob]) -> "Future[list[ParsedSyntax | Failure]]":
        """Parses a batch; the results come in the order of the jobs.

        The future raises InlayError when a grammar is not installed or no worker starts.
        """
        return self._threads.submit(self._parse, jobs)

    def __enter__(self) -> "SyntaxPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            for worker in self._living:
                worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._living:
            worker.close()
        self._living.clear()

    def _parse(self, jobs: Sequence[ParseJob]) -> list[ParsedSyntax | Failure]:
        results: list[ParsedSyntax | Failure] = []
        while len(results) < len(jobs):
            worker = self._take()
            culprit = worker.run(jobs[len(results) :], results)
            if culprit is None:
                self._idle.put(worker)
                continue
            with self._lock:
                self._living.discard(worker)
            worker.close()
            if self._closed:
                raise InlayError("parsing was stopped")
            results.append(culprit)
        return results

    def _take(self) -> "_Worker":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            with self._lock:
                if self._closed:
                    raise InlayError("parsing was stopped") from None
                worker = _Worker(self._setup, self._timeout_seconds)
                self._living.add(worker)
            return worker


class _Worker:
    """One process and its two pipes."""

    def __init__(self, setup: bytes, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        # A group of its own: Ctrl-C at the terminal is for the parent alone.
        self._process = subprocess.Popen(
            python_command("-c", _START, json.dumps(safe_path())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._unsent = bytearray(setup)
        self._received = bytearray()
        self._names: dict[str, list[str]] = {}
        self._ready = False

    def run(self, jobs: Sequence[ParseJob], results: list[ParsedSyntax | Failure]) -> Failure | None:
        """Parses `jobs` and appends to `results`; a Failure is the fate of the first job that has no result, and this
        worker is then dead.

        Raises InlayError when the process does not start or has no such grammar.
        """
        for job in jobs:
            name = job.language.encode()
            self._unsent += REQUEST.pack(len(name), len(job.data)) + name + job.data
        for job in jobs:
            while True:
                limit = PATIENCE * time_limit(self._timeout_seconds, len(job.data)) if self._ready else _START_SECONDS
                answer = self._next(limit)
                if isinstance(answer, Failure):
                    if not self._ready:
                        raise InlayError(
                            f"a worker process for parsing does not start ({answer.value}, exit status "
                            f"{self._process.returncode}): try '{sys.executable} -m inlay.text.syntax_worker', or "
                            "prepare with syntax.enabled=false"
                        )
                    return answer
                tag, content = answer
                if tag == READY:
                    self._ready = True
                elif tag == NAMES:
                    language, names = json.loads(content)
                    self._names[language] = names
                elif tag == ABSENT:
                    raise InlayError(
                        f"no grammar for {job.language}: {content.decode(errors='replace')}; install inlay's pinned "
                        "dependencies again, or prepare with syntax.enabled=false"
                    )
                else:
                    break
            if tag == BROKEN:
                results.append(Failure.CRASHED)
                continue
            assert tag == NODES
            results.append(judged(nodes_of(content), self._names[job.language], len(job.data)) or Failure.FAILED)
        return None

    def kill(self) -> None:
        """Ends the process at once; a thread that waits for it is told so by the closed pipe."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process, waits for it and closes the pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _next(self, limit: float) -> tuple[int, bytes] | Failure:
        """The next answer; a Failure when the process ended or was silent for `limit` seconds."""
        silent = 0.0
        while True:
            if len(self._received) >= ANSWER.size:
                tag, size = ANSWER.unpack_from(self._received)
                if len(self._received) >= ANSWER.size + size:
                    content = bytes(self._received[ANSWER.size : ANSWER.size + size])
                    del self._received[: ANSWER.size + size]
                    return tag, content
            began = time.monotonic()
            came = self._move(_SLICE_SECONDS)
            if came is None:
                return self._fate()
            # Counted in slices, so that a pause of the whole process group is no time-out.
            silent = 0.0 if came else silent + min(_SLICE_SECONDS, time.monotonic() - began)
            if silent >= limit:
                self._process.kill()
                self._process.wait()
                return Failure.TIMED_OUT

    def _move(self, seconds: float) -> bool | None:
        """Sends and receives what the pipes take within `seconds`: whether any bytes came; None at their end."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        if self._unsent:
            poll.register(self._input, select.POLLOUT)
        came = False
        for descriptor, _ in poll.poll(seconds * 1000):
            if descriptor == self._input:
                self._send()
                continue
            data = os.read(self._output, _CHUNK)
            if not data:
                return None
            self._received += data
            came = True
        return came

    def _send(self) -> None:
        try:
            sent = os.write(self._input, bytes(self._unsent[:_CHUNK]))
        except BlockingIOError:
            sent = 0
        except BrokenPipeError:
            sent = len(self._unsent)  # what the process still said is read before its end is seen
        del self._unsent[:sent]

    def _fate(self) -> Failure:
        code = self._process.wait()
        return Failure.TIMED_OUT if -code in TIME_OUT_SIGNALS else Failure.CRASHED
