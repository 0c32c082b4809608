"""Progress off a terminal: one plain line per phase; on one: bars that reach their end."""

import os
import subprocess
import sys

import pytest

from inlay.text.progress import NoProgress, RichProgress, amount_text


def test_off_a_terminal_each_phase_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RichProgress()
    with progress.phase("tokenize", 4_000_000, "bytes") as phase:
        phase.advance(1_500_000)
        phase.advance(2_500_000)
    with progress.phase("read", None, "files") as phase:
        phase.advance(3)
    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert shown.out == ""
    assert first.startswith("tokenize: 4.0 MB (")
    assert second.startswith("read: 3 files (")


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with NoProgress().phase("read", 3) as phase:
        phase.advance(3)
    assert capsys.readouterr() == ("", "")


def test_amounts() -> None:
    assert amount_text(40_100_000, 2.0, "bytes") == "40.1 MB (20.1 MB/s)"
    assert amount_text(1040, 0.5, "files") == "1,040 files (2,080 files/s)"
    assert amount_text(0, 0.0, "files") == "0 files (0 files/s)"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left() -> None:
    script = (
        "from inlay.text.progress import RichProgress\n"
        "with RichProgress().phase('tokenize', 10, 'bytes') as phase:\n    phase.advance(10)\n"
    )
    master, slave = os.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=slave, env=environment, timeout=60
    )
    os.close(slave)
    shown = os.read(master, 65_536).decode()
    os.close(master)
    assert done.returncode == 0
    assert done.stdout == b""
    assert "tokenize" in shown
    assert "MB/s" in shown
    assert "left" in shown
