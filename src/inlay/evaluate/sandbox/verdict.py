"""What the end of a run means: the verdict, its cause, and the line that tells a person why.

A run passes only when it came to its end with status 0 (the secret number came back, or the output is the expected one)
and nothing had to be stopped. All else is a failure; the causes after that are read from what the program itself left,
so they explain and never excuse.
"""

import re
import signal

from inlay.evaluate.sandbox.program import Case, Cause, Program
from inlay.evaluate.sandbox.steps import Ran

DETAIL_CHARACTERS = 300
_WRONG = re.compile(r"AssertionError|[Aa]ssertion .*failed|[Aa]ssertion `")
_MEMORY = re.compile(r"OutOfMemory|bad_alloc|[Oo]ut of memory|memory allocation of \d+|annot allocate memory|MemoryError")
_FILES = re.compile(r"No space left on device|File too large|ENOSPC|EFBIG|[Ff]ile size limit")
_PROCESSES = re.compile(r"fork: .*(unavailable|retry)|Resource temporarily unavailable|EAGAIN|unable to create .*thread")
_TELLING = re.compile(r"error|exception|panicked|assert|fault|abort", re.IGNORECASE)
_NAMES: dict[str, str] = {
    "timeout": "more than {seconds:g} s",
    "memory": "more than {memory} MiB of memory",
    "output": "more than {output} KiB of output",
    "processes": "more than {processes} processes",
}


def plain(text: str) -> str:
    """`text` as one line for people: what does not print is shown escaped, and it ends after 300 characters."""
    text = text.strip()[: 4 * DETAIL_CHARACTERS]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return shown if len(shown) <= DETAIL_CHARACTERS else shown[: DETAIL_CHARACTERS - 1] + "…"


def telling_line(output: bytes) -> str:
    """The line of an error output that says most: the first that names an error, else the last."""
    lines = [line for line in output[-20_000:].decode("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if _TELLING.search(line)]
    return plain(named[0] if named else lines[-1] if lines else "")


def same_output(printed: bytes, expected: str, program: Program) -> bool:
    """Whether the output is what the case asks for, in the program's way of comparing."""
    wanted = expected.encode("utf-8", "surrogatepass")
    return printed == wanted if program.compare == "exact" else printed.split() == wanted.split()


def compile_failure(ran: Ran, program: Program) -> tuple[Cause, str]:
    """Cause and detail of a compilation that gave nothing to run."""
    if ran.killed is not None:
        return ran.killed, f"the compiler was stopped: {_stopped(ran, program)}"
    return "compile", telling_line(ran.stderr) or f"the compiler left with status {ran.status}"


def judge(ran: Ran, case: Case, program: Program, tells_end: bool) -> tuple[Cause, bool | None, str]:
    """Cause ("passed" where it did), whether the file compiled as far as the run tells, and the detail."""
    said = ran.result[1:]
    compiled = True if said[:1] == b"+" else False if said[:1] == b"!" else None
    if ran.killed is not None:
        return ran.killed, compiled, _stopped(ran, program)
    if compiled is False:
        return "compile", False, plain(said[1:].decode("utf-8", "replace")) or telling_line(ran.stderr)
    number = _signal(ran.status)
    if number is not None or ran.status != 0:
        return *_failed(ran, number, said, program), compiled, _why(ran, number, said)  # type: ignore[return-value]
    if case.expected is not None:
        if same_output(ran.stdout, case.expected, program):
            return "passed", compiled, ""
        return "wrong", compiled, _difference(ran.stdout, case.expected)
    if ran.ended or not tells_end:
        return "passed", compiled, ""
    return "left_early", compiled, "it left with status 0 before its end"


def _failed(ran: Ran, number: int | None, said: bytes, program: Program) -> tuple[Cause]:
    named = said[2:].split(b" ", 1)[0].decode("ascii", "replace") if said[:2] == b"+-" else ""
    text = ran.stderr[-20_000:].decode("utf-8", "replace")
    if number == getattr(signal, "SIGXFSZ", None) or named == "file_size":
        return ("file_size",)
    if ran.processes >= program.limits.processes or named == "processes":
        return ("processes",)
    if named in ("wrong", "memory", "left_early"):
        return (named,)  # type: ignore[return-value]
    for cause, pattern in (("wrong", _WRONG), ("memory", _MEMORY), ("file_size", _FILES), ("processes", _PROCESSES)):
        if not named and pattern.search(text):
            return (cause,)  # type: ignore[return-value]
    return ("crash" if number is not None else "error",)


def _why(ran: Ran, number: int | None, said: bytes) -> str:
    if said[:2] == b"+-":
        return plain(said[2:].partition(b" ")[2].decode("utf-8", "replace"))
    line = telling_line(ran.stderr)
    if number is not None:
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return plain(f"{name}: {line}" if line else name)
    return line or f"it left with status {ran.status}"


def _stopped(ran: Ran, program: Program) -> str:
    limits = program.limits
    return _NAMES[str(ran.killed)].format(
        seconds=limits.seconds,
        memory=limits.memory_bytes >> 20,
        output=limits.output_bytes >> 10,
        processes=limits.processes,
    )


def _signal(status: int) -> int | None:
    """The signal that ended it: `-n` where it was our own child, `128 + n` through bubblewrap or a shell."""
    if status < 0:
        return -status
    return status - 128 if 128 < status < 128 + 65 else None


def _difference(printed: bytes, expected: str) -> str:
    shown = printed[:400].decode("utf-8", "replace").strip()
    return plain(f"printed {shown[:120]!r}, expected {expected.strip()[:120]!r}")
