"""Writing files so that a kill or a full disk never leaves half of one, reading them in a bounded way, and saying disk
errors in one line.

Every file that a reader may open while it is being written goes through `write_atomic`; longer writes (folders,
streams) use `disk_errors` for the message and their own temporary name. Every file that somebody names is read through
`read_bounded` or `bounded_lines`: a pipe or a device never ends, and a small archive may hold more than a memory.
"""

import contextlib
import errno
import gzip
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import xxhash

from inlay.config.errors import BadInput, InlayError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_BLOCK = 1 << 24
"""Bytes that are written at a time: between two blocks other threads of this process come to run."""


MOST_BYTES = 256 << 20
"""Of a file that is read whole."""
MOST_LINE_BYTES = 64 << 20
MOST_LINES_BYTES = 1 << 36
"""Of a file of lines, unpacked."""
MOST_BLANK_LINES = 1_000_000
"""In a row: there is nothing in such a file."""


def open_regular(path: str | Path) -> BinaryIO:
    """An open file to read bytes from, buffered. Raises OSError as `open` does, and for what is no regular file (a
    pipe, a device), which would be waited for for ever or never end."""
    # Without O_NONBLOCK opening a pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        sort = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise OSError(errno.EINVAL, f"it is {sort}, not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bounded(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises OSError as `open_regular` does, and for more than `most` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes, the most that is read", str(path))
    return data


def read_bounded_text(path: str | Path, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """As `read_bounded`, as UTF-8 without a byte-order mark. Raises UnicodeDecodeError unless `errors` forgives."""
    return read_bounded(path, most).decode("utf-8", errors).removeprefix("\ufeff")


class Line(NamedTuple):
    """A line of a file that is not blank."""

    number: int
    """From 1."""
    content: bytes
    """Without its line end."""
    whole: bool
    """Whether it had one; only the last line of a file that was cut off has none."""


def bounded_lines(path: str | Path, packed: bool | None = None) -> Iterator[Line]:
    """The lines of a file that are not blank, one at a time, unpacked where its name ends in `.gz` (or `packed`).

    Raises OSError as `open_regular` does, for a line or a file that is too long and for a million blank lines in a row;
    EOFError, gzip.BadGzipFile and zlib.error for a packed file that is not whole.
    """
    unpack = str(path).endswith(".gz") if packed is None else packed
    with open_regular(path) as raw, gzip.GzipFile(fileobj=raw) if unpack else contextlib.nullcontext(raw) as file:
        number = total = blank = 0
        while line := file.readline(MOST_LINE_BYTES + 1):
            number, total = number + 1, total + len(line)
            blank = 0 if line.strip() else blank + 1
            if len(line) > MOST_LINE_BYTES:
                raise OSError(errno.EFBIG, f"its line {number} has more than {MOST_LINE_BYTES:,} bytes", str(path))
            if total > MOST_LINES_BYTES:
                raise OSError(errno.EFBIG, f"it unpacks to more than {MOST_LINES_BYTES:,} bytes", str(path))
            if blank > MOST_BLANK_LINES:
                raise OSError(errno.EFBIG, f"it has {blank:,} blank lines in a row up to line {number:,}", str(path))
            if not blank:
                yield Line(number, line.removesuffix(b"\n").removesuffix(b"\r"), line.endswith(b"\n"))


def unpacked_bounded(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a gzip file. Raises as `bounded_lines` does, and OSError for more than `most` bytes."""
    with open_regular(path) as raw, gzip.GzipFile(fileobj=raw) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it unpacks to more than {most:,} bytes, the most that is read", str(path))
    return data


GZIP_ERRORS = (gzip.BadGzipFile, zlib.error)


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


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, which raises ValueError for text that is nested too deep as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def json_lines(path: Path, *, quiet: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. A last line that a kill left half written is passed over; any other line that
    is no object is passed over too, and their number is said on standard error unless `quiet`."""
    if not path.is_file():
        return
    damaged: list[int] = []
    for line in bounded_lines(path, packed=False):
        try:
            value = parse_json(line.content.decode("utf-8", "replace"))
        except ValueError:
            value = None
        if isinstance(value, dict):
            yield value
        elif line.whole:
            damaged.append(line.number)
    if damaged and not quiet:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        print(f"inlay: {path}: line {damaged[0]}{more} is damaged and left out", file=sys.stderr)


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises BadInput, which names the file, for one that is missing, too big, no UTF-8, no JSON, nested too deep or not
    an object.
    """
    try:
        data = parse_json(read_bounded_text(path))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadInput(f"damaged {path}: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"damaged {path}: it is no object")
    return data


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
