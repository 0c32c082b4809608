"""Checkpoint folders: which are complete and undamaged, and how one is written whole or not at all.

    step-N/weights.safetensors    master weights by parameter name
           optimizer.safetensors  optimizer state by parameter name and quantity
           checkpoint.json        step, model, loader state ... and the hash of each file and of itself; written last

A folder is written under a temporary name, synced and renamed. Readers check hashes: a flipped byte or a missing file
makes a checkpoint one that is skipped, with the reason.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inlay.config import InlayError
from inlay.config.files import disk_errors, sync_folder

RECORD = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
SEAL = "record_hash"


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    """Writes `folder` with one safetensors file per entry of `tensors`, and `record` as its checkpoint.json.

    `record` holds at least step, model and vocab_size. Raises InlayError in one line on a full disk; what was there
    before stays as it was.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, content in tensors.items():
                try:
                    save_file({key: value.detach().contiguous() for key, value in content.items()}, temporary / name)
                except SafetensorError as error:
                    raise system_error(error) or error from None
            hashes = {name: file_hash(temporary / name) for name in tensors}
            (temporary / RECORD).write_text(seal({**record, "hashes": hashes, "complete": True}), encoding="utf-8")
            for path in temporary.iterdir():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            sync_folder(temporary)
            remove(folder)  # the same step again, after a resume from an earlier one
            temporary.rename(folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove(folder: Path) -> None:
    """Removes a checkpoint, if it is there; killed half-way it leaves none that a reader would find in parts."""
    aside = folder.with_name(f".{folder.name}.removed.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def seal(record: dict[str, Any]) -> str:
    """The text of a record with a hash of its own content: a changed step would resume as another run."""
    content = {key: value for key, value in record.items() if key != SEAL}
    return json.dumps({**content, SEAL: _record_hash(content)}, indent=1)


def clear_unfinished(run: Path) -> None:
    """Removes what processes have left that were killed while writing or removing a checkpoint of this run."""
    for left in (run / "checkpoints").glob(".step-*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def folders(run: Path) -> list[Path]:
    """The checkpoint folders of a run directory, newest first; unfinished temporary ones are not among them."""
    found = {}
    for folder in (run / "checkpoints").glob("step-*"):
        number = folder.name.removeprefix("step-")
        if number.isdigit() and folder.is_dir():
            found[int(number)] = folder
    return [found[step] for step in sorted(found, reverse=True)]


def read_record(folder: Path, *files: str) -> dict[str, Any]:
    """The record of a checkpoint whose named files match their hashes. Raises InlayError that says what is wrong."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        hashes = {name: record["hashes"][name] for name in files}
        own = _record_hash({key: value for key, value in record.items() if key != SEAL})
        sealed = record.get(SEAL, own) == own  # a flipped byte in the name of the seal has changed nothing else
        complete = bool(record["complete"]) and {"model", "vocab_size", "step"} <= record.keys()
    except FileNotFoundError:
        raise InlayError(f"it has no {RECORD}: it was never finished") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InlayError(f"its {RECORD} is damaged ({type(error).__name__})") from None
    if not sealed:
        raise InlayError(f"{RECORD} does not match its own hash: a byte has changed")
    if not complete:
        raise InlayError("it was never finished")
    for name, expected in hashes.items():
        try:
            found = file_hash(folder / name)
        except OSError as error:
            raise InlayError(f"{name} cannot be read ({error.strerror})") from None
        if found != expected:
            raise InlayError(f"{name} does not match its recorded hash: a byte has changed")
    return record


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
    reasons: list[tuple[Path, InlayError]] = []
    for folder in candidates:
        try:
            record = read_record(folder, *files)
        except InlayError as error:
            reasons.append((folder, error))
        else:
            return folder, record, [f"skipped {bad}: {reason}; taking {folder.name}" for bad, reason in reasons]
    if not reasons:
        raise InlayError("there is no checkpoint to read")
    folder, reason = reasons[-1]
    if len(reasons) == 1:
        raise InlayError(f"cannot read {folder}: {reason}")
    run = folder.parent.parent
    raise InlayError(f"none of the {len(reasons)} checkpoints in {run} can be read; the last: {reason}")


def file_hash(path: Path) -> str:
    """xxh3_128 of a file's content, hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _record_hash(record: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(record, sort_keys=True).encode())


def system_error(error: SafetensorError) -> OSError | None:
    """The system's error that safetensors has wrapped into its own text ("... (os error 28)")."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return process != os.getpid()
