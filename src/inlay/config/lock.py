"""One process at a time in a folder: a lock that its holder's death releases, whatever killed it.

The lock is the kernel's (POSIX record locks, which also work over NFS and which forked children do not inherit), on the
file `.lock` in the folder; the file says who holds it, for people. The holder itself must not open that file again:
closing it would give the lock away. A file system that has no locks is no reason to
refuse work: `Lock.missing` then says so, for a notice.
"""

import contextlib
import errno
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from inlay.config.errors import BadInput
from inlay.config.files import disk_errors

_TAKEN = {errno.EACCES, errno.EAGAIN}
_held: dict[tuple[int, Path], tuple[int, int]] = {}
"""Descriptor and number of holders by (process, folder): closing any descriptor of a file drops a process's locks on
it, so that there may be only one."""


@dataclass
class Lock:
    """This process's claim on a folder, until `release` or its end. Within a process a folder can be locked again."""

    folder: Path
    missing: str | None = None
    """Why there is no lock, where the system or the file system has none."""
    released: bool = False

    @classmethod
    def take(cls, folder: Path) -> "Lock":
        """Locks `folder`. Raises BadInput that names the holder when another process has it, at once."""
        try:
            import fcntl
        except ImportError:
            return cls(folder, "this system has no file locks")
        folder = folder.resolve()
        key = (os.getpid(), folder)
        if key in _held:
            descriptor, holders = _held[key]
            _held[key] = descriptor, holders + 1
            return cls(folder)
        file = folder / ".lock"
        with disk_errors(file):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno in _TAKEN:
                raise BadInput(f"{holder} is at work on '{folder}': wait for it, or end it first") from None
            return cls(folder, f"its file system has no locks ({(error.strerror or str(error)).lower()})")
        _held[key] = descriptor, 1
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return cls(folder)

    def release(self) -> None:
        """Lets others in; a second call does nothing."""
        key = (os.getpid(), self.folder)
        if self.released or key not in _held:
            return
        self.released = True
        descriptor, holders = _held.pop(key)
        if holders > 1:
            _held[key] = descriptor, holders - 1
        else:
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['process'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
