"""Files that never end, or unpack to more than a memory, are refused in a line, by every reader and every verb."""

import contextlib
import gzip
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from inlay.config import BadInput, ConfigError
from inlay.config import files as files_module
from inlay.config.files import bounded_lines, open_regular, read_bounded, read_bounded_text, unpacked_bounded
from inlay.config.yaml_file import dump_yaml, load_yaml
from inlay.evaluate.rows import read_rows
from inlay.evaluate.task import Place
from inlay.model import checkpoint
from inlay.text.store import hash_file

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)


@pytest.fixture
def odd(tmp_path):
    """What is no file: by name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    return {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path / "folder"}


@pytest.mark.parametrize("name", ["pipe", "device", "folder"])
@pytest.mark.parametrize("reader", [open_regular, read_bounded, read_bounded_text, unpacked_bounded])
def test_what_is_no_file_is_refused_at_once(odd, name, reader):
    began = time.monotonic()
    with pytest.raises(OSError, match=r"it is a (pipe|device), not a file|is a directory"):
        reader(odd[name])
    with pytest.raises(OSError, match=r"it is a (pipe|device), not a file|is a directory"):
        next(bounded_lines(odd[name]))
    assert time.monotonic() - began < 5


@contextlib.contextmanager
def one_writer_at_last(pipe: Path):
    """Ends the wait of who opens a pipe and waits for its writer, so that a test fails and does not hang."""

    def come() -> None:
        with contextlib.suppress(OSError):  # nobody waits
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(5, come)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("read", [checkpoint.file_hash, hash_file])
@pytest.mark.parametrize("name", ["pipe", "device"])
def test_what_is_no_file_has_no_hash(odd, name, read):
    with one_writer_at_last(odd["pipe"]), pytest.raises(OSError, match=f"it is a {name}, not a file"):
        # /dev/zero would be hashed for ever.
        read(odd[name] if name == "pipe" else Path(os.devnull))


def test_parquet_of_a_pipe_is_a_line(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with one_writer_at_last(tmp_path / "a.parquet"), pytest.raises(BadInput, match="it is a pipe, not a file"):
        read_rows(Place(data=str(tmp_path / "a.parquet")), "humaneval_infilling")


def test_a_checkpoint_whose_weights_are_a_pipe_is_passed_over(tmp_path):
    for step in (1, 2):
        folder = tmp_path / "checkpoints" / f"step-{step}"
        record = {"step": step, "model": {}, "vocab_size": 3}
        checkpoint.write(folder, {checkpoint.WEIGHTS: {"a": torch.ones(3)}}, record)
    (folder / checkpoint.WEIGHTS).unlink()
    os.mkfifo(folder / checkpoint.WEIGHTS)
    with one_writer_at_last(folder / checkpoint.WEIGHTS):
        taken, _, skipped = checkpoint.newest_good(checkpoint.folders(tmp_path), checkpoint.WEIGHTS)
    assert taken.name == "step-1"
    assert f"{checkpoint.WEIGHTS} cannot be read (it is a pipe, not a file)" in skipped[0]


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "nothing")


def test_a_file_of_just_the_most_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
    (tmp_path / "b").write_text("\ufeffgrün", encoding="utf-8")
    assert read_bounded_text(tmp_path / "b") == "grün"


def test_lines_come_numbered_without_blank_ones(tmp_path):
    (tmp_path / "a").write_bytes(b"one\r\n\n  \ntwo\nthree")
    (tmp_path / "a.gz").write_bytes(gzip.compress((tmp_path / "a").read_bytes()))
    expected = [(1, b"one", True), (4, b"two", True), (5, b"three", False)]
    assert list(bounded_lines(tmp_path / "a")) == expected
    assert list(bounded_lines(tmp_path / "a.gz")) == expected


def test_lines_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MOST_LINE_BYTES", 100)
    monkeypatch.setattr(files_module, "MOST_LINES_BYTES", 1000)
    monkeypatch.setattr(files_module, "MOST_BLANK_LINES", 50)
    (tmp_path / "long").write_bytes(b"a\n" + b"b" * 101 + b"\n")
    with pytest.raises(OSError, match="line 2 has more than 100 bytes"):
        list(bounded_lines(tmp_path / "long"))
    (tmp_path / "blank.gz").write_bytes(gzip.compress(b"\n" * 900))
    with pytest.raises(OSError, match="51 blank lines in a row up to line 51"):
        list(bounded_lines(tmp_path / "blank.gz"))
    (tmp_path / "many.gz").write_bytes(gzip.compress(b"x\n" * 900))
    with pytest.raises(OSError, match="unpacks to more than 1,000 bytes"):
        list(bounded_lines(tmp_path / "many.gz"))
    with pytest.raises(OSError, match="unpacks to more than 99 bytes"):
        unpacked_bounded(tmp_path / "many.gz", 99)


def test_an_alias_bomb_is_a_line(tmp_path):
    (tmp_path / "config.yaml").write_text(BOMB)
    with pytest.raises(ConfigError, match=r"config.yaml' is not valid YAML in line 2: aliases \(\*name\) are not read"):
        load_yaml(tmp_path / "config.yaml")


def test_what_is_written_has_no_alias(tmp_path):
    shared = {"a": [1, 2]}
    (tmp_path / "config.yaml").write_text(dump_yaml({"one": shared, "two": shared}))
    assert load_yaml(tmp_path / "config.yaml") == {"one": shared, "two": shared}


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 5000 + "]" * 5000, "a: " + "{b: " * 3000 + "}" * 3000, "a: " + "9" * 5000]
)
def test_odd_yaml_is_a_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(tmp_path / "config.yaml")
    assert "config.yaml" in str(caught.value)
    assert len(str(caught.value)) < 400


def limited() -> None:
    """A child may take 4 GiB of address space and 20 s."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux alone")
@pytest.mark.parametrize("sort", ["pipe", "/dev/zero", "blank.jsonl.gz"])
@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "spans", "{}"],
        ["inspect", "plan", "--config", "{}"],
        ["prepare", "source=folder", "source.path={}", "out={out}"],
        ["evaluate", "--completions", "{}", "--task", "santacoder_fim"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_no_verb_hangs_on_what_never_ends(tmp_path, sort, words):
    place = tmp_path / sort if not sort.startswith("/") else Path(sort)
    if sort == "pipe":
        os.mkfifo(place)
    elif sort.endswith(".gz"):
        # A gigabyte of line ends in a megabyte.
        block = gzip.compress(b"\n" * (1 << 24), compresslevel=6)
        place.write_bytes(block * 64)
    line = [word.format(place, out=tmp_path / "store") for word in words]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "inlay", *line], capture_output=True, text=True, timeout=60, preexec_fn=limited
    )
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("inlay: "), done.stderr
    assert "unexpected" not in message
