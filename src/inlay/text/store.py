"""The token store as readers see it: a folder that proves itself when opened, and splits that hand out views.

    STORE/manifest.json                      counts, hashes of every file, origin; see `inlay.text.writer`
    STORE/tokenizer/                         tokenizer.json, tokenizer_config.json
    STORE/{train,validation}/tokens-NNNNN.bin    ids, uint16 or uint32, documents one after the other without end tokens
                             starts-NNNNN.bin    one bit per token (little bit order): a pre-token starts there
                             documents.parquet   origin, shard, token offset and counts of each document
                             span_offsets.npy    int64 [D+1], bytes of spans.bin that belong to each document
                             spans.bin           syntax nodes, packed (`inlay.text.syntax_code`); not there without any

It refuses a store with a missing, changed or unknown file by naming that file. Readers never write.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import xxhash

from inlay.config import BadInput, InlayError
from inlay.config.files import open_regular, parse_json, read_bounded
from inlay.text.syntax_code import unpack_nodes
from inlay.text.tokenizer import Tokenizer

VERSION = 2
MANIFEST = "manifest.json"
_CONTENT_KEYS = ("version", "dtype", "tokenizer_hash", "files", "splits", "split_by", "span_kinds")
_HASH_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """Where a stored document came from, and its size."""

    id: str
    path: str
    repo: str
    language: str
    licence: str | None
    source: str
    tokens: int
    bytes: int


class StoreSplit:
    """The documents of one split, D of them, in a fixed order. Cheap to open; a pickled one opens its files again."""

    def __init__(self, folder: Path, dtype: str, tokenizer_folder: Path) -> None:
        self._folder = folder
        self._dtype = dtype
        self._tokenizer_folder = tokenizer_folder
        self._shards: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def document_count(self) -> int:
        return len(self.lengths)

    @cached_property
    def token_count(self) -> int:
        return int(self.lengths.sum())

    @cached_property
    def byte_count(self) -> int:
        return int(self.byte_lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64 [D]."""
        return self._columns["token_count"]

    @property
    def byte_lengths(self) -> np.ndarray:
        """UTF-8 bytes of each document, int64 [D]."""
        return self._columns["byte_count"]

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Ids `start` to `stop` of a document: a read-only view, uint16 or uint32 [stop - start], no end token."""
        offset, first, last = self._range(index, start, stop)
        return self._shard(index)[0][offset + first : offset + last]

    def pretoken_starts(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """For each token of the range whether a pre-token starts there, bool [stop - start]."""
        offset, first, last = self._range(index, start, stop)
        first, last = offset + first, offset + last
        packed = self._shard(index)[1][first // 8 : (last + 7) // 8]
        bits = np.unpackbits(packed, bitorder="little")
        return bits[first % 8 : first % 8 + last - first].view(bool)

    def spans(self, index: int) -> np.ndarray:
        """Syntax nodes of a document in preorder, int32 [N, 3]: byte start, byte end, index into the `span_kinds` of
        the manifest. N is 0 where the document was not parsed, or did not parse.
        """
        offsets, packed = self._spans
        return unpack_nodes(packed[offsets[index] : offsets[index + 1]])

    def document(self, index: int) -> DocumentInfo:
        """Origin of a document."""
        rows = self._origins
        return DocumentInfo(
            **{name: rows[name][index].as_py() for name in ("id", "path", "repo", "language", "licence", "source")},
            tokens=int(self.lengths[index]),
            bytes=int(self.byte_lengths[index]),
        )

    def text(self, index: int) -> str:
        """The exact text of a document."""
        return self._tokenizer.decode_bytes(self.tokens(index).tolist()).decode()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "_folder": self._folder,
            "_dtype": self._dtype,
            "_tokenizer_folder": self._tokenizer_folder,
            "_shards": {},
        }

    def __len__(self) -> int:
        return self.document_count

    def __repr__(self) -> str:
        return f"StoreSplit({self._folder}, {self.document_count} documents, {self.token_count} tokens)"

    def _range(self, index: int, start: int, stop: int | None) -> tuple[int, int, int]:
        if not 0 <= index < self.document_count:
            raise IndexError(f"document {index} of {self.document_count} in {self._folder}")
        offset, length = int(self._columns["token_offset"][index]), int(self.lengths[index])
        if stop is not None and 0 <= start <= stop <= length:  # as readers of rows ask
            return offset, start, stop
        first, last, _ = slice(start, stop).indices(length)
        return offset, first, max(first, last)

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        names = ["shard", "token_offset", "token_count", "byte_count"]
        table = parquet.read_table(self._folder / "documents.parquet", columns=names)
        return {name: table[name].to_numpy() for name in names}

    @cached_property
    def _origins(self) -> Any:
        return parquet.read_table(self._folder / "documents.parquet")

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.load(self._folder / "span_offsets.npy")
        if not offsets[-1]:
            return offsets, np.zeros(0, np.uint8)
        return offsets, np.memmap(self._folder / "spans.bin", np.uint8, "r").view(np.ndarray)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self._tokenizer_folder)

    def _shard(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number = int(self._columns["shard"][index])
        if number not in self._shards:
            # Plain array views: slicing a memmap object itself costs ten times as much.
            tokens = np.memmap(self._folder / f"tokens-{number:05d}.bin", self._dtype, "r").view(np.ndarray)
            starts = np.memmap(self._folder / f"starts-{number:05d}.bin", np.uint8, "r").view(np.ndarray)
            self._shards[number] = (tokens, starts)
        return self._shards[number]


class TokenStore:
    """A prepared corpus. Open it with `TokenStore.open`; picklable (a pickled one does not verify again)."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._splits: dict[str, StoreSplit] = {}

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> "TokenStore":
        """Opens a store; `verify` compares the content hash of every file with the manifest (else only sizes).

        Raises BadInput when `path` is no store or of an unknown version, InlayError that names the file when one is
        missing or changed.
        """
        path = Path(path)
        manifest = _read_manifest(path)
        for name, expected in manifest["files"].items():
            file = path / name
            try:
                size = file.stat().st_size
                if size != expected["bytes"]:
                    raise InlayError(
                        f"damaged token store: {file} has {size} bytes, not {expected['bytes']}; prepare it again"
                    )
                if verify and hash_file(file) != expected["hash"]:
                    raise InlayError(f"damaged token store: {file} does not match its hash; prepare it again")
            except OSError as error:
                raise InlayError(
                    f"damaged token store: cannot read {file}: {error.strerror}; prepare it again"
                ) from None
        return cls(path, manifest)

    @property
    def hash(self) -> str:
        """Hash of the content (files, counts, tokenizer), without dates and paths of this machine."""
        return self.manifest["content_hash"]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / "tokenizer")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest["splits"])

    def split(self, name: str) -> StoreSplit:
        """The split called `name`. Raises BadInput that lists what there is."""
        if name not in self.manifest["splits"]:
            raise BadInput(f"token store {self.path} has no split '{name}'; it has {', '.join(self.splits)}")
        if name not in self._splits:
            self._splits[name] = StoreSplit(self.path / name, self.manifest["dtype"], self.path / "tokenizer")
        return self._splits[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "manifest": self.manifest, "_splits": {}}

    def __repr__(self) -> str:
        return f"TokenStore({self.path}, {self.hash[:8]})"


def hash_file(path: Path) -> str:
    """xxh3_128 of a file's bytes, hexadecimal. Raises OSError, also for what is no regular file."""
    digest = xxhash.xxh3_128()
    with open_regular(path) as file:
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_text(fields: dict[str, Any]) -> str:
    """The manifest as written: `fields` with the hash of their content part and the hash of everything."""
    content = {key: fields[key] for key in _CONTENT_KEYS}
    sealed = {**fields, "content_hash": _digest(content)}
    return _dump({**sealed, "manifest_hash": _digest(sealed)})


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _digest(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.is_dir() or not file.is_file():
        what = "it has no manifest.json" if path.is_dir() else "no such folder"
        raise BadInput(f"not a token store: {path} ({what}); make one with 'inlay prepare out={path}'")
    damaged = InlayError(f"damaged token store: {file} does not match its hash; prepare it again")
    try:
        data = read_bounded(file)
        manifest = parse_json(data)
    except OSError as error:
        raise InlayError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(manifest, dict):
        raise damaged
    version = manifest.get("version")
    if isinstance(version, int) and version != VERSION:
        raise BadInput(f"{file} has version {version}, this inlay reads version {VERSION}; prepare the store again")
    sealed = {key: value for key, value in manifest.items() if key != "manifest_hash"}
    if _digest(sealed) != manifest.get("manifest_hash") or _dump(manifest).encode() != data:
        raise damaged
    return manifest
