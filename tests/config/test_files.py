"""Atomic writes, and what a disk that refuses is answered with."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inlay.config import BadInput, InlayError
from inlay.config.files import disk_error, disk_errors, write_atomic

WRITER = """
import sys
from inlay.config.files import write_atomic
path, size = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_atomic(path, bytes([97 + number % 2]) * size)
"""


def test_writes_text_and_bytes_and_makes_parents(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", "grün\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "grün\n".encode()
    write_atomic(tmp_path / "a" / "b.txt", b"\x00\r\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\x00\r\n"
    assert [inner.name for inner in (tmp_path / "a").iterdir()] == ["b.txt"]


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_killed_write_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    target, size = tmp_path / "file", 3_000_000
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target), str(size)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    while not target.exists():
        assert process.poll() is None
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    data = target.read_bytes()
    assert data in (b"a" * size, b"b" * size)


def test_a_full_disk_keeps_the_old_file_and_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_atomic(target, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InlayError, match="the disk is full") as caught:
        write_atomic(target, "new")
    assert caught.value.exit_status == 1
    assert str(target) in str(caught.value)
    assert target.read_text() == "old"
    assert [inner.name for inner in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_real_full_device() -> None:
    with pytest.raises(InlayError, match="'/dev/full': the disk is full"), disk_errors("/dev/full"):
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [
        (errno.ENOSPC, InlayError, 1),
        (errno.EDQUOT, InlayError, 1),
        (errno.EACCES, BadInput, 2),
        (errno.EIO, InlayError, 1),
    ],
)
def test_disk_error(number: int, kind: type[InlayError], status: int) -> None:
    error = disk_error("there", OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert error.exit_status == status
    assert "'there'" in str(error)
    assert "\n" not in str(error)


def test_a_parent_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InlayError, match="cannot write") as caught:
        write_atomic(tmp_path / "file" / "inner", "x")
    assert "\n" not in str(caught.value)
