"""The safe back-end: every step in a bubblewrap of its own, without network, home, or anything of the last program.

What a program sees: /usr, the interpreter and its language's toolchain, read-only; an empty /tmp of limited size in
memory; /dev/null, zero, full, random and urandom; a /proc of its own processes. It runs as an unprivileged user in new
user, mount, process, network, IPC, host-name and cgroup namespaces, without a terminal, with a system call filter
(`system_calls`). Started by root, the launcher gives root up before bubblewrap starts: the system's limit on processes
does not bind root. Root of a container that knows no other user cannot give itself up; it is nobody outside, and the
number of processes is then held by watching alone.

What is left to an adversary: faults of the kernel; reading what lies under /usr; and, inside its own process, the tests
themselves (a function that returns an object equal to everything, or that searches the interpreter's frames for the
secret number and writes it). Memory and the number of files are watched every 20 ms, so a burst may pass the limit for
that long.
"""

import os
import shutil
from collections.abc import Sequence
from typing import Any

from inlay.config import BadInput, InlayError
from inlay.evaluate.sandbox.base import Sandbox
from inlay.evaluate.sandbox.languages import base_python, showable, toolchain
from inlay.evaluate.sandbox.launcher import may_become
from inlay.evaluate.sandbox.program import Limits, Program
from inlay.evaluate.sandbox.system_calls import system_call_filter

_NAMESPACES = [
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--new-session", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
]
_DEVICES = ("null", "zero", "full", "random", "urandom")
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/mono")
"""Of /etc, what tools are found by; Mono and Java keep their own settings there, too."""
_UIDS = range(65520, 65534)
"""Users that no distribution gives away (systemd's list of user ids); one for each worker."""
_INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap)"
_PROBE = Program("python", "assert 1 + 1 == 2\n", limits=Limits(seconds=20.0))


class Bubblewrap(Sandbox):
    """Programs under bubblewrap."""

    name = "bubblewrap"
    safe = True

    def __init__(self, workers: int | None = None) -> None:
        """Raises BadInput, in one line, where bubblewrap is missing or cannot work; a first program is run."""
        super().__init__(workers)
        found = shutil.which("bwrap")
        if found is None:
            raise BadInput(f"bubblewrap (bwrap) is not installed: {_INSTALL}")
        _, prefix = base_python()
        if not (prefix == "/usr" or prefix.startswith("/usr/") or showable(prefix)):
            raise BadInput(
                f"a sandbox would have to show all of '{prefix}', where Python lies: install Python elsewhere"
            )
        self._wrapper = [found, *_NAMESPACES, *_root(), "--proc", "/proc"]
        self._filter = system_call_filter(os.uname().machine)
        try:
            tools = toolchain("python")
            assert tools is not None
            outcome = self._judged(_PROBE, tools)
        except InlayError as error:
            self.close()
            raise BadInput(f"bubblewrap does not work here: {error}") from error
        if not outcome.passed:
            self.close()
            raise BadInput(f"bubblewrap does not work here: a first program failed ({outcome.detail})")
        self._known["python"] = True

    def _setup(self, slot: int, shown: Sequence[str]) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        setup = {
            "wrapper": self._wrapper,
            "shown": list(shown),
            "uid": uid if may_become(uid := _UIDS[slot % len(_UIDS)]) else None,
            "environment": environment("{box}"),
            "count_processes": True,
        }
        return setup, () if self._filter is None else (self._filter,)


def environment(folder: str) -> dict[str, str]:
    """All that a program finds in its environment; the same on every machine."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
    }


def _root() -> list[str]:
    """The options that make a minimal, read-only root."""
    words = ["--ro-bind", "/usr", "/usr"]
    for path in _SYSTEM:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    settings = [*_SETTINGS, *(f"/etc/{name}" for name in sorted(os.listdir("/etc")) if name.startswith("java"))]
    for path in settings:
        words += ["--ro-bind-try", path, path]
    if os.path.isdir("/nix/store"):
        words += ["--ro-bind", "/nix/store", "/nix/store"]
    for name in _DEVICES:
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    words += ["--symlink", "/proc/self/fd", "/dev/fd"]
    return words
