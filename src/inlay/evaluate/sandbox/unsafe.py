"""The back-end for machines without bubblewrap: a process with limits. Its name says that it is unsafe.

It ends what runs too long, uses too much memory or prints too much, ends all of its processes afterwards, gives it an
empty folder and a clean environment, and, started by root, another user. It cannot stop a program from: reading and
writing whatever its user may (files, the home folder, other processes); using the network; filling the disk with many
files outside its folder (each alone is limited); signalling the processes of its user, the launcher among them;
attaching a debugger to them; leaving things in /tmp; using memory that is in no process (shared memory). Not started by
root it runs as the very user who evaluates.
"""

import os
from collections.abc import Sequence
from typing import Any

from inlay.config import BadInput
from inlay.evaluate.sandbox.base import Sandbox
from inlay.evaluate.sandbox.bubblewrap import environment
from inlay.evaluate.sandbox.languages import base_python
from inlay.evaluate.sandbox.launcher import everybody_reaches, may_become
from inlay.evaluate.sandbox.steps import Ran

_UIDS = range(65520, 65534)


class UnsafeSubprocess(Sandbox):
    """Programs in processes with limits, and no more."""

    safe = False

    def __init__(self, workers: int | None = None) -> None:
        """See the module for what it does not stop. Raises BadInput on Windows."""
        if os.name != "posix":
            raise BadInput("programs cannot be run on this system: use Linux with bubblewrap (on Windows: WSL)")
        super().__init__(workers)
        root = os.geteuid() == 0
        # An interpreter under /root is out of another user's reach.
        self._drops = may_become(_UIDS[0]) and everybody_reaches(base_python()[0])
        self.name = "unsafe subprocess" + (" as root" if root and not self._drops else "")

    def _setup(self, slot: int, shown: Sequence[str]) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        setup = {
            "wrapper": None,
            "shown": [],
            "uid": _UIDS[slot % len(_UIDS)] if self._drops else None,
            "environment": environment("{box}"),
            # Without a namespace of its own the system counts all processes of the user against the limit.
            "count_processes": self._drops,
        }
        return setup, ()

    def _lost(self, trouble: str) -> Ran:
        # Twice in a row: the program ended its launcher, which nothing here can stop.
        return Ran(-9, None, 0.0, 0, 0, True, False, b"", b"it ended the process that watched it", b"s")
