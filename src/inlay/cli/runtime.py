"""The process environment that CPU work needs, set before the process starts to work: it replaces itself once.

It decides, on Linux, three things that can only be set from outside a process, and overrides none that
the user has set:

* `GLIBC_TUNABLES`: freed memory is kept and huge pages are used. By default glibc returns every large block to the
  system and takes a page fault for each 4 KiB of the next one.
* `GOMP_SPINCOUNT`: how long an OpenMP thread spins at a barrier before it sleeps. By default it spins for milliseconds,
  which starves the others as soon as a neighbour uses a core; never spinning (`OMP_WAIT_POLICY=passive`) is slower on
  an idle machine.
* `OMP_NUM_THREADS`: one for each physical core that this process may use, by its affinity and its control group;
  where torchrun has started several processes on this machine, each gets its part of the cores.

A fourth is of every verb: where the locale names another encoding the process replaces itself in Python's UTF-8 mode.

`INLAY_NO_REEXEC=1` leaves everything as it is. Only the entry points call what is here, never a library
import.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

MARK = "INLAY_RUNTIME"
UTF8_MARK = "INLAY_UTF8"
OPT_OUT = "INLAY_NO_REEXEC"
_GIB = 1 << 30
# Measured on 2 cores with torch 2.13 and glibc 2.36: float() of a bfloat16 [8192, 4096] takes 37 ms by default, 9.4
# with a threshold of 32 MiB (the most that mallopt takes), 2.9 with this one. hugetlb=1 asks for transparent huge
# pages.
TUNABLES = {
    "glibc.malloc.mmap_threshold": str(4 * _GIB),
    "glibc.malloc.trim_threshold": str(16 * _GIB),
    "glibc.malloc.top_pad": str(64 << 20),
    "glibc.malloc.hugetlb": "1",
}
# 60 small matrix products with silu, 2 threads, idle: 47.7 ms by default, 48.0 at 1,000, 54.4 with a passive wait
# policy. Beside one spinning neighbour: 620 to 930 ms by default, 154 at 10,000, 101 at 1,000, 95 passive.
SPIN_COUNT = "1000"


def ensure_runtime() -> None:
    """Replaces this process by itself with the environment above, once; returns when there is nothing to change."""
    environment = dict(os.environ)
    if not sys.platform.startswith("linux") or MARK in environment or environment.get(OPT_OUT, "") not in ("", "0"):
        return
    cores = max(1, available_cores() // local_processes(environment))
    changes = runtime_changes(environment, glibc=_is_glibc(), cores=cores)
    if not changes or not is_entry_point(sys.argv[0]):
        return
    replace_process({**environment, **changes, MARK: "1"})


def ensure_utf8() -> None:
    """Replaces this process by itself in UTF-8 mode where names and files would be read in another encoding.

    The terminal keeps its own. What a locale says is how a terminal shows text; our files are UTF-8 everywhere, and so
    are those of every process that we start.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return
    environment = os.environ
    if UTF8_MARK in environment or environment.get(OPT_OUT, "") not in ("", "0") or not is_entry_point(sys.argv[0]):
        return
    shown = getattr(sys.stdout or sys.stderr, "encoding", None) or "utf-8"
    changes = {"PYTHONUTF8": "1", "PYTHONIOENCODING": environment.get("PYTHONIOENCODING") or shown, UTF8_MARK: "1"}
    replace_process({**environment, **changes})


def replace_process(environment: dict[str, str]) -> None:
    """Starts this command line anew in this process with another environment; returns where the system refuses.

    SIGINT waits until the new one can take it.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    held = hasattr(signal, "pthread_sigmask")
    if held:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # A system that refuses (a sandbox, a full process table) costs speed, not correctness: go on as we are.
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    if held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def runtime_changes(environment: Mapping[str, str], *, glibc: bool, cores: int) -> dict[str, str]:
    """The variables to set on top of `environment`, none of them against what the user has set there."""
    changes: dict[str, str] = {}
    if glibc:
        tunables = merge_tunables(environment.get("GLIBC_TUNABLES", ""))
        if tunables != environment.get("GLIBC_TUNABLES", ""):
            changes["GLIBC_TUNABLES"] = tunables
    if not any(name in environment for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        changes["GOMP_SPINCOUNT"] = SPIN_COUNT
    threads = environment.get("OMP_NUM_THREADS")
    # torchrun sets 1 where the user has set nothing; what a user of it sets otherwise stays.
    if threads is None or (threads == "1" and cores > 1 and local_processes(environment) > 1):
        changes["OMP_NUM_THREADS"] = str(cores)
    return changes


def local_processes(environment: Mapping[str, str]) -> int:
    """Processes of this run on this machine, as torchrun has put it into `environment`; 1 without it."""
    count = environment.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(count)) if count.isdecimal() else 1


def launched(environment: Mapping[str, str]) -> tuple[int, int]:
    """(rank, processes) of the run that torchrun has started; (0, 1) without it."""
    rank, world = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    return (int(rank), max(1, int(world))) if rank.isdecimal() and world.isdecimal() else (0, 1)


def merge_tunables(current: str) -> str:
    """`current` (glibc's `name=value:name=value`) with those of ours that it does not name."""
    named = {item.partition("=")[0] for item in current.split(":") if item}
    added = [f"{name}={value}" for name, value in TUNABLES.items() if name not in named]
    return ":".join([item for item in current.split(":") if item] + added)


def is_entry_point(program: str) -> bool:
    """Whether `program` (sys.argv[0]) is the installed `inlay` or `python -m inlay`, not a program that imported it."""
    path = Path(program)
    return path.name == "inlay" or (path.name == "__main__.py" and path.parent.name == "inlay")


def available_cores(system: Path = Path("/sys"), affinity: set[int] | None = None) -> int:
    """Physical cores that this process may use: its affinity, siblings counted once, and at most its CPU quota."""
    if affinity is None:
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for number in affinity:
        siblings = _read(system / f"devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(siblings or str(number))
    quota = _cpu_quota(system / "fs/cgroup")
    return max(1, len(cores) if quota is None else min(len(cores), round(quota + 0.49)))


def _cpu_quota(root: Path) -> float | None:
    """Cores that the control group grants (version 2, then 1), or None when it sets no limit."""
    limit = _read(root / "cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        return int(limit[0]) / int(limit[1])
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False
