"""What every sandbox does: many programs at a time, each on its own, compiled first where the language asks for it.

It decides that equal programs run once, that a language whose toolchain cannot run here is "unavailable" and never
"failed", and that a sandbox which breaks raises: its trouble is never counted as the program's.
"""

import contextlib
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, Self

from inlay.config import BadInput, InlayError
from inlay.evaluate.sandbox.languages import MEBI, Plan, Toolchain, base_python, toolchain
from inlay.evaluate.sandbox.program import Case, Limits, Outcome, Program
from inlay.evaluate.sandbox.steps import RUNNER, File, LauncherLost, Ran, Step, Worker
from inlay.evaluate.sandbox.verdict import compile_failure, judge, plain

MOST_WORKERS = 8
_HELLO_SECONDS = 30.0
_PRODUCT_BYTES = 256 * MEBI
_COMPILER_PROCESSES = 256
_COMPILER_FILES = 50_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class Sandbox(ABC):
    """Runs programs that nobody has read. Use as a context, or call `close`."""

    name: str
    """For reports."""
    safe: bool
    """Whether the host is out of the programs' reach."""

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: programs at a time; None for one a processor, at most 8."""
        self.workers = max(1, min(MOST_WORKERS, _processors()) if workers is None else workers)
        self._lock = threading.Lock()
        self._known: dict[str, bool] = {}
        self._probing: dict[str, threading.Lock] = {}
        self._idle: list[tuple[int, frozenset[str], Worker]] = []
        self._busy: set[Worker] = set()
        self._slots: set[int] = set()
        python = toolchain("python")
        self._always: tuple[str, ...] = python.prefixes if python else ()
        self._shown = set(self._always)
        self._closed = False

    # ---- what a back-end decides -------------------------------------------------------------------------------------

    @abstractmethod
    def _setup(self, slot: int, shown: Sequence[str]) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """The launcher's first message (see `Launcher`) for the worker with this number; `shown`: folders beside
        /usr."""

    # ---- public ------------------------------------------------------------------------------------------------------

    def available(self, language: str) -> bool:
        """Whether programs in `language` can be run: its toolchain is there, and runs a first program in here."""
        with self._lock:
            known = self._known.get(language)
            gate = self._probing.setdefault(language, threading.Lock())
        if known is not None:
            return known
        with gate:  # the first to ask finds out, the others wait for it
            if language not in self._known:
                tools = toolchain(language)
                works = tools is not None and self._judged(_hello(tools), tools).passed
                with self._lock:
                    self._known[language] = bool(works)
        return self._known[language]

    def run(self, program: Program) -> Outcome:
        """What becomes of `program`. Raises InlayError when the sandbox itself breaks."""
        tools = toolchain(program.language)
        if tools is None or not self.available(program.language):
            return Outcome("unavailable", "unavailable", detail=f"no working toolchain for {plain(program.language)}")
        return self._judged(program, tools)

    def run_many(self, programs: Sequence[Program], workers: int | None = None) -> Iterator[tuple[int, Outcome]]:
        """Yields (index in `programs`, outcome) as they finish; equal programs are run once.

        `workers` programs at a time, None for as many as the sandbox was opened with. Raises InlayError when the
        sandbox itself breaks; what was not begun is then left.
        """
        alike: dict[Program, list[int]] = {}
        for index, program in enumerate(programs):
            alike.setdefault(program, []).append(index)
        pool = ThreadPoolExecutor(max(1, self.workers if workers is None else workers), "sandbox")
        try:
            futures: dict[Future[Outcome], list[int]] = {
                pool.submit(self.run, program): indices for program, indices in alike.items()
            }
            for future in as_completed(futures):
                outcome = future.result()
                for index in futures[future]:
                    yield index, outcome
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def launchers(self) -> list[int]:
        """Process ids of the launchers that run now."""
        with self._lock:
            return [one.pid for one in (*(worker for _, _, worker in self._idle), *self._busy)]

    def close(self) -> None:
        """Ends all that it started, also what still runs."""
        with self._lock:
            self._closed = True
            workers = [*(worker for _, _, worker in self._idle), *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    # ---- one program -------------------------------------------------------------------------------------------------

    def _judged(self, program: Program, tools: Toolchain) -> Outcome:
        if program.file is not None and not _PLAIN_NAME.fullmatch(program.file):
            raise BadInput(f"a program's file must have a plain name, not {program.file!r}")
        plan = tools.plan(program)
        if not program.cases:
            raise BadInput("a program needs at least one case: Case() asks that it reaches its end")
        text = program.source if plan.source is None else plan.source
        source = File(plan.file, text.encode("utf-8", "surrogatepass"))
        files, seconds, compiled = (source, *plan.files), 0.0, None
        if plan.compile is not None:
            step = _compile_step(plan.compile, tools, files)
            ran = self._step(tools, step)
            seconds += ran.seconds
            if ran.killed is not None or ran.status != 0:
                cause, detail = compile_failure(ran, step)
                return Outcome("failed", cause, False, seconds, detail)
            files, compiled = (File(plan.product, ran.stdout, 0o755),), True
        for case in program.cases:
            step = _run_step(plan, tools, files, program.limits, case)
            ran = self._step(tools, step)
            seconds += ran.seconds
            cause, said, detail = judge(ran, step, case, program)
            compiled = compiled if said is None else said
            if cause != "passed":
                return Outcome("failed", cause, compiled, seconds, detail)
        return Outcome("passed", "passed", True, seconds)

    def _step(self, tools: Toolchain, step: Step) -> Ran:
        with self._lock:
            self._shown.update(tools.prefixes)
        trouble = ""
        for _ in range(2):
            worker, give_back = self._take()
            try:
                ran = worker.run(
                    step, tuple(one for one in tools.prefixes if one not in self._always), tools.environment
                )
            except LauncherLost as error:
                trouble = str(error)
                give_back(False)
            except BaseException:
                give_back(False)
                raise
            else:
                give_back(True)
                return ran
        return self._lost(trouble)

    def _lost(self, trouble: str) -> Ran:
        raise InlayError(f"the sandbox broke, so nothing is known of the program it ran: {plain(trouble)}")

    # ---- workers -----------------------------------------------------------------------------------------------------

    def _take(self) -> tuple[Worker, Any]:
        """A worker that shows all folders needed by now, and how to give it back (True: in order)."""
        stale: list[Worker] = []
        with self._lock:
            if self._closed:
                raise InlayError("the sandbox is closed")
            shown = frozenset(self._shown)
            slot = worker = None
            while self._idle and worker is None:
                slot, folders, candidate = self._idle.pop()
                if folders == shown and candidate.alive:
                    worker = candidate
                else:
                    stale.append(candidate)
                    self._slots.discard(slot)
            if worker is None:
                slot = next(number for number in range(1 << 16) if number not in self._slots)
                self._slots.add(slot)
        assert slot is not None
        for one in stale:
            one.close()
        try:
            if worker is None:
                setup, blobs = self._setup(slot, sorted(shown))
                python, _ = base_python()
                always = [one for one in self._always if one in shown]
                setup = {"always": always, "python": python, "runner": RUNNER.read_text(encoding="utf-8"), **setup}
                worker = Worker(python, setup, blobs)
        except BaseException:
            with self._lock:
                self._slots.discard(slot)
            raise
        with self._lock:
            self._busy.add(worker)

        def give_back(in_order: bool, slot: int = slot, worker: Worker = worker) -> None:
            with self._lock:
                self._busy.discard(worker)
                keep = in_order and not self._closed
                if keep:
                    self._idle.append((slot, shown, worker))
                else:
                    self._slots.discard(slot)
            if not keep:
                worker.close()

        return worker, give_back


def _compile_step(command: tuple[str, ...], tools: Toolchain, files: tuple[File, ...]) -> Step:
    """A compilation, whose limits are the tool's and not the program's."""
    return Step(
        argv=command,
        mode="exec",
        files=files,
        stdin=b"",
        seconds=tools.compile_seconds,
        memory_bytes=tools.compile_memory_bytes,
        address_bytes=0,
        processes=_COMPILER_PROCESSES,
        file_bytes=_PRODUCT_BYTES,
        folder_bytes=2 * _PRODUCT_BYTES,
        files_most=_COMPILER_FILES,
        output_bytes=_PRODUCT_BYTES,
    )


def _run_step(plan: Plan, tools: Toolchain, files: tuple[File, ...], limits: Limits, case: Case) -> Step:
    """One case of a program that is compiled, or needs not be."""
    memory = limits.memory_bytes + tools.memory_bytes
    return Step(
        argv=plan.run,
        mode="exec" if not plan.python else "run" if case.expected is None else "print",
        files=files,
        stdin=case.stdin.encode("utf-8", "surrogatepass"),
        seconds=limits.seconds,
        memory_bytes=memory,
        address_bytes=memory if tools.address_limit else 0,
        processes=limits.processes + tools.processes,
        file_bytes=limits.file_bytes,
        folder_bytes=limits.file_bytes + sum(len(one.content) for one in files) + MEBI,
        files_most=limits.files,
        output_bytes=limits.output_bytes,
    )


def _hello(tools: Toolchain) -> Program:
    return Program(tools.language, tools.hello, limits=Limits(seconds=_HELLO_SECONDS))


def _processors() -> int:
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
