"""The process that checks texts: does a grammar find no error, does Python compile it. One text in, one byte out.

It exists to be killed: grammars are C code that may loop, and CPython's compiler may crash on what a model wrote. The
kernel ends it by processor time, as it ends `inlay.text.syntax_worker`, whose request format it shares; and it may not
take more than `MEMORY_BYTES`. It imports neither numpy nor torch, so that another one is up in a blink.

Legend: a request is two little-endian uint32, bytes of the rule's name and of the text, then both; an answer is a byte.
"""

import gc
import os
import resource
import signal
import sys
import warnings

from inlay.python_process import end_with_parent
from inlay.text.syntax_grammars import GRAMMARS
from inlay.text.syntax_walk import Walker
from inlay.text.syntax_worker import PATIENCE, REQUEST, TIME_OUT_SIGNALS, time_limit

INVALID, VALID, READY, ABSENT = b"0", b"1", b"r", b"a"
"""Answers: the text is wrong; right; the worker is up; no such grammar is installed."""
COMPILE = "compile:python"
"""The rule that is no grammar."""
MEMORY_BYTES = 4 << 30


def compiles(text: str) -> bool:
    """Whether this Python's `compile` takes `text` as a module; what it only warns of does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, "answer.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            return False
    return True


def main() -> None:
    """Serves until standard input ends. The only argument is the processor time a megabyte may take, in seconds."""
    timeout_seconds = float(sys.argv[1])
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it closes the pipes
    for number in (*TIME_OUT_SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, MEMORY_BYTES), hard)
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.dup2(2, 1)  # what a grammar may print must not mix with answers
    gc.disable()  # nothing here holds cycles
    walkers: dict[str, Walker] = {}
    os.write(answers, READY)
    while len(header := requests.read(REQUEST.size)) == REQUEST.size:
        name_size, size = REQUEST.unpack(header)
        rule = requests.read(name_size).decode()
        data = requests.read(size)
        if len(data) < size:
            return
        if rule != COMPILE and rule not in walkers:
            try:
                walkers[rule] = Walker(GRAMMARS[rule])
            except (ImportError, AttributeError, ValueError, KeyError):
                os.write(answers, ABSENT)
                continue
        _set_timers(time_limit(timeout_seconds, size))
        right = compiles(data.decode()) if rule == COMPILE else not walkers[rule].parse(data).root_node.has_error
        _set_timers(0.0)
        os.write(answers, VALID if right else INVALID)


def _set_timers(limit: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE * limit)


if __name__ == "__main__":
    main()
