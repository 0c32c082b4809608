"""The process that parses: requests on standard input, answers on standard output, one file at a time.

A grammar is C code that may loop or crash, and holds the interpreter's lock meanwhile, so the kernel is its guard: a
timer of processor time is set around each file and ends this process when it runs out, whether or not the parent still
lives. A parent that is gone closes the pipes, and the worker ends.

Legend: a request is two little-endian uint32, bytes of the language's name and of the text, then both; an answer is a
tag byte and a uint32 count of bytes, then these.
"""

import gc
import json
import os
import signal
import struct
import sys

from inlay.python_process import end_with_parent
from inlay.text.syntax_grammars import Grammar
from inlay.text.syntax_walk import Walker

REQUEST = struct.Struct("<II")
ANSWER = struct.Struct("<BI")
READY, NAMES, NODES, BROKEN, ABSENT = range(5)
"""Tags: the worker is up; names of node kinds of a language (JSON), before its first nodes; nodes (int32 [N, 3], native
order); Python failed on this file (message); the grammar cannot be loaded (message)."""
TIME_OUT_SIGNALS = (signal.SIGPROF, signal.SIGALRM)
"""What ends the process: processor time ran out; or time on the clock, twice what a parent waits, should it be gone."""
PATIENCE = 4.0
"""How many times its processor time a file may take on the clock."""
_MEGABYTE = 1_000_000


def time_limit(timeout_seconds: float, size: int) -> float:
    """Seconds of processor time that a file of `size` bytes may take: `timeout_seconds` for each megabyte, at least
    one.
    """
    return timeout_seconds * max(1.0, size / _MEGABYTE)


def main() -> None:
    """Serves until standard input ends. The first line on it is JSON: grammars and the time-out."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it closes the pipes
    for number in (*TIME_OUT_SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.dup2(2, 1)  # what a grammar may print must not mix with answers
    gc.disable()  # trees hold no cycles, and a collection would visit every node
    setup = json.loads(requests.readline())
    grammars = {language: Grammar(*entry) for language, entry in setup["grammars"].items()}
    walkers: dict[str, Walker] = {}
    _answer(answers, READY, b"")
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        name_size, size = REQUEST.unpack(header)
        language = requests.read(name_size).decode()
        data = requests.read(size)
        if len(data) < size:
            return
        _set_timers(time_limit(setup["timeout_seconds"], size))
        if language not in walkers:
            try:
                walkers[language] = Walker(grammars[language])
            except (ImportError, AttributeError, ValueError) as error:
                _set_timers(0.0)
                _answer(answers, ABSENT, str(error).encode())
                continue
            _answer(answers, NAMES, json.dumps([language, walkers[language].names]).encode())
        try:
            tag, content = NODES, walkers[language].nodes(data).tobytes()
        except Exception as error:  # whatever a file does to the walk is that file's fault, and it is named
            tag, content = BROKEN, f"{type(error).__name__}: {error}".encode()
        _set_timers(0.0)
        _answer(answers, tag, content)


def _set_timers(limit: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE * limit)


def _answer(descriptor: int, tag: int, content: bytes) -> None:
    data = memoryview(ANSWER.pack(tag, len(content)) + content)
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    sys.exit(main())
