"""What the end of a run means: the verdict, its cause, and the line that tells a person why.

A run passes only when it came to its end with status 0 (the secret number came back, or the output is the expected one)
and nothing had to be stopped. All else is a failure; the causes after that are read from what the program itself left,
so they explain and never excuse.
"""

import re
import signal

from inlay.evaluate.sandbox.program import Case, Cause, Program
from inlay.evaluate.sandbox.steps import Killed, Ran, Step

DETAIL_CHARACTERS = 300
_READ_BYTES = 20_000
"""Of an error output only its end is looked at."""
_SIGNS: tuple[tuple[Cause, re.Pattern[str]], ...] = (
    ("wrong", re.compile(r"AssertionError|[Aa]ssertion .*failed|[Aa]ssertion `")),
    ("memory", re.compile(r"OutOfMemory|bad_alloc|[Oo]ut of memory|memory allocation of \d+|annot allocate memory")),
    ("file_size", re.compile(r"No space left on device|File too large|ENOSPC|EFBIG|[Ff]ile size limit")),
    ("processes", re.compile(r"Resource temporarily unavailable|EAGAIN|unable to create .*thread")),
)
"""What runtimes and tools print for each cause."""
_SYNTAX = re.compile(rb"^SyntaxError", re.MULTILINE)
_TELLING = re.compile(r"error|exception|assert|fault|abort|out of bounds|overflow", re.IGNORECASE)


def plain(text: str) -> str:
    """`text` as one line for people: what does not print is shown escaped, and it ends after 300 characters."""
    text = text.strip()[: 4 * DETAIL_CHARACTERS]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return shown if len(shown) <= DETAIL_CHARACTERS else shown[: DETAIL_CHARACTERS - 1] + "…"


def telling_line(output: bytes) -> str:
    """The line of an error output that says most: the first that names an error, else the last."""
    lines = [line for line in output[-_READ_BYTES:].decode("utf-8", "replace").splitlines() if line.strip()]
    # Rust says where on one line, and why on the next.
    lines = [line for line in lines if "panicked at" not in line] or lines
    named = [line for line in lines if _TELLING.search(line)]
    return plain(named[0] if named else lines[-1] if lines else "")


def same_output(printed: bytes, expected: str, program: Program) -> bool:
    """Whether the output is what the case asks for, in the program's way of comparing."""
    wanted = expected.encode("utf-8", "surrogatepass")
    return printed == wanted if program.compare == "exact" else printed.split() == wanted.split()


def compile_failure(ran: Ran, step: Step) -> tuple[Cause, str]:
    """Cause and detail of a compilation that gave nothing to run."""
    if ran.killed is not None:
        return _killed(ran.killed), f"the compiler was stopped: {_stopped(ran, step)}"
    return "compile", telling_line(ran.stderr) or f"the compiler left with status {ran.status}"


def judge(ran: Ran, step: Step, case: Case, program: Program) -> tuple[Cause, bool | None, str]:
    """Cause ("passed" where it did), whether the file compiled as far as the run tells, and the detail."""
    said = ran.result[1:]
    compiled = {b"+": True, b"!": False}.get(said[:1])
    if ran.killed is not None:
        return _killed(ran.killed), compiled, _stopped(ran, step)
    if said[:1] == b"?" and ran.status != 0 and _SYNTAX.search(ran.stderr):
        compiled = False
    if compiled is False:
        return "compile", False, plain(said[1:].decode("utf-8", "replace")) or telling_line(ran.stderr)
    if ran.status != 0:
        return _cause(ran, step, said), compiled, _why(ran, said)
    if case.expected is not None:
        if same_output(ran.stdout, case.expected, program):
            return "passed", compiled, ""
        return "wrong", compiled, _difference(ran.stdout, case.expected)
    if ran.ended:
        return "passed", compiled, ""
    return "left_early", compiled, "it left with status 0 before the end of its tests, or one of them never ended"


def _cause(ran: Ran, step: Step, said: bytes) -> Cause:
    """Of a run that ended by itself, with a status other than 0."""
    number = _signal(ran.status)
    named = said[2:].split(b" ", 1)[0].decode("ascii", "replace") if said[:2] == b"+-" else None
    if number == getattr(signal, "SIGXFSZ", None):
        return "file_size"
    if ran.processes >= step.processes:
        return "processes"
    if named is not None:
        return next(
            (cause for cause, _ in _SIGNS if cause == named), "left_early" if named == "left_early" else "error"
        )
    text = ran.stderr[-_READ_BYTES:].decode("utf-8", "replace")
    for cause, pattern in _SIGNS:
        if pattern.search(text):
            return cause
    return "crash" if number is not None else "error"


def _why(ran: Ran, said: bytes) -> str:
    if said[:2] == b"+-":
        return plain(said[2:].partition(b" ")[2].decode("utf-8", "replace"))
    line, number = telling_line(ran.stderr), _signal(ran.status)
    if number is not None:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return plain(f"{name}: {line}" if line else name)
    return line or f"it left with status {ran.status}"


def _killed(why: Killed) -> Cause:
    return "file_size" if why == "files" else why


def _stopped(ran: Ran, step: Step) -> str:
    more_than = {
        "timeout": f"{step.seconds:g} s",
        "memory": f"{step.memory_bytes >> 20} MiB of memory",
        "output": f"{step.output_bytes >> 10} KiB of output",
        "processes": f"{step.processes} processes",
        "files": f"{step.files_most:,} files",
    }
    return f"more than {more_than[str(ran.killed)]}"


def _signal(status: int) -> int | None:
    """The signal that ended it: `-n` where it was our own child, `128 + n` through bubblewrap or a shell."""
    if status < 0:
        return -status
    return status - 128 if 128 < status < 128 + 65 else None


def _difference(printed: bytes, expected: str) -> str:
    shown = printed[:400].decode("utf-8", "replace").strip()
    return plain(f"printed {shown[:120]!r}, expected {expected.strip()[:120]!r}")
