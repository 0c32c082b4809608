"""Held-out losses by document: what a validation leaves behind so that its numbers can be given intervals.

    RUN/validation.json   {version, step, tokens, store, length, rows, documents: [id ...],
                           kinds: {KIND: {digest, documents, nats, targets, text_nats, bytes}}}

It is that of the last validation, as sums for each document that its rows hold a piece of: pieces of one document
resemble each other, so documents, not rows, are what a bootstrap may draw. `documents` of a kind numbers the ids above;
nats per token is sum(nats) / sum(targets), bits per byte sum(text_nats) / (ln 2 * sum(bytes)). `digest` tells whether
another run was asked for the very same tokens of the same documents, without which two runs are not paired.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from inlay.config.files import parse_json, read_bounded_text

FILE = "validation.json"
VERSION = 1
_COLUMNS = ("nats", "targets", "text_nats", "bytes")


@dataclass(frozen=True, eq=False)
class Sums:
    """One kind of validation rows; every array [D], a document each.

    `nats` over `targets` tokens of any sort; `text_nats` over the `bytes` of those that are text."""

    digest: str
    documents: tuple[str, ...]
    nats: np.ndarray
    targets: np.ndarray
    text_nats: np.ndarray
    bytes: np.ndarray

    @property
    def nats_per_token(self) -> float:
        """The mean over every token."""
        return float(self.nats.sum() / self.targets.sum())

    @property
    def bits_per_byte(self) -> float | None:
        """None where no target is text."""
        size = self.bytes.sum()
        return float(self.text_nats.sum() / (math.log(2.0) * size)) if size else None


@dataclass(frozen=True, eq=False)
class Validated:
    """The last validation of a run; `store` is the hash of its store's manifest."""

    step: int
    store: str
    length: int
    rows: int
    kinds: dict[str, Sums]


def sums_by_document(
    documents: np.ndarray,
    targets: np.ndarray,
    nats: np.ndarray,
    sizes: np.ndarray,
    chosen: np.ndarray,
    text: np.ndarray,
) -> dict[str, Any]:
    """The entry of one kind, from its slots [N] in the order of the rows.

    `documents` int: number of the slot's document; `targets` int: the id to predict; `nats` its loss; `sizes` its
    bytes; `chosen` bool: slots of this kind; `text` bool: those of them whose target is text.
    """
    if not chosen.any():
        raise ValueError("no slot is of this kind")
    present, index = np.unique(documents[chosen], return_inverse=True)
    is_text = text[chosen].astype(np.float64)

    def total(values: np.ndarray) -> list[float]:
        return np.bincount(index, values, minlength=len(present)).tolist()

    asked = xxhash.xxh3_64(targets[chosen].astype("<i4").tobytes())
    asked.update(documents[chosen].astype("<i4").tobytes())
    return {
        "digest": asked.hexdigest(),
        "documents": present.tolist(),
        "nats": total(nats[chosen]),
        "targets": total(np.ones(len(index))),
        "text_nats": total(nats[chosen] * is_text),
        "bytes": total(sizes[chosen] * is_text),
    }


def validation_record(
    step: int, tokens: int, store: str, length: int, rows: int, documents: Sequence[str], kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole file's content; `kinds` by name as `sums_by_document` gives them, `documents` the ids they number."""
    return {
        "version": VERSION,
        "step": step,
        "tokens": tokens,
        "store": store,
        "length": length,
        "rows": rows,
        "documents": list(documents),
        "kinds": dict(kinds),
    }


def read_validation(run: str | Path) -> Validated | None:
    """What RUN/validation.json holds; None where it is missing, damaged or of another version."""
    try:
        record = parse_json(read_bounded_text(Path(run) / FILE))
        if record["version"] != VERSION:
            return None
        ids = tuple(map(str, record["documents"]))
        kinds = {str(name): _sums(entry, ids) for name, entry in record["kinds"].items()}
        sizes = (int(record["step"]), str(record["store"]), int(record["length"]), int(record["rows"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return Validated(*sizes, kinds)


def _sums(entry: dict[str, Any], ids: tuple[str, ...]) -> Sums:
    documents = tuple(ids[int(number)] for number in entry["documents"])
    columns = [np.array(entry[name], dtype=np.float64) for name in _COLUMNS]
    if not documents or any(column.shape != (len(documents),) for column in columns):
        raise ValueError("columns of different lengths")
    if not all(np.isfinite(column).all() for column in columns) or not (columns[1] > 0).all():
        raise ValueError("a sum is not a number")
    # The ids belong to what is asked: the same tokens of other documents are another question.
    digest = xxhash.xxh3_64_hexdigest("\n".join([str(entry["digest"]), *documents]).encode())
    return Sums(digest, documents, *columns)
