"""`inlay`: parses the command line, calls the verb, and turns every error into one line and an exit status.

0 is success, 1 a failure while working, 2 bad input, 130 an interrupt (Ctrl-C), 141 a reader that closed the pipe, 143
SIGTERM. No error shows a traceback unless `--debug` is given. Of the processes that torchrun has started one prints an
error that all of them meet.

Nothing but the interpreter's own is imported at the head: an interrupt in the first moments finds it ready.
"""

import os
import sys

TYPE_CHECKING = False  # `typing` itself takes several milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence

    from inlay.cli.process import Signals

DEBUG = "--debug"


def main(argv: "Sequence[str] | None" = None) -> int:
    """Runs one command line (without the program's name; None takes the process's own) and returns its exit status.

    Given `argv` it leaves signals and standard streams alone. One of many processes of torchrun does not return: it
    ends here.
    """
    if argv is not None:
        return _main(list(argv), None)
    try:
        from inlay.python_process import leave_folder

        leave_folder()

        from inlay.cli.process import Signals, fit_streams
        from inlay.cli.runtime import ensure_utf8

        signals = Signals()
        signals.take()
        ensure_utf8()
        fit_streams()
        return signals.leave(_main(sys.argv[1:], signals))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _main(words: list[str], signals: "Signals | None") -> int:
    """One command line; with `signals` this process is all its own."""
    debug = DEBUG in words
    words = [word for word in words if word != DEBUG]
    try:
        from inlay.cli.app import HEAVY
        from inlay.cli.runtime import ensure_runtime

        if signals is not None and words[:1] and words[0] in HEAVY and not {"--help", "-h"} & set(words):
            ensure_runtime()
        _check_launch(words)
        status = _run(words)
        sys.stdout.flush()
        return _leave(status, signals)
    except BaseException as error:
        if _reader_left(error):
            from inlay.cli.process import discard_output

            discard_output()
            return 141
        if debug and not isinstance(error, SystemExit):
            raise
        return _leave(_status_of(error, signals), signals)


def _status_of(error: BaseException, signals: "Signals | None") -> int:
    """Says what ended the verb, and returns the exit status."""
    received = signals.received if signals is not None else None
    if isinstance(error, KeyboardInterrupt):
        return _fail(str(error) or "interrupted", 128 + received if received is not None else 130)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else _fail(str(error.code or ""), 1 if error.code else 0)
    if not isinstance(error, Exception):
        raise error
    from inlay.config.errors import InlayError

    if received is not None and not isinstance(error, InlayError):
        # Interrupted in the middle of something that makes an error of its own of it, such as a library's import.
        return _fail("interrupted", 128 + received)
    return _explain(error)


def _reader_left(error: BaseException) -> bool:
    """Whether who reads our output has closed it. (rich makes an exit of it.)"""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError)


def _leave(status: int, signals: "Signals | None") -> int:
    """`status`; one of many processes of torchrun ends here with it.

    Everything is written by then. The ordinary way out takes apart what may still wait for a process that is gone, and
    does so already when the error that is being handled is forgotten.
    """
    from inlay.cli.runtime import launched

    if signals is not None and launched(os.environ)[1] > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _check_launch(words: list[str]) -> None:
    """Prepares one of many processes of torchrun. Raises BadInput for a verb that would do in every process what is
    done once."""
    from inlay.cli.runtime import launched
    from inlay.config.errors import BadInput

    if launched(os.environ)[1] < 2:
        return
    # When one process fails torchrun asks the others to end at once: the one that says why must live to do it. A run
    # that is under way has a handler of its own, and torchrun kills what has not ended half a minute later.
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if words[:1] and words[0] != "train" and not words[0].startswith("-"):
        raise BadInput(f"'inlay {words[0]}' is one process: start it without torchrun, which is for: inlay train")


def _run(words: list[str]) -> int:
    from cyclopts import CycloptsError

    from inlay.cli.app import build_app
    from inlay.config.errors import BadInput

    try:
        result = build_app()(
            words, exit_on_error=False, print_error=False, help_on_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        raise BadInput(_one_line(str(error))) from error
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Prints the one line of an error and returns its exit status."""
    from inlay.cli.process import Unwritable, discard_output
    from inlay.config.errors import ConfigError, InlayError

    if isinstance(error, Unwritable):
        status = _fail(f"cannot write to standard output: {error}", 1)
        discard_output()
        return status
    if isinstance(error, InlayError):
        if isinstance(error, ConfigError) and os.environ.get("LOCAL_RANK", "0") != "0":
            return error.exit_status  # every process on this machine reads the same words and files
        return _fail(str(error), error.exit_status)
    if isinstance(error, MemoryError):
        return _fail("out of memory: take a smaller model, fewer rows or a shorter sequence", 1)
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        return _fail(f"'{error.filename}': {reason}", 1)
    return _fail(f"unexpected {type(error).__name__}: {error}; re-run with {DEBUG} to see where", 1)


def _fail(message: str, status: int) -> int:
    if message:  # another process of the run has said the reason
        import contextlib

        with contextlib.suppress(OSError):  # who reads this has left: the status says it
            print(f"inlay: {_one_line(message)}", file=sys.stderr, flush=True)
    return status


def _one_line(message: str) -> str:
    return " ".join(message.split())
