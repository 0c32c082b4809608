"""The record `inlay.json` of an exported folder: what the files do not say (format, context, facts) and their hashes.

It decides whether an export is what was written: every file that changes an answer has its hash here, and the record
has its own, with the seal of checkpoints. The model card has none, it is there to be edited. A folder without a record
is somebody else's and is taken as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import xxhash

from inlay.config import InlayError
from inlay.config.files import read_json
from inlay.fim.family import Order
from inlay.model import checkpoint

RECORD = "inlay.json"
FILES = "files"
"""Its key for the hashes of all files but the weights, by name."""
WEIGHTS = "weights"
"""Its key for the hashes of the weights, by name."""


def write(folder: Path, record: Mapping[str, Any], weights: str) -> None:
    """Writes the record of a folder whose other files are all there, the card excepted; `weights`: their file."""
    hashes = {file.name: checkpoint.file_hash(file) for file in sorted(folder.iterdir())}
    of_weights = {weights: hashes.pop(weights)}
    text = checkpoint.seal({**record, WEIGHTS: of_weights, FILES: hashes})
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None where there is none.

    Raises BadInput or InlayError for a damaged record, and for a file that is not what it says; the weights, which take
    time to read, are compared by `check_weights`.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    record = read_json(file)
    own = record.get(checkpoint.SEAL)
    if own is not None and own != checkpoint.record_hash(record):
        raise InlayError(
            f"{file} does not match its own hash, so it was changed: export again, or take its line"
            f' "{checkpoint.SEAL}" out if the change is yours'
        )
    orders, length = record.get("orders"), record.get("sequence_length")
    whole = (
        isinstance(record.get("family"), str)
        and isinstance(orders, list)
        and bool(orders)
        and all(order in get_args(Order) for order in orders)
        and type(length) is int
        and length > 0
        and isinstance(record.get("facts"), dict)
        and all(isinstance(record.get(key, {}), dict) for key in (FILES, WEIGHTS))
    )
    if not whole:
        raise InlayError(f"damaged {file}: family, orders, sequence_length or facts are not those of an export")
    for name, expected in record.get(FILES, {}).items():
        place = folder / name
        _check(place, checkpoint.file_hash(place) if place.is_file() else None, expected, FILES)
    return record


def joint_hash(hashes: Mapping[str, str]) -> str:
    """One hash for weights by file name: that of a single file, else the hash of them all."""
    *others, last = hashes.values()
    return xxhash.xxh3_128_hexdigest("".join([*others, last]).encode()) if others else last


def check_weights(folder: Path, record: Mapping[str, Any] | None, hashes: Mapping[str, str]) -> None:
    """Raises InlayError unless `hashes`, of the weights by file name, are those of the record, where there is one."""
    recorded = {} if record is None else record.get(WEIGHTS, {})
    for name, expected in recorded.items():
        _check(folder / name, hashes.get(name), expected, WEIGHTS)


def _check(file: Path, found: str | None, expected: object, key: str) -> None:
    if found == expected:
        return
    what = "is missing" if found is None else "was changed after the export"
    raise InlayError(
        f'{file} {what}: export again; if the change is yours, take its line out of "{key}" in {RECORD} and the line'
        f' "{checkpoint.SEAL}" too'
    )
