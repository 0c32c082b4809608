"""Whether texts are valid, asked of processes that may be killed: no text can stop or end an evaluation.

A text that hangs its grammar or crashes the compiler is not valid and is counted; its process is replaced and the rest
goes on. Equal questions are asked once. It refuses nothing but a grammar that is not installed.
"""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import xxhash

from inlay.config import InlayError
from inlay.evaluate.validity_worker import ABSENT, COMPILE, READY, VALID
from inlay.python_process import python_command, safe_path
from inlay.text.syntax_grammars import has_grammar
from inlay.text.syntax_worker import PATIENCE, REQUEST, TIME_OUT_SIGNALS, time_limit

Fate = Literal["timed_out", "crashed"]
_START_SECONDS = 60.0
_SLICE_SECONDS = 0.25
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    "from inlay.evaluate.validity_worker import main; main()"
)


class Question(NamedTuple):
    """A text, and the rule it is held against: a grammar's language, or `COMPILE`."""

    rule: str
    text: str

    @property
    def key(self) -> bytes:
        """Equal for equal questions; 16 bytes, so that answers can be remembered without their texts."""
        return xxhash.xxh3_128_digest(self.rule.encode() + b"\0" + self.text.encode("utf-8", "surrogatepass"))


def grammar_rule(language: str | None, path: str = "") -> str | None:
    """The rule for the syntax of a language; None where no grammar is for it."""
    return language if language is not None and has_grammar(language, path) else None


def compile_rule(language: str | None, path: str = "") -> str | None:
    """The rule for what compiles; only Python has one here, other languages are compiled where programs run."""
    return COMPILE if language == "python" and has_grammar(language, path) else None


class Validity:
    """Answers questions with up to `workers` processes, and remembers the answers; a context manager.

    `timeout_seconds` is processor time for each megabyte of a text, at least one megabyte's. `killed` counts the texts
    whose process had to be ended or ended itself, by fate.
    """

    def __init__(self, workers: int = 2, timeout_seconds: float = 5.0) -> None:
        self.killed: Counter[Fate] = Counter()
        self._workers = max(1, workers)
        self._timeout_seconds = timeout_seconds
        self._known: dict[bytes, bool] = {}
        self._processes: list[_Process] = []

    def ask(self, questions: Sequence[Question]) -> list[bool]:
        """Whether each text is valid by its rule, in the order of the questions.

        Raises InlayError when a grammar is not installed or no process starts.
        """
        keys = [question.key for question in questions]
        new = {key: question for key, question in zip(keys, questions, strict=True) if key not in self._known}
        if new:
            self._work(new)
        return [self._known[key] for key in keys]

    def close(self) -> None:
        """Ends the processes; another question starts new ones."""
        for process in self._processes:
            process.close()
        self._processes.clear()

    def __enter__(self) -> "Validity":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, new: dict[bytes, Question]) -> None:
        waiting: queue.SimpleQueue[tuple[bytes, Question]] = queue.SimpleQueue()
        for item in new.items():
            waiting.put(item)
        # A process costs a tenth of a second to start: a handful of texts is not worth another one.
        count = min(self._workers, 1 + len(new) // 64)
        while len(self._processes) < count:
            self._processes.append(_Process(self._timeout_seconds))
        errors: list[BaseException] = []
        lock = threading.Lock()

        def serve(process: _Process) -> None:
            while not errors:
                try:
                    key, question = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    answer = process.ask(question)
                except BaseException as error:  # raised again in the thread that asked
                    errors.append(error)
                    return
                with lock:
                    if not isinstance(answer, bool):
                        self.killed[answer] += 1
                    self._known[key] = answer is True

        threads = [threading.Thread(target=serve, args=(process,), daemon=True) for process in self._processes[:count]]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            errors.append(error)  # Ctrl-C: the threads stop after the text at hand
            self.close()
            raise
        if errors:
            raise errors[0]


class _Process:
    """One worker process, started when it is first asked and again after it was killed."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Question) -> bool | Fate:
        try:
            data = question.text.encode()
        except UnicodeEncodeError:
            return False  # half a surrogate pair: no file can hold it
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it ended while it had nothing to do, which is no text's fault
        process = self._process or self._start()
        name = question.rule.encode()
        self._send(process, REQUEST.pack(len(name), len(data)) + name + data)
        answer = self._receive(process, PATIENCE * time_limit(self._timeout_seconds, len(data)))
        if answer == ABSENT:
            raise InlayError(f"no grammar for {question.rule} is installed: install inlay's pinned dependencies again")
        if answer is not None:
            return answer == VALID
        code = process.wait()
        self.close()
        return "timed_out" if -code in TIME_OUT_SIGNALS or code == -9 else "crashed"

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        # A group of its own: Ctrl-C at the terminal is for the parent alone.
        process = self._process = subprocess.Popen(
            python_command("-c", _START, str(self._timeout_seconds), json.dumps(safe_path())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            bufsize=0,
        )
        if self._receive(process, _START_SECONDS) != READY:
            self.close()
            raise InlayError(
                "a process for checking syntax does not start: try "
                f"'{sys.executable} -m inlay.evaluate.validity_worker 5 < /dev/null'"
            )
        return process

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", data: bytes) -> None:
        assert process.stdin is not None
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(process.stdin.fileno(), view) :]
        except BrokenPipeError:
            return  # its end is seen when nothing comes back

    @staticmethod
    def _receive(process: "subprocess.Popen[bytes]", limit: float) -> bytes | None:
        """The next byte; None when the process ended, or was silent for `limit` seconds and was killed."""
        assert process.stdout is not None
        silent = 0.0
        while True:
            began = time.monotonic()
            poll = select.poll()
            poll.register(process.stdout.fileno(), select.POLLIN)
            if poll.poll(_SLICE_SECONDS * 1000):
                return os.read(process.stdout.fileno(), 1) or None
            # Counted in slices, so that a pause of the whole process group is no time-out.
            silent += min(_SLICE_SECONDS, time.monotonic() - began)
            if silent >= limit:
                process.kill()
                return None
