"""How the process of a command line meets what is around it: signals and standard streams.

An interrupt at any moment ends in one line, also one that falls into an import or that a destructor swallows. Standard
output and error exist, take every character (`?` for one that the terminal's encoding lacks) and say in one line what
keeps them from writing. It imports nothing heavy, and only the entry point calls it.
"""

import codecs
import contextlib
import io
import os
import signal
import sys
import threading
from types import FrameType

LOSSY = "inlay-lossy"
"""The error handler of standard output: the bytes of names that are no UTF-8 as they are, else `?`."""
_RAISE_AGAIN_SECONDS = 0.05
_LOOK_SECONDS = 0.01


class Ended(KeyboardInterrupt):
    """SIGTERM, which ends a verb as Ctrl-C does."""


class Unwritable(Exception):
    """Standard output takes no more; the message says why."""


class Signals:
    """SIGINT and SIGTERM of this process, from `take` on."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that came last."""

    def take(self) -> None:
        """Lets both end the verb in order. One that is ignored (`nohup`, `&` in a script) stays so."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._raise)
        # A replaced process begins with SIGINT held back; what came meanwhile comes now.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._in_thread

    def leave(self, status: int) -> int:
        """From here on a signal ends the process at once: all is written, and nothing is left to put in order."""

        def end(number: int, frame: FrameType | None) -> None:
            os._exit(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) == self._raise:
                signal.signal(number, end)
        return status

    def _raise(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, number
        importer = _importer(frame)
        if importer is not None and os.path.dirname(importer) == os.path.dirname(__file__):
            # A verb that is still fetching what it calls has begun nothing that would have to be put in order.
            os.write(2, b"inlay: interrupted\n")
            os._exit(128 + number)
        if first and importer is not None:
            self._behind_import(number)
            return
        raise Ended if number == signal.SIGTERM else KeyboardInterrupt

    def _behind_import(self, number: int) -> None:
        """Raises once no import is under way: many a library answers an exception there by going on without a part of
        itself, or with an error of its own."""

        def wait() -> None:
            while _importer(sys._current_frames().get(main)) is not None:
                pause.wait(_LOOK_SECONDS)
            os.kill(os.getpid(), number)

        main, pause = threading.main_thread().ident or 0, threading.Event()
        threading.Thread(target=wait, daemon=True).start()

    def _unraisable(self, found: "sys.UnraisableHookArgs") -> None:
        # Raised where Python cannot let it pass (a destructor, a callback of C): the main thread gets it again.
        if issubclass(found.exc_type, KeyboardInterrupt) and self.received is not None:
            number = self.received
            again = threading.Timer(_RAISE_AGAIN_SECONDS, lambda: os.kill(os.getpid(), number))
            again.daemon = True
            with contextlib.suppress(RuntimeError):  # too late for a thread: the interpreter is ending anyway
                again.start()
            return
        sys.__unraisablehook__(found)

    def _in_thread(self, found: "threading.ExceptHookArgs") -> None:
        # What a thread says of its end while the verb is being interrupted is no news.
        if self.received is None:
            threading.__excepthook__(found)


class _Raw(io.FileIO):
    """A standard stream's file: what the system refuses to write is told apart from every other OSError."""

    def write(self, data: "bytes | bytearray | memoryview") -> int | None:  # pyrefly: ignore[bad-override]
        try:
            return super().write(data)
        except (BrokenPipeError, BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            if self.fileno() == 2:
                return len(memoryview(data))  # nobody can be told, and the work need not end for it
            raise Unwritable((error.strerror or str(error)).lower()) from None


def fit_streams() -> None:
    """Makes standard output and error fit to be written to: open, in the terminal's encoding, never strict.

    A closed one goes nowhere. Its number is taken first of all: the next file to be opened would get it, and with that
    whatever is printed.
    """
    codecs.register_error(LOSSY, _lossy)
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        if number == 0:
            continue
        old = getattr(sys, name)
        encoding = "utf-8" if old is None else old.encoding
        fresh = io.TextIOWrapper(
            io.BufferedWriter(_Raw(number, "w", closefd=False)),  # pyrefly: ignore[bad-specialization]
            encoding=encoding,
            errors=LOSSY,
            line_buffering=number == 2 or os.isatty(number),
        )
        if old is not None:
            old.flush()
        setattr(sys, name, fresh)


def discard_output() -> None:
    """Sends what is still to be written nowhere: the interpreter would try once more at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


def _importer(frame: FrameType | None) -> str | None:
    """The file whose import is under way in a thread that stands at `frame`: the outermost, None without any."""
    found, inside = None, False
    while frame is not None:
        imports = frame.f_code.co_filename.startswith("<frozen importlib")
        if inside and not imports:
            found = frame.f_code.co_filename
        inside, frame = imports, frame.f_back
    return found


def _lossy(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return b"".join(bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else b"?" for c in found), error.end
