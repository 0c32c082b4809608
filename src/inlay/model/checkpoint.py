"""Checkpoint folders: which are complete and undamaged, and how one is written whole or not at all.

    step-N/weights.safetensors    master weights by parameter name, whole
           optimizer.safetensors  optimizer state by parameter name and quantity; from several processes that share it
                                  optimizer-1-of-W.safetensors ..., one each
           checkpoint.json        step, model, loader state ... and the hash of each file and of itself; written last

A folder is written under a temporary name, synced and renamed. Readers check hashes: a flipped byte or a missing file
makes a checkpoint one that is skipped, with the reason.
"""

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from inlay.config import InlayError
from inlay.config.files import disk_errors, open_regular, parse_json, read_bounded_text, sync_folder, write_synced

RECORD = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
SEAL = "record_hash"
ALL = "*"
"""Stands for every file that a record names."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by their names in a safetensors file."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], record: dict[str, Any]) -> None:
    """Writes `folder` with one safetensors file per entry of `tensors`, and `record` as its checkpoint.json.

    `record` holds at least step, model and vocab_size. Raises InlayError in one line on a full disk; what was there
    before stays as it was.
    """
    temporary = temporary_name(folder)
    with disk_errors(folder):
        try:
            begin(temporary)
            hashes = {name: write_tensors(temporary / name, content) for name, content in tensors.items()}
            commit(temporary, folder, record, hashes)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def temporary_name(folder: Path, owner: str | None = None) -> Path:
    """Where `folder` is written until it is whole: beside it, under a name that says who writes (`own_name`)."""
    return folder.with_name(f".{folder.name}.{owner or own_name()}.tmp")


def own_name() -> str:
    """HOST.PROCESS of this process."""
    return f"{_host()}.{os.getpid()}"


def begin(temporary: Path) -> None:
    """Makes an empty `temporary` folder, whatever was there."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Writes one safetensors file, tensor by tensor and synced, and returns its hash; see `write_synced`."""
    # Wide types first, as the library does it: each tensor is then aligned to its own size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def blocks() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data

    if sys.byteorder != "little":
        raise InlayError("checkpoints are little-endian, and this machine is not: they cannot be written here")
    return write_synced(path, blocks())


def commit(temporary: Path, folder: Path, record: dict[str, Any], hashes: dict[str, str]) -> None:
    """Makes the checkpoint `folder` of a `temporary` one whose files, with these hashes, are all written and synced."""
    text = seal({**record, "hashes": hashes, "complete": True})
    write_synced(temporary / RECORD, [text.encode("utf-8")])
    sync_folder(temporary)
    old = _set_aside(folder)  # the same step again, after a resume from an earlier one
    try:
        temporary.rename(folder)
    except OSError:
        if old is not None:
            old.rename(folder)
        raise
    sync_folder(folder.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a checkpoint, if it is there; killed half-way it leaves none that a reader would find in parts."""
    aside = _set_aside(folder)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _set_aside(folder: Path) -> Path | None:
    """Where a checkpoint stands after this, under a name that no reader looks at; None when there is none."""
    aside = folder.with_name(f".{folder.name}.removed.{own_name()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    if not folder.exists():
        return None
    folder.rename(aside)
    return aside


def seal(record: dict[str, Any]) -> str:
    """The text of a record with a hash of its own content: a changed step would resume as another run."""
    content = {key: value for key, value in record.items() if key != SEAL}
    return json.dumps({**content, SEAL: record_hash(content)}, indent=1)


def clear_unfinished(run: Path, alone: bool = False) -> None:
    """Removes what processes have left that were killed while writing or removing a checkpoint of this run.

    What a process of another machine has left is taken for that only with `alone`: the caller holds the run's lock.
    """
    for left in (run / "checkpoints").glob(".step-*.tmp"):
        parts = left.name.split(".")
        ours = len(parts) < 5 or parts[-3] == _host()  # names from before they had the host are ours
        number = parts[-2]
        if number.isascii() and number.isdecimal() and (not _is_alive(int(number)) if ours else alone):
            shutil.rmtree(left, ignore_errors=True)


def folders(run: Path) -> list[Path]:
    """The checkpoint folders of a run directory, newest first; unfinished temporary ones are not among them."""
    found = {}
    for folder in (run / "checkpoints").glob("step-*"):
        number = folder.name.removeprefix("step-")
        if number.isascii() and number.isdecimal() and folder.is_dir():
            found[int(number)] = folder
    return [found[step] for step in sorted(found, reverse=True)]


def read_record(folder: Path, *files: str) -> dict[str, Any]:
    """The record of a checkpoint whose named files match their hashes. Raises InlayError that says what is wrong."""
    try:
        record = parse_json(read_bounded_text(folder / RECORD))
        recorded = dict(record["hashes"])
        hashes = recorded if ALL in files else {name: recorded[name] for name in files}
        own = record_hash(record)
        sealed = record.get(SEAL, own) == own  # a flipped byte in the name of the seal has changed nothing else
        complete = bool(record["complete"]) and {"model", "vocab_size", "step"} <= record.keys()
    except FileNotFoundError:
        raise InlayError(f"it has no {RECORD}: it was never finished") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InlayError(f"its {RECORD} is damaged ({type(error).__name__})") from None
    if not sealed:
        raise InlayError(f"{RECORD} does not match its own hash: a byte has changed")
    if not complete:
        raise InlayError("it was never finished")
    for name, expected in hashes.items():
        check_file(folder, name, expected)
    return record


def check_file(folder: Path, name: str, expected: str) -> None:
    """Raises InlayError that says what is wrong unless a file of a checkpoint has the hash that its record names."""
    try:
        found = file_hash(folder / name)
    except OSError as error:
        raise InlayError(f"{name} cannot be read ({error.strerror})") from None
    if found != expected:
        raise InlayError(f"{name} does not match its recorded hash: a byte has changed")


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint."""
    try:
        return load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise InlayError(f"{name} cannot be read ({type(error).__name__})") from None


def newest_good(candidates: list[Path], *files: str) -> tuple[Path, dict[str, Any], list[str]]:
    """The first of `candidates` whose record and named files are undamaged, and a line for each that was skipped.

    Raises InlayError with the last reason when none is good.
    """
    reasons: list[tuple[Path, str]] = []
    for folder in candidates:
        try:
            record = read_record(folder, *files)
        except InlayError as error:
            reasons.append((folder, str(error)))
        else:
            return folder, record, skipped(reasons, folder)
    raise none_good(reasons)


def skipped(reasons: list[tuple[Path, str]], taken: Path) -> list[str]:
    """A line for each damaged checkpoint, with its reason, that was passed over for `taken`."""
    return [f"skipped {bad}: {reason}; taking {taken.name}" for bad, reason in reasons]


def none_good(reasons: list[tuple[Path, str]]) -> InlayError:
    """The error when every candidate is damaged, or when there is none."""
    if not reasons:
        return InlayError("there is no checkpoint to read")
    folder, reason = reasons[-1]
    if len(reasons) == 1:
        return InlayError(f"cannot read {folder}: {reason}")
    run = folder.parent.parent
    return InlayError(f"none of the {len(reasons)} checkpoints in {run} can be read; the last: {reason}")


def file_hash(path: Path) -> str:
    """xxh3_128 of a file's content, hexadecimal. Raises OSError, also for what is no regular file."""
    digest = xxhash.xxh3_128()
    with open_regular(path) as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def record_hash(record: dict[str, Any]) -> str:
    """xxh3_128 of what a record says, its own seal left out, hexadecimal."""
    content = {key: value for key, value in record.items() if key != SEAL}
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def system_error(error: SafetensorError) -> OSError | None:
    """The system's error that safetensors has wrapped into its own text ("... (os error 28)")."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _host() -> str:
    """This machine's name, as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return process != os.getpid()
