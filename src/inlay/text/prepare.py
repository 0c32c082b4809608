"""Documents to token store: read, filter, remove copies, split, parse, make a tokenizer, tokenize, write.

The sources are read once, and parsed as they are read; texts wait in a spool, in memory up to a stated size and beyond
it in a nameless file beside the store. The tokenizer sees training text only. The same inputs and configuration give
byte-identical files, whatever the number of threads and processes. It refuses a corpus with nothing in it, and one that
cannot be split; a store appears complete or not at all.
"""

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

import inlay
from inlay.config import BadInput, Config
from inlay.config.files import disk_errors
from inlay.text.dedup import DedupConfig, ExactDedup, near_copies
from inlay.text.document import Document
from inlay.text.filters import FilterConfig
from inlay.text.progress import NoProgress, Progress
from inlay.text.source import Drops, sources
from inlay.text.split import Entry, Split, SplitConfig, split
from inlay.text.store import TokenStore
from inlay.text.syntax_stage import SyntaxConfig, SyntaxStage
from inlay.text.tokenizer import Tokenizer, tokenizer_kinds
from inlay.text.tokenizers.bpe import BpeTokenizer
from inlay.text.writer import DEFAULT_SHARD_BYTES, StoreWriter, check_target

if TYPE_CHECKING:
    from inlay.text.sources.folder import FolderSource
    from inlay.text.sources.python import PythonSource
    from inlay.text.tokenizers.file import FileTokenizer

    AnySource = FolderSource | PythonSource
    AnyTokenizer = BpeTokenizer | FileTokenizer
else:
    AnySource = sources.union()
    AnyTokenizer = tokenizer_kinds.union()

_BATCH_BYTES = 1 << 20
_BATCH_DOCUMENTS = 256


class PrepareConfig(Config):
    """What `inlay prepare` reads and how it makes a token store of it."""

    out: str
    """The store's folder; it must not exist."""
    seed: int = Field(0, ge=0, le=(1 << 63) - 1)
    """Decides what is held out."""
    overwrite: bool = False
    """Replace the store at `out`, once the new one is complete."""
    source: AnySource
    """Where documents come from."""
    tokenizer: AnyTokenizer = BpeTokenizer()
    """Where the tokenizer comes from."""
    filters: FilterConfig = FilterConfig()
    """Which texts are left out by their content."""
    dedup: DedupConfig = DedupConfig()
    """Which texts are left out as copies."""
    split: SplitConfig = SplitConfig()
    """What is held out for validation."""
    syntax: SyntaxConfig = SyntaxConfig()
    """Whether documents are parsed, for spans that follow the syntax."""
    shard_bytes: int = Field(DEFAULT_SHARD_BYTES, ge=2, le=1 << 40)
    """Size limit of a token shard; a document never straddles two."""
    spool_bytes: int = Field(1 << 28, ge=1, le=1 << 40)
    """Text held in memory at most; what goes beyond waits in a temporary file beside the store."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Threads that tokenize, and processes that parse; None takes one per processor of this process. The store does not
    depend on it."""


@dataclass(slots=True)
class _Spooled:
    """A document whose text lies in the spool, and its packed syntax nodes once it is parsed."""

    document: Document
    offset: int
    bytes: int
    nodes: tuple[int, int] = (0, 0)


class Spool:
    """Texts, and bytes that belong to them, in the order of their arrival: in memory up to a limit, then in a nameless
    temporary file beside `out`.

    Raises InlayError in one line, naming `out`, when the disk refuses.
    """

    def __init__(self, limit: int, out: Path) -> None:
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=limit, dir=str(out.parent))  # noqa: SIM115 (closed in __exit__)
        self._out = out
        self._end = 0

    def add(self, text: str) -> tuple[int, int]:
        """Keeps a text; returns its offset and size in bytes."""
        return self.add_bytes(text.encode())

    def add_bytes(self, data: bytes) -> tuple[int, int]:
        """Keeps bytes; returns their offset and size."""
        offset = self._end
        with disk_errors(self._out):
            self._file.seek(offset)
            self._file.write(data)
        self._end += len(data)
        return offset, len(data)

    def read(self, offset: int, size: int) -> str:
        """A text that was kept."""
        return self.read_bytes(offset, size).decode()

    def read_bytes(self, offset: int, size: int) -> bytes:
        """Bytes that were kept."""
        # Seeking writes what is still buffered, so reading too can meet a full disk.
        with disk_errors(self._out):
            self._file.seek(offset)
            return self._file.read(size)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        # Closing writes once more; by then either all was read or the first error is the one to show.
        with contextlib.suppress(OSError):
            self._file.close()


def prepare(config: PrepareConfig, progress: Progress | None = None) -> TokenStore:
    """Makes the token store that `config` describes and opens it.

    Raises BadInput for a corpus that is missing, empty or too small to split and for a target that exists, InlayError
    when the disk fails. On any error, and when the process is killed, nothing is left that opens as a store.
    """
    shown = progress or NoProgress()
    out = Path(os.path.abspath(os.path.expanduser(config.out)))
    check_target(out, config.overwrite)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    dropped = Drops()
    documents: list[_Spooled] = []
    with Spool(config.spool_bytes, out) as spool:

        def keep_nodes(position: int, packed: bytes) -> None:
            documents[position].nodes = spool.add_bytes(packed)

        with SyntaxStage(config.syntax, config.threads or _processors(), keep_nodes) as syntax:
            with shown.phase("read and parse" if config.syntax.enabled else "read", None, "files") as phase:
                _read(config, spool, documents, syntax, dropped, phase.advance)
            if not documents:
                raise BadInput(
                    f"the corpus is empty: {_place(config)} gave no document; left out: {dropped.summary()}; "
                    "give a place with source code, or widen what is taken"
                )
            division = split(
                [Entry(item.document.repo, item.document.path, item.bytes) for item in documents],
                config.split,
                config.seed,
            )
            chosen, held_out = _without_near_copies(config, spool, documents, division, dropped)
            training = [item for item, held in zip(chosen, held_out, strict=True) if not held]
            tokenizer = _tokenizer(config, spool, training, shown)
            syntax.finish()
        with StoreWriter(out, tokenizer, overwrite=config.overwrite, shard_bytes=config.shard_bytes) as writer:
            _tokenize(config, spool, chosen, held_out, tokenizer, writer, shown)
            fields = {
                "inlay_version": inlay.__version__,
                "seed": config.seed,
                "split_by": division.split_by,
                "split_groups": division.groups,
                "dropped": dropped.to_dict(),
                "span_kinds": syntax.kinds,
                "syntax": syntax.counts(),
                "config": config.to_dict(),
            }
            with shown.phase("write", 1, "stores") as phase:
                store = writer.commit(fields)
                phase.advance(1)
    return store


def _read(
    config: PrepareConfig, spool: Spool, kept: list[_Spooled], syntax: SyntaxStage, dropped: Drops, advance: Any
) -> None:
    copies = ExactDedup()
    for item in config.source.documents(dropped):
        advance(1)
        reason = config.filters.reason(item.text, item.path) or ("exact copy" if copies.is_copy(item.text) else None)
        if reason is not None:
            dropped.add(reason, item.path)
            continue
        offset, size = spool.add(item.text)
        kept.append(_Spooled(replace(item, text=""), offset, size))
        syntax.add(len(kept) - 1, item)
    syntax.flush()


def _without_near_copies(
    config: PrepareConfig, spool: Spool, documents: list[_Spooled], division: Split, dropped: Drops
) -> tuple[list[_Spooled], list[bool]]:
    held_out = division.validation
    if config.dedup.near_copy_share is None:
        return documents, held_out
    validation = [item for item, held in zip(documents, held_out, strict=True) if held]
    training = [item for item, held in zip(documents, held_out, strict=True) if not held]
    copies = near_copies(_texts(spool, validation), _texts(spool, training), config.dedup.near_copy_share)
    if len(copies) == len(validation):
        raise BadInput(
            f"corpus too small to split: every validation document ({len(validation)}) is a near copy of a training "
            "document; give a folder with more code, or dedup.near_copy_share=null"
        )
    gone = {id(validation[position]) for position in copies}
    for position in sorted(copies):
        dropped.add("near copy of training text", validation[position].document.path)
    kept = [(item, held) for item, held in zip(documents, held_out, strict=True) if id(item) not in gone]
    return [item for item, _ in kept], [held for _, held in kept]


def _tokenizer(config: PrepareConfig, spool: Spool, training: list[_Spooled], shown: Progress) -> Tokenizer:
    if not isinstance(config.tokenizer, BpeTokenizer):
        return config.tokenizer.build(lambda size: ())
    chosen = even_sample([item.bytes for item in training], config.tokenizer.sample_bytes)
    picked = [training[position] for position in chosen]
    with shown.phase("train tokenizer", sum(item.bytes for item in picked), "bytes") as phase:

        def texts(size: int) -> Iterator[str]:
            for item in picked:
                yield spool.read(item.offset, item.bytes)
                phase.advance(item.bytes)

        return config.tokenizer.build(texts)


def even_sample(sizes: Sequence[int], wanted: int) -> list[int]:
    """Positions of documents, drawn evenly over their order, that make up about `wanted` bytes (all when there are
    fewer).
    """
    total = sum(sizes)
    if total <= wanted:
        return list(range(len(sizes)))
    owed, chosen = 0.0, []
    for position, size in enumerate(sizes):
        owed += size * wanted / total
        if owed >= size / 2:
            chosen.append(position)
            owed -= size
    return chosen or [min(range(len(sizes)), key=lambda position: sizes[position])]


def _tokenize(
    config: PrepareConfig,
    spool: Spool,
    documents: list[_Spooled],
    held_out: list[bool],
    tokenizer: Tokenizer,
    writer: StoreWriter,
    shown: Progress,
) -> None:
    threads = config.threads or _processors()
    waiting: deque[tuple[list[tuple[_Spooled, bool, str]], Future[list[tuple[np.ndarray, np.ndarray]]]]] = deque()
    with (
        shown.phase("tokenize", sum(item.bytes for item in documents), "bytes") as phase,
        ThreadPoolExecutor(threads) as pool,
    ):

        def write_oldest() -> None:
            batch, encoded = waiting.popleft()
            for (item, held, text), (ids, starts) in zip(batch, encoded.result(), strict=True):
                nodes = spool.read_bytes(*item.nodes) if item.nodes[1] else None
                writer.add("validation" if held else "train", replace(item.document, text=text), ids, starts, nodes)
                phase.advance(item.bytes)

        for batch in _batches(zip(documents, held_out, strict=True)):
            with_text = [(item, held, spool.read(item.offset, item.bytes)) for item, held in batch]
            waiting.append((with_text, pool.submit(tokenizer.encode_with_starts, [text for _, _, text in with_text])))
            if len(waiting) > 2 * threads:
                write_oldest()
        while waiting:
            write_oldest()


def _batches(items: Iterable[tuple[_Spooled, bool]]) -> Iterator[list[tuple[_Spooled, bool]]]:
    """Documents in groups of about a megabyte: large enough to spare overhead, small enough to stay in cache."""
    batch: list[tuple[_Spooled, bool]] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item[0].bytes
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _texts(spool: Spool, items: list[_Spooled]) -> Iterator[str]:
    return (spool.read(item.offset, item.bytes) for item in items)


def _place(config: PrepareConfig) -> str:
    path = getattr(config.source, "path", None)
    return f"source '{config.source.kind}'" + (f" at {os.path.abspath(path)}" if path else "")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
