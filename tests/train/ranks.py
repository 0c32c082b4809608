"""Processes of one run on this machine: starts them, hands each the same function, returns what each gave."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

TIMEOUT_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _enter(
    rank: int, world: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...], out: str
) -> None:
    os.environ.update(environment(rank, world, port), OMP_NUM_THREADS="1", INLAY_NO_REEXEC="1")
    torch.set_num_threads(1)
    try:
        found: Any = function(*arguments)
    except BaseException:
        traceback.print_exc()
        torch.save(None, f"{out}/{rank}")
        os._exit(1)
    torch.save(found, f"{out}/{rank}")


def run(world: int, function: Callable[..., Any], *arguments: Any, out: Path) -> list[Any]:
    """`function(*arguments)` in `world` processes that find in their environment what torchrun would put there; what
    each returned, in order of rank. `out` is an empty folder."""
    out.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    port = free_port()
    processes = [
        context.Process(target=_enter, args=(rank, world, port, function, arguments, str(out)), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS * 4)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    assert codes == [0] * world, codes
    return [torch.load(out / str(rank), weights_only=False) for rank in range(world)]
