"""Checkpoint folders: which are complete and undamaged, and how one is written whole or not at all.

    step-N/weights.safetensors    master weights by parameter name
           optimizer.safetensors  optimizer state by parameter name and quantity
           checkpoint.json        step, model, loader state ... and the hash of each file; written last

A folder is written under a temporary name, synced and renamed. Readers check hashes: a flipped byte or a missing file makes
a checkpoint one that is skipped, with the reason.
"""

import json
import os
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


def write(folder: Path, tensors: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    """Writes `folder` with one safetensors file per entry of `tensors`, and `record` as its checkpoint.json.

    Raises InlayError in one line on a full disk; what was there before stays as it was.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, content in tensors.items():
                try:
                    save_file({key: value.detach().contiguous() for key, value in content.items()}, temporary / name)
                except SafetensorError as error:  # the library wraps the system's error into its own text
                    raise OSError(28, str(error)) if "No space" in str(error) else error from None
            hashes = {name: file_hash(temporary / name) for name in tensors}
            text = json.dumps({**record, "hashes": hashes, "complete": True}, indent=1)
            (temporary / RECORD).write_text(text, encoding="utf-8")
            for path in temporary.iterdir():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            sync_folder(temporary)
            if folder.exists():  # the same step again, after a resume from an earlier one
                shutil.rmtree(folder)
            temporary.rename(folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


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
        complete = bool(record["complete"]) and {"model", "vocab_size", "step"} <= record.keys()
    except FileNotFoundError:
        raise InlayError(f"it has no {RECORD}: it was never finished") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InlayError(f"its {RECORD} is damaged ({type(error).__name__})") from None
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
    """The first of `candidates` whose record and named files are undamaged, and why those before it were skipped.

    Raises InlayError with the last reason when none is.
    """
    skipped: list[str] = []
    for folder in candidates:
        try:
            return folder, read_record(folder, *files), skipped
        except InlayError as error:
            skipped.append(f"skipped {folder}: {error}")
    raise InlayError(f"no checkpoint can be read: {skipped[-1] if skipped else 'there is none'}")


def file_hash(path: Path) -> str:
    """xxh3_128 of a file's content, hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
