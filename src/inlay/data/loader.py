"""The loader: batches of rows in a fixed global order, whose whole state is {epoch, row}.

Global batch b takes the next `rows` rows of the endless sequence epoch 0, epoch 1, ...; a batch may span a border. Rank
r of w takes rows r, r + w, ... of each batch, so the global stream is the same on any number of ranks. Worker processes
only compute rows ahead of time; they hold no state, and their number changes nothing but speed. It refuses to go on
from a state that was made on another store. A stream of several sources is `inlay.data.mixture`.
"""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from inlay.config import BadInput, Config, InlayError
from inlay.data.plan import Plan
from inlay.data.rows import Row, RowMaker
from inlay.fim.format import FimFormat
from inlay.fim.transform import FimConfig, Transform
from inlay.python_process import end_with_parent
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer


class SourceState(Config):
    """Where one source of a mixture stands: its next row, and how many rows of a period are its own."""

    epoch: int = Field(0, ge=0, le=1 << 62)
    row: int = Field(0, ge=0, le=1 << 62)
    quota: int = Field(0, ge=0, le=1 << 62)


class LoaderState(Config):
    """Where the stream stands: the next row to be read, and the store it is read from."""

    epoch: int = Field(0, ge=0, le=1 << 62)
    """Of a mixture always 0: its sources have their own."""
    row: int = Field(0, ge=0, le=1 << 62)
    """Of a mixture the rows since its shares were fixed."""
    store: str = ""
    """Hash of the store's manifest, or of all stores of a mixture; resuming on another one is refused."""
    length: int = Field(0, ge=0, le=1 << 62)
    """Slots of the rows that were read; 0 before the first."""
    sources: dict[str, SourceState] = Field({})
    """Of a mixture: where each source stands."""


RowAddress = tuple[int, int] | tuple[int, int, int]
"""Epoch and row; in a mixture also the number of the source."""


class RowStream(Protocol):
    """What a loader reads: rows in an endless fixed order. Picklable, so workers can own one."""

    store_hash: str
    """Of everything that decides what the rows hold, seed and options apart."""
    setting: str
    """The option that says where it is read from."""
    source_names: tuple[str, ...]
    """Of a mixture; `Batch.sources` counts them. Empty for one store."""

    @property
    def length(self) -> int:
        """Slots of a row."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the text."""
        ...

    def row(self, epoch: int, row: int, source: int = 0) -> Row:
        """One row's arrays."""
        ...

    def advance(self, state: LoaderState, count: int) -> tuple[Sequence[RowAddress], LoaderState]:
        """The next `count` rows from `state` on, and the state behind them."""
        ...

    def begin_stage(self, state: LoaderState) -> LoaderState:
        """Where a stage begins that reads these rows, when the stage before ended at `state`."""
        ...


@dataclass(frozen=True)
class Batch:
    """Rows stacked: every array [B, T]. `after` is the loader's state once this batch is consumed."""

    tokens: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    weights: np.ndarray
    kinds: np.ndarray
    regions: np.ndarray
    remaining: np.ndarray
    after: LoaderState
    sources: np.ndarray
    """uint8 [B]: the source of each row, counted as in the stream's `source_names`; 0 where there is one store"""


class Rows:
    """Random access to the rows of one split, planning each epoch once. Picklable, so workers can own one."""

    setting = "data.path"
    source_names: tuple[str, ...] = ()

    def __init__(
        self, store: str, split: str, fim: FimConfig, length: int, seed: int, shortest_piece: int | None = None
    ) -> None:
        self._arguments = (store, split, fim, length, seed, shortest_piece)
        opened = TokenStore.open(store, verify=False)
        self.store_hash = opened.hash
        transform = Transform(fim, FimFormat.load(fim.family, opened.tokenizer))
        self.split = opened.split(split)
        if self.split.token_count == 0:
            raise BadInput(f"the {split} split of {store} is empty; prepare it from more source files")
        if length < 4 * Transform.RESERVE:
            raise BadInput(
                f"rows of {length} tokens are too short for the sentinels; use at least {4 * Transform.RESERVE}"
            )
        longest = length - Transform.RESERVE
        if shortest_piece is not None and not 1 <= shortest_piece <= longest:
            raise BadInput(
                f"'data.shortest_piece' = {shortest_piece}: rows of {length} tokens take pieces of 1 to {longest}"
            )
        kinds = tuple(opened.manifest["span_kinds"])
        self.maker = RowMaker(self.split, transform, length, seed, shortest_piece, kinds)
        self._plans: dict[int, Plan] = {}
        self.notices: tuple[str, ...] = ()
        """What of the options this store cannot give, each in one line."""
        if transform.needs_syntax and not kinds:
            self.notices = (
                f"{store} has no syntax: middles that fim.spans cuts by syntax are lines or tokens under the same laws"
                " of lengths; prepare it with syntax.enabled=true, or choose fim=characters",
            )

    def __reduce__(self) -> tuple[type["Rows"], tuple[str, str, FimConfig, int, int, int | None]]:
        return type(self), self._arguments

    @property
    def store_path(self) -> str:
        """The store's folder."""
        return self._arguments[0]

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch; the newest two are kept."""
        if epoch not in self._plans:
            if len(self._plans) > 1:
                del self._plans[min(self._plans)]
            self._plans[epoch] = self.maker.plan(epoch)
        return self._plans[epoch]

    def row(self, epoch: int, row: int, source: int = 0) -> Row:
        """One row's arrays; there is one source."""
        return self.maker.row(self.plan(epoch), epoch, row)

    @property
    def length(self) -> int:
        """Slots of a row."""
        return self.maker.length

    def density(self, epoch: int) -> float:
        """Tokens of text per slot over the rows of an epoch, the text of other files in the window included."""
        plan = self.plan(epoch)
        context = 0 if plan.context is None else int(plan.context.stop.sum())
        return (plan.token_count + context) / (plan.row_count * self.length)

    @property
    def tokenizer(self) -> Tokenizer:
        """The store's."""
        return self.maker.transform.format.tokenizer

    def begin_stage(self, state: LoaderState) -> LoaderState:
        """Where a stage begins when the stage before ended at `state`: right there with rows of the same length. Rows
        of another length hold the text in another order, and which of it is left is not known here: they begin with
        the next epoch."""
        if state.length == self.length:
            return state
        epoch = state.epoch + 1 if state.row else state.epoch
        return LoaderState(epoch=epoch, row=0, store=self.store_hash, length=self.length)

    def advance(self, state: LoaderState, count: int) -> tuple[list[tuple[int, int]], LoaderState]:
        """The next `count` (epoch, row) pairs from `state` on, and the state behind them."""
        epoch, row, pairs = state.epoch, state.row, []
        while len(pairs) < count:
            total = self.plan(epoch).row_count
            taken = min(count - len(pairs), total - row)
            pairs += [(epoch, number) for number in range(row, row + taken)]
            row += taken
            if row >= total:
                epoch, row = epoch + 1, 0
        return pairs, LoaderState(epoch=epoch, row=row, store=self.store_hash, length=self.length)


def usable_workers(asked: int) -> int:
    """As many worker processes as this machine has processors for, at least one; 0 stays 0."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked, 2 * here)


class Loader:
    """Iterates batches for one rank from a state on. Close it (or use `with`) to end its workers."""

    def __init__(
        self,
        rows: RowStream,
        rows_per_batch: int,
        state: LoaderState | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        """`rows_per_batch` counts the rows of the global batch, over all ranks; `workers` are processes, 0 for none.

        Raises BadInput when the ranks cannot share a batch evenly, or when `state` was made on another store.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world} ranks")
        if rows_per_batch < 1 or rows_per_batch % world:
            raise BadInput(f"{rows_per_batch} rows a batch cannot be shared by {world} ranks evenly")
        state = state or LoaderState()
        if state.store and state.store != rows.store_hash:
            raise BadInput(f"the store is not the one this run was trained on; give the original {rows.setting}")
        self._rows = rows
        self._per_batch = rows_per_batch
        self._state = state
        self._rank, self._world = rank, world
        self._pool: ProcessPoolExecutor | None = None
        self._ahead: deque[tuple[Future[list[Row]], LoaderState]] = deque()
        self._depth = 2 * workers
        if workers:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(rows,))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            rows, self._state = self._next_rows()
            return stack([self._rows.row(*address) for address in rows], self._state)
        while len(self._ahead) < self._depth:
            rows, self._state = self._next_rows()
            with _held():
                self._ahead.append((self._pool.submit(_make_rows, rows), self._state))
        future, after = self._ahead.popleft()
        try:
            return stack(future.result(), after)
        except BrokenProcessPool:
            raise InlayError("a data worker process died (killed, or out of memory); try fewer data.workers") from None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _next_rows(self) -> tuple[Sequence[RowAddress], LoaderState]:
        rows, after = self._rows.advance(self._state, self._per_batch)
        return rows[self._rank :: self._world], after


def stack(rows: list[Row], after: LoaderState) -> Batch:
    """B rows of T slots each to one batch of [B, T] arrays; `after` is the loader's state behind them."""
    names = ("tokens", "targets", "positions", "weights", "kinds", "regions", "remaining")
    arrays = {name: np.stack([getattr(row, name) for row in rows]) for name in names}
    return Batch(**arrays, after=after, sources=np.array([row.source for row in rows], dtype=np.uint8))


_worker_rows: RowStream | None = None  # set once in each worker process; a process pool has no other place for it


@contextlib.contextmanager
def _held() -> Iterator[None]:
    """Workers that are started here never see SIGINT, which is the trainer's: from their first moment on, in which they
    would otherwise end with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(rows: RowStream) -> None:
    global _worker_rows
    end_with_parent()
    _worker_rows = rows
    # Ctrl-C, or a scheduler's signal, reaches the whole process group; the trainer decides when to end, and closes its
    # workers then.
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", None)):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def _make_rows(rows: Sequence[RowAddress]) -> list[Row]:
    if _worker_rows is None:
        raise RuntimeError("the worker was not started with its rows")
    return [_worker_rows.row(*address) for address in rows]
