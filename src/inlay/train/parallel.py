"""The processes of a run: which rank this is, on which device, and what all ranks have to agree on.

`torchrun --nproc-per-node N -m inlay train ...` starts them, on one machine or on many; what it leaves in the
environment is all that is read. Without it a run has one process. What ranks tell each other here are a few numbers and
names on the CPU; weights and gradients travel in `inlay.train.distribute`.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import distributed

from inlay.config import BadInput, Config, InlayError

Strategy = Literal["none", "ddp", "fsdp"]

LAUNCH = "torchrun --nproc-per-node N -m inlay train ..."
LOST = "another process of this run has ended, or does not answer,"
SETTLED_SECONDS = 0.2
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# How the back ends say that the other side is gone; their exceptions are mostly plain RuntimeErrors.
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out", "store", "peer")


class ParallelConfig(Config):
    """How a run is spread over the processes that torchrun started. It decides speed and memory, never the weights."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """`ddp`: every process holds the whole model; `fsdp`: each holds its share of every parameter, of its gradient and
    of the optimizer's state (FSDP2). `auto` is ddp under torchrun and one plain process without it."""
    shard: Literal["full", "grad"] = "full"
    """fsdp: `full` drops a block's gathered parameters after its forward pass and gathers them again for its backward
    pass; `grad` keeps them in between: a third less traffic, and a whole model in the activation type in memory."""
    reduce: Literal["last", "each"] = "last"
    """Micro-batches after which gradients are summed over processes. `each` is for fsdp: no process then ever holds the
    whole gradient, at the price of that traffic for each micro-batch."""
    timeout_seconds: float = Field(600.0, gt=0.0, le=1e6)
    """How long a process waits for another one before it ends with an error."""


class Reported(InlayError):
    """This process ends for a reason that another process of the run has given already: there is nothing to print."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("")
        self.exit_status = exit_status


@dataclass(frozen=True)
class Parallel:
    """One process of a run; `rank` of `world`. As a context, it takes its process out of the group when it ends."""

    device: torch.device
    rank: int = 0
    world: int = 1
    strategy: Strategy = "none"
    shard: Literal["full", "grad"] = "full"
    reduce: Literal["last", "each"] = "last"
    store: distributed.Store | None = None
    """Of the process group that `join` made, and that this object ends; None when there is none, or another's."""

    @classmethod
    def join(cls, config: ParallelConfig) -> "Parallel":
        """The processes that this one was started with; a process group that is there already is taken as it is.

        Raises BadInput, in one line that says how to start, when `config` asks for processes and there are none.
        """
        if config.reduce == "each" and config.strategy != "fsdp":
            raise BadInput("parallel.reduce=each is for parallel.strategy=fsdp; leave it at last")
        started = _started()
        if started is None:
            if config.strategy != "auto":
                raise BadInput(
                    f"parallel.strategy={config.strategy} needs the processes of torchrun: start with {LAUNCH},"
                    " or take parallel.strategy=auto"
                )
            return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        rank, world, local = started
        device = _device(local)
        strategy: Strategy = config.strategy if config.strategy != "auto" else "ddp" if world > 1 else "none"
        store = None
        if strategy != "none" and not distributed.is_initialized():
            store = _join_group(config, rank, world, device)
        return cls(device, rank, world, strategy, config.shard, config.reduce, store)

    @property
    def main(self) -> bool:
        """Whether this process writes what a run writes once."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """`values` float64 [n] summed over all ranks, the same bits on each of them."""
        if self.world == 1:
            return values
        total = torch.from_numpy(np.array(values, dtype=np.float64))
        distributed.all_reduce(total)
        return total.numpy()

    def first(self, value: float) -> float:
        """Rank 0's `value`, on every rank: for what must not differ, such as a decision by the clock."""
        if self.world == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(told, 0)
        return float(told)

    def gather(self, item: Any) -> list[Any]:
        """What each rank gave, in order of rank, on every rank; anything that can be pickled."""
        if self.world == 1:
            return [item]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, item)
        return found

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Ends on all ranks or on none: when the block fails on one of them, every rank raises at its end.

        The first rank that failed raises what it met, the others `Reported`. The block itself must not communicate.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.world > 1:
            statuses = self.gather(None if failure is None else _status(failure))
            failed = [rank for rank, status in enumerate(statuses) if status is not None]
            if failed and self.rank != failed[0]:
                raise Reported(statuses[failed[0]])
        if failure is not None:
            raise failure

    def check_rows(self, rows: int, accumulation: int) -> None:
        """Raises BadInput unless a step of `rows` rows can be shared evenly by all ranks and micro-batches."""
        parts = self.world * accumulation
        if rows % parts:
            per_part = f"{self.world} processes x {accumulation} micro-batches = {parts}"
            raise BadInput(f"train.rows {rows} cannot be shared by {per_part} evenly: make it a multiple of {parts}")

    def lost(self, error: BaseException) -> bool:
        """Whether `error` says that another process has ended, or does not answer."""
        if self.world == 1 or isinstance(error, InlayError) or not isinstance(error, RuntimeError):
            return False
        text = str(error).lower()
        return isinstance(error, distributed.DistError) or any(word in text for word in _LOST)

    def __enter__(self) -> "Parallel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Leaves the group. Of errors that several ranks raise alike, one rank keeps it and the others get
        `Reported`: the user reads it once."""
        if error is None:
            if self.store is not None:
                with contextlib.suppress(RuntimeError):  # the work is done, whatever happens to the others now
                    self.sum(np.zeros(1))  # nobody takes the group away while another still needs it
                # Gloo's threads need the interpreter to let go of what they have sent, and what destroys the group
                # holds it while it waits for them: without this pause a process hung at its end now and then.
                time.sleep(SETTLED_SECONDS)
                distributed.destroy_process_group()
            return
        if isinstance(error, (Reported, GeneratorExit, SystemExit)):
            return
        # The group stays until the process ends: taking it away may wait for work that will never be done.
        said: BaseException = InlayError(f"{LOST} while it was starting or ending") if self.lost(error) else error
        if self.world > 1 and not self._says_first(str(said)):
            raise Reported(_status(said)) from None
        if said is not error:
            raise said from None

    def _says_first(self, message: str) -> bool:
        """Whether no other rank has said `message` yet."""
        if self.store is None:
            return True
        try:
            return self.store.add(f"said/{message}", 1) == 1
        except RuntimeError:  # the process that kept the store is gone
            return True


def _started() -> tuple[int, int, int] | None:
    """(rank, world, local rank) as torchrun put them into the environment, or as an existing group has them; None for a
    process of its own. Raises BadInput when only some of the variables are set."""
    if distributed.is_available() and distributed.is_initialized():
        rank = distributed.get_rank()
        return rank, distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", rank))
    missing = [name for name in _VARIABLES if name not in os.environ]
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= set(missing):
        return None
    if missing:
        raise BadInput(f"{', '.join(missing)} missing, though other variables of torchrun are set: start with {LAUNCH}")
    rank, world, local = (int(os.environ[name]) for name in _VARIABLES[:3])
    return rank, world, local


def _device(local: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local >= count:
        raise BadInput(f"this machine has {count} GPUs and torchrun started more processes: --nproc-per-node {count}")
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def _join_group(config: ParallelConfig, rank: int, world: int, device: torch.device) -> distributed.Store:
    timeout = timedelta(seconds=config.timeout_seconds)
    # CPU tensors travel by gloo also where weights travel by NCCL: counts, agreements and checkpoints are on the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, _, _ = next(iter(distributed.rendezvous("env://", rank, world, timeout=timeout)))
        store.set_timeout(timeout)
        distributed.init_process_group(
            backend, store=distributed.PrefixStore("group", store), rank=rank, world_size=world, timeout=timeout
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise InlayError(f"the {world} processes of the run did not find each other: {reason}") from None
    return distributed.PrefixStore("inlay", store)


def _status(error: BaseException) -> int:
    if isinstance(error, InlayError):
        return error.exit_status
    return 130 if isinstance(error, KeyboardInterrupt) else 1
