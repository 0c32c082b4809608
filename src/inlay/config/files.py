"""Writing files so that a kill or a full disk never leaves half of one, and saying disk errors in one line.

Every file that a reader may open while it is being written goes through `write_atomic`; longer writes (folders,
streams) use `disk_errors` for the message and their own temporary name. It refuses nothing but what the disk refuses.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from inlay.config.errors import BadInput, InlayError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_BLOCK = 1 << 24
"""Bytes that are written at a time: between two blocks other threads of this process come to run."""


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Writes `content` (text as UTF-8) to `path`: a reader sees the old file or the new one, also after a power cut.

    Missing parent folders are made. Raises InlayError with one line when the disk is full, BadInput when the path
    cannot be written at all.
    """
    write_together({Path(path): content})


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """Writes files that belong together, of one folder, or none of them: a full disk leaves the old ones as they were.

    The last one seals the others: its old version goes before they come and it comes after them, so that it never
    stands beside files of another time. Raises as `write_atomic`.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                with open(aside, "wb") as file:
                    written[path] = aside
                    file.write(content.encode("utf-8") if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
        *others, seal = contents
        with disk_errors(seal):
            if others:
                seal.unlink(missing_ok=True)
            for path in contents:
                os.replace(written[path], path)
                del written[path]
            sync_folder(seal.parent)
    finally:
        for left in written.values():
            left.unlink(missing_ok=True)


def write_synced(path: Path, blocks: Iterable[bytes | memoryview]) -> str:
    """Writes `blocks` (of bytes) one after the other to a new file that the disk has when this returns.

    Returns xxh3_128 of what was to be written, hexadecimal: it is taken from memory, so that what the disk got wrong
    does not match. Raises OSError; see `disk_errors`.
    """
    digest = xxhash.xxh3_128()
    with path.open("wb") as file:
        for block in blocks:
            view = memoryview(block)
            for start in range(0, len(view), _BLOCK):
                part = view[start : start + _BLOCK]
                digest.update(part)
                _put(file, part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put(file: BinaryIO, part: memoryview) -> None:
    file.write(part)


def sync_folder(folder: str | Path) -> None:
    """Makes renames inside `folder` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a line that a kill left half written is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns an OSError inside the block into one line that names `path`: a full disk, no permission, or the rest."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: str | Path, error: OSError) -> InlayError:
    """The one-line error for `error` while writing `path`."""
    if error.errno in _FULL:
        return InlayError(
            f"cannot write '{path}': {_FULL[error.errno]}; free some space or choose another place (out=DIR)"
        )
    reason = (error.strerror or str(error)).lower()
    if error.errno in _REFUSED:
        return BadInput(f"cannot write '{path}': {reason}; choose another place (out=DIR)")
    return InlayError(f"cannot write '{path}': {reason}")
