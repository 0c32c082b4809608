"""`inlay`: parses the command line, calls the verb, and turns every error into one line and an exit status.

0 is success, 1 a failure while working, 2 bad input, 130 an interrupt (Ctrl-C), 141 a reader that closed the pipe. No
error shows a traceback unless `--debug` is given. Of the processes that torchrun has started one prints an error that
all of them meet.
"""

import os
import signal
import sys
from collections.abc import Sequence

from inlay.config.errors import ConfigError, InlayError

DEBUG = "--debug"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name; None takes the process's own) and returns its exit status.

    One of many processes of torchrun does not return: it ends here.
    """
    from inlay.cli.app import HEAVY
    from inlay.cli.runtime import ensure_runtime
    from inlay.python_process import leave_folder

    if argv is None:
        leave_folder()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in words
    words = [word for word in words if word != DEBUG]
    if argv is None and words[:1] and words[0] in HEAVY and not {"--help", "-h"} & set(words):
        ensure_runtime()
    try:
        _check_launch(words)
        status = _run(words)
        sys.stdout.flush()
        return _leave(status, argv)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; without this it would complain about the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as error:
        if debug:
            raise
        return _leave(_fail(str(error) or "interrupted", 130), argv)
    except Exception as error:
        if debug:
            raise
        return _leave(_explain(error), argv)


def _leave(status: int, argv: Sequence[str] | None) -> int:
    """`status`; one of many processes of torchrun ends here with it.

    Everything is written by then. The ordinary way out takes apart what may still wait for a process that is gone, and
    does so already when the error that is being handled is forgotten.
    """
    from inlay.cli.runtime import launched

    if argv is None and launched(os.environ)[1] > 1:
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
        print(f"inlay: {_one_line(message)}", file=sys.stderr, flush=True)
    return status


def _one_line(message: str) -> str:
    return " ".join(message.split())
