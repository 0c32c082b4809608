import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from inlay.config import InlayError, files
from inlay.model import checkpoint

RECORD = {"step": 1, "model": {}, "vocab_size": 3}
FILES = (checkpoint.WEIGHTS, checkpoint.OPTIMIZER)


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        checkpoint.WEIGHTS: {"a": torch.full((64, 64), value), "view": torch.arange(12.0).reshape(3, 4).t()},
        checkpoint.OPTIMIZER: {"a|step": torch.tensor(value), "a|momentum": torch.full((64, 64), -value)},
    }


def write(run: Path, step: int, value: float | None = None) -> Path:
    folder = run / "checkpoints" / f"step-{step}"
    checkpoint.write(folder, tensors(step if value is None else value), {**RECORD, "step": step})
    return folder


def flip(file: Path, at: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    file.write_bytes(bytes(data))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    record = checkpoint.read_record(folder, *FILES)
    assert record["step"] == 3
    assert record["complete"] is True
    assert set(record["hashes"]) == set(FILES)
    for name, content in tensors(3).items():
        found = checkpoint.read_tensors(folder, name)
        assert found.keys() == content.keys()
        for key, value in content.items():
            assert torch.equal(found[key], value), key
    assert [inner.name for inner in (tmp_path / "checkpoints").iterdir()] == ["step-3"]


def test_newest_first_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    for other in ("step-x", ".step-11.77.tmp", "best"):
        (tmp_path / "checkpoints" / other).mkdir()
    (tmp_path / "checkpoints" / "step-12").write_text("a file")
    assert [folder.name for folder in checkpoint.folders(tmp_path)] == ["step-100", "step-10", "step-9"]
    assert checkpoint.folders(tmp_path / "nowhere") == []


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_skipped_with_its_reason(tmp_path: Path, name: str, at: float) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    flip(bad / name, at)
    folder, record, skipped = checkpoint.newest_good(checkpoint.folders(tmp_path), *FILES)
    assert folder == good
    assert record["step"] == 1
    assert skipped == [f"skipped {bad}: {name} does not match its recorded hash: a byte has changed; taking step-1"]


def test_any_flipped_byte_of_the_record_is_seen(tmp_path: Path) -> None:
    """The step decides the schedule and the optimizer's bias correction, so the record proves itself too."""
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    whole = (bad / checkpoint.RECORD).read_bytes()
    truth = {key: value for key, value in json.loads(whole).items() if key != checkpoint.SEAL}
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 4
        (bad / checkpoint.RECORD).write_bytes(bytes(changed))
        folder, record, skipped = checkpoint.newest_good([bad, good], *FILES)
        # Where whitespace or the name of the seal was hit, the record still says the same.
        same = {key: record.get(key) for key in truth} == truth
        assert same or (folder == good and record["step"] == 1 and len(skipped) == 1), at


@pytest.mark.parametrize("damage", ["missing", "record", "not json", "not an object", "incomplete", "empty"])
def test_other_damage(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1)
    bad = write(tmp_path, 2)
    if damage == "missing":
        (bad / checkpoint.WEIGHTS).unlink()
    elif damage == "record":
        (bad / checkpoint.RECORD).unlink()
    elif damage == "empty":
        (bad / checkpoint.OPTIMIZER).write_bytes(b"")
    else:
        text = {"not json": "{", "not an object": "[]", "incomplete": json.dumps({**RECORD, "hashes": {}})}[damage]
        (bad / checkpoint.RECORD).write_text(text)
    folder, _, skipped = checkpoint.newest_good(checkpoint.folders(tmp_path), *FILES)
    assert folder.name == "step-1"
    assert len(skipped) == 1
    assert "\n" not in skipped[0]
    assert str(bad) in skipped[0]


def test_none_good_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InlayError, match="no checkpoint"):
        checkpoint.newest_good([], *FILES)
    for step in (1, 2):
        flip(write(tmp_path, step) / checkpoint.WEIGHTS, 0.5)
    with pytest.raises(InlayError, match=r"none of the 2 checkpoints in .* can be read; the last: weights.safetensors"):
        checkpoint.newest_good(checkpoint.folders(tmp_path), *FILES)
    with pytest.raises(InlayError, match=r"cannot read .*step-2: weights"):
        checkpoint.newest_good(checkpoint.folders(tmp_path)[:1], *FILES)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = write(tmp_path, 1)

    def fail(file: BinaryIO, part: memoryview) -> None:
        if Path(file.name).name == checkpoint.OPTIMIZER:
            raise OSError(number, os.strerror(number))
        file.write(part)

    monkeypatch.setattr(files, "_put", fail)
    for step in (1, 2):
        with pytest.raises(
            InlayError, match=r"cannot write '.*step-.*': the disk (is full|quota is used up)"
        ) as caught:
            write(tmp_path, step, 77.0)
        assert caught.value.exit_status == 1
    assert [inner.name for inner in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    assert checkpoint.read_record(folder, *FILES)["step"] == 1
    assert torch.equal(checkpoint.read_tensors(folder, checkpoint.WEIGHTS)["a"], torch.full((64, 64), 1.0))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(checkpoint.DTYPES)), st.lists(st.integers(0, 5), max_size=3), st.booleans()),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_safetensors_library_reads_what_was_streamed(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[str, list[int], bool]]
) -> None:
    """The library is the witness: every type, scalars, empty tensors, views; and the hash is that of the file."""
    draw = torch.Generator().manual_seed(1)
    content = {}
    for name, (dtype, shape, view) in shapes.items():
        made = torch.randint(-2, 100, shape, generator=draw).to(checkpoint.DTYPES[dtype])
        content[name] = made.mT if view and made.ndim > 1 else made
    file = tmp_path_factory.mktemp("streamed") / "some.safetensors"
    digest = checkpoint.write_tensors(file, content, {"of": "a test"} if content else None)
    assert digest == checkpoint.file_hash(file)
    found = load_file(file)
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 1, 9.0)
    checkpoint.read_record(folder, *FILES)
    assert float(checkpoint.read_tensors(folder, checkpoint.WEIGHTS)["a"][0, 0]) == 9.0


WRITERS = """
import os, signal, sys, time
import torch
from pathlib import Path
from inlay.model import checkpoint

run = Path(sys.argv[1])
for attempt in range(12):
    child = os.fork()
    if child == 0:
        for step in range(1, 10_000):
            content = {checkpoint.WEIGHTS: {"a": torch.full((128, 128), float(step))}}
            folder = run / "checkpoints" / f"step-{step % 3 + 1}"
            checkpoint.write(folder, content, {"step": step, "model": {}, "vocab_size": 3})
    time.sleep(0.01 + attempt * 0.0037)
    os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    for folder in checkpoint.folders(run):
        record = checkpoint.read_record(folder, checkpoint.WEIGHTS)
        assert torch.all(checkpoint.read_tensors(folder, checkpoint.WEIGHTS)["a"] == record["step"]), folder
    checkpoint.clear_unfinished(run)
    assert not list((run / "checkpoints").glob(".*"))
"""


def test_sigkill_while_writing_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    """Killed at odd moments while writing without pause: every folder under a final name is whole and proves itself."""
    (tmp_path / "checkpoints").mkdir()
    done = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["-9"] * 12
    assert checkpoint.folders(tmp_path)


def test_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    dead = folder.with_name(".step-2.999999999.tmp")
    removed = folder.with_name(f".step-2.removed.{checkpoint.own_name().partition('.')[0]}.999999998.tmp")
    alive = folder.with_name(f".step-3.{os.getppid()}.tmp")
    elsewhere = folder.with_name(".step-3.another-machine.7.tmp")
    for left in (dead, removed, alive, elsewhere):
        left.mkdir()
        (left / checkpoint.WEIGHTS).write_bytes(b"half")
    checkpoint.clear_unfinished(tmp_path)
    assert [left.exists() for left in (dead, removed, alive, elsewhere)] == [False, False, True, True]
    checkpoint.clear_unfinished(tmp_path, alone=True)  # the lock says that nobody writes, here or elsewhere
    assert [left.exists() for left in (alive, elsewhere)] == [True, False]
    assert checkpoint.folders(tmp_path) == [folder]


def test_nothing_is_deleted_under_its_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill inside a deletion leaves a folder in parts, so it must not be one that readers look at."""
    write(tmp_path, 1)
    deleted: list[str] = []
    delete = checkpoint.shutil.rmtree

    def watch(folder: Path, ignore_errors: bool = False) -> None:
        deleted.append(Path(folder).name)
        delete(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watch)
    folder = write(tmp_path, 1, 5.0)
    checkpoint.remove(folder)
    checkpoint.remove(folder)  # once more does nothing
    assert deleted
    assert all(name.startswith(".") for name in deleted)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_same_step_again_costs_no_checkpoint_when_it_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, 1)
    before = (folder / checkpoint.WEIGHTS).read_bytes()
    honest = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if "removed" not in path.name and path.name.endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        return honest(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InlayError, match="cannot write"):
        write(tmp_path, 1, 5.0)
    assert (folder / checkpoint.WEIGHTS).read_bytes() == before
    assert [left.name for left in (tmp_path / "checkpoints").iterdir()] == [folder.name]


def test_a_folder_with_a_digit_that_is_no_number_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("step-²", "step-٣", "step-2"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [folder.name for folder in checkpoint.folders(tmp_path)] == ["step-2"]
