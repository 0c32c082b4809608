"""Writing a token store so that it is there whole or not at all.

Everything goes to a hidden folder beside the target, is synced, and gets the target's name at the very end; the
manifest is written last. A lock held on a file in that folder tells the folder of a running prepare from one whose
process died, and the next prepare removes the latter. It refuses a target that exists, and with `overwrite` it still
refuses to replace what is no token store.
"""

import contextlib
import datetime as dt
import fcntl
import os
import shutil
import time
import uuid
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from inlay.config import BadInput
from inlay.config.files import disk_errors, sync_folder
from inlay.text.document import Document
from inlay.text.store import MANIFEST, VERSION, TokenStore, hash_file, manifest_text
from inlay.text.syntax_code import pack_nodes
from inlay.text.tokenizer import Tokenizer

DEFAULT_SHARD_BYTES = 1 << 28
_LOCK = "lock"
_UNLOCKED_GRACE_SECONDS = 3600
_PENDING_TOKENS = 1 << 20
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("repo", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("source", pa.string()),
        ("shard", pa.int32()),
        ("token_offset", pa.int64()),
        ("token_count", pa.int64()),
        ("byte_count", pa.int64()),
    ]
)


class StoreWriter:
    """Writes one store; a context manager. Leaving it without `commit` removes everything it wrote.

    Raises BadInput when the target exists (see `check_target`), InlayError in one line when the disk fails.
    """

    def __init__(
        self, path: str | Path, tokenizer: Tokenizer, *, overwrite: bool = False, shard_bytes: int = DEFAULT_SHARD_BYTES
    ) -> None:
        self.path = Path(os.path.abspath(path))
        check_target(self.path, overwrite)
        self._tokenizer = tokenizer
        self._overwrite = overwrite
        self._shard_bytes = shard_bytes
        self.dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
        self._splits: dict[str, _SplitWriter] = {}
        self._lock: BinaryIO | None = None
        self._temporary = self.path.with_name(f".{self.path.name}.partial-{uuid.uuid4().hex[:12]}")

    def __enter__(self) -> "StoreWriter":
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            clean_stale(self.path)
            self._temporary.mkdir()
            self._lock = open(self._temporary / _LOCK, "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for split in self._splits.values():
            split.abandon()
        shutil.rmtree(self._temporary, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def add(
        self,
        split: str,
        document: Document,
        ids: np.ndarray,
        starts: np.ndarray,
        spans: np.ndarray | bytes | None = None,
    ) -> None:
        """Appends a document to a split.

        ids [T] token ids; starts bool [T], true where a pre-token starts; spans int32 [N, 3] byte start, byte end,
        number of the node kind (`span_kinds` among the fields of `commit`), sorted by start; or these packed by
        `pack_nodes`; or None. A document never straddles shards.
        """
        if len(ids) != len(starts):
            raise ValueError(f"{len(ids)} ids but {len(starts)} pre-token starts")
        with disk_errors(self.path):
            if split not in self._splits:
                self._splits[split] = _SplitWriter(self._temporary / split, self.dtype, self._shard_bytes)
            self._splits[split].add(document, ids, starts, spans)

    def commit(self, fields: dict[str, Any]) -> TokenStore:
        """Finishes the store under its final name and opens it. `fields` join the manifest (seed, config, split,
        dropped).
        """
        with disk_errors(self.path):
            self._tokenizer.save(self._temporary / "tokenizer")
            counts = {name: self._splits[name].finish() for name in sorted(self._splits)}
            files = sorted(file for file in self._temporary.rglob("*") if file.is_file() and file.name != _LOCK)
            for file in files:
                _sync(file)
            manifest = {
                "version": VERSION,
                "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "dtype": self.dtype,
                "vocab_size": self._tokenizer.vocab_size,
                "tokenizer_hash": self._tokenizer.hash,
                "splits": counts,
                "split_by": None,
                "span_kinds": [],
                **fields,
                "files": {
                    file.relative_to(self._temporary).as_posix(): {
                        "bytes": file.stat().st_size,
                        "hash": hash_file(file),
                    }
                    for file in files
                },
            }
            manifest_file = self._temporary / MANIFEST
            manifest_file.write_text(manifest_text(manifest), encoding="utf-8")
            _sync(manifest_file)
            for folder in [*(entry for entry in self._temporary.iterdir() if entry.is_dir()), self._temporary]:
                sync_folder(folder)
            (self._temporary / _LOCK).unlink()
            self._take_name()
        return TokenStore.open(self.path, verify=False)

    def _take_name(self) -> None:
        check_target(self.path, self._overwrite)
        old = self.path.with_name(f".{self.path.name}.old-{uuid.uuid4().hex[:12]}")
        replaced = self.path.exists()
        if replaced:
            os.rename(self.path, old)
        try:
            os.rename(self._temporary, self.path)
        except BaseException:
            if replaced:
                os.rename(old, self.path)
            raise
        sync_folder(self.path.parent)
        if replaced:
            shutil.rmtree(old, ignore_errors=True)


class _SplitWriter:
    """Shards and index of one split."""

    def __init__(self, folder: Path, dtype: str, shard_bytes: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._shard_tokens = max(1, shard_bytes // self._dtype.itemsize)
        self._rows: dict[str, list[Any]] = {field.name: [] for field in _SCHEMA}
        self._shard = -1
        self._offset = 0
        self._tokens: BinaryIO | None = None
        self._starts: BinaryIO | None = None
        self._pending: list[np.ndarray] = []
        self._pending_count = 0
        self._spans: BinaryIO | None = None
        self._span_offsets = [0]

    def add(self, document: Document, ids: np.ndarray, starts: np.ndarray, spans: np.ndarray | bytes | None) -> None:
        if self._tokens is None or (self._offset and self._offset + len(ids) > self._shard_tokens):
            self._next_shard()
        assert self._tokens is not None
        self._tokens.write(ids.astype(self._dtype, copy=False).tobytes())
        self._pending.append(starts.astype(bool, copy=False))
        self._pending_count += len(starts)
        if self._pending_count >= _PENDING_TOKENS:
            self._write_starts(last=False)
        row = (document.id, document.path, document.repo, document.language, document.licence, document.source)
        row += (self._shard, self._offset, len(ids), len(document.text.encode()))
        for column, value in zip(self._rows.values(), row, strict=True):
            column.append(value)
        self._offset += len(ids)
        packed = (
            spans if isinstance(spans, bytes) else b"" if spans is None else pack_nodes(np.asarray(spans, np.int32))
        )
        if packed:
            if self._spans is None:
                self._spans = open(self._folder / "spans.bin", "wb")  # noqa: SIM115 (closed in finish)
            self._spans.write(packed)
        self._span_offsets.append(self._span_offsets[-1] + len(packed))

    def finish(self) -> dict[str, Any]:
        """Closes the files, writes the index and gives the counts for the manifest."""
        self._close_shard()
        if self._spans is not None:
            self._spans.close()
        table = pa.table(self._rows, schema=_SCHEMA)
        parquet.write_table(table, self._folder / "documents.parquet", compression="zstd")
        np.save(self._folder / "span_offsets.npy", np.array(self._span_offsets, np.int64))
        rows = self._rows
        return {
            "documents": len(rows["id"]),
            "tokens": sum(rows["token_count"]),
            "bytes": sum(rows["byte_count"]),
            "shards": self._shard + 1,
            "languages": self._totals("language"),
            "licences": dict(sorted(Counter(licence or "unknown" for licence in rows["licence"]).items())),
            "repos": self._totals("repo"),
        }

    def abandon(self) -> None:
        """Closes the files as they are."""
        for file in (self._tokens, self._starts, self._spans):
            if file is not None:
                # A full disk can make closing fail once more; the first error is the one to show.
                with contextlib.suppress(OSError):
                    file.close()

    def _totals(self, key: str) -> dict[str, dict[str, int]]:
        totals: dict[str, dict[str, int]] = {}
        for name, tokens, size in zip(
            self._rows[key], self._rows["token_count"], self._rows["byte_count"], strict=True
        ):
            entry = totals.setdefault(name, {"documents": 0, "tokens": 0, "bytes": 0})
            entry["documents"] += 1
            entry["tokens"] += tokens
            entry["bytes"] += size
        return dict(sorted(totals.items()))

    def _next_shard(self) -> None:
        self._close_shard()
        self._shard += 1
        self._offset = 0
        self._tokens = open(self._folder / f"tokens-{self._shard:05d}.bin", "wb")  # noqa: SIM115 (closed with the shard)
        self._starts = open(self._folder / f"starts-{self._shard:05d}.bin", "wb")  # noqa: SIM115 (closed with the shard)

    def _close_shard(self) -> None:
        if self._tokens is None or self._starts is None:
            return
        self._write_starts(last=True)
        self._tokens.close()
        self._starts.close()

    def _write_starts(self, last: bool) -> None:
        assert self._starts is not None
        bits = np.concatenate([np.zeros(0, bool), *self._pending])
        whole = len(bits) if last else len(bits) // 8 * 8
        self._starts.write(np.packbits(bits[:whole], bitorder="little").tobytes())
        self._pending = [bits[whole:].copy()]
        self._pending_count = len(bits) - whole


def check_target(path: Path, overwrite: bool) -> None:
    """Raises BadInput when a store may not be written to `path`: it exists, or is something else than a store."""
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    if not path.exists() and not path.is_symlink():
        return
    if not (path / MANIFEST).is_file():
        raise BadInput(f"'{path}' exists and is no token store; choose another place (out=DIR)")
    if not overwrite:
        raise BadInput(f"'{path}' exists; choose another place (out=DIR) or say overwrite=true")


def clean_stale(path: Path) -> None:
    """Removes what dead processes left beside `path`; gives an overwritten store its name back if the new one never
    came.
    """
    for old in path.parent.glob(f".{path.name}.old-*"):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)
    for folder in path.parent.glob(f".{path.name}.partial-*"):
        try:
            with open(folder / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        except OSError:
            # Between making the folder and its lock, or between unlocking and renaming: alive, unless it is old.
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _UNLOCKED_GRACE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def _sync(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())
