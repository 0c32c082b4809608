"""Where evaluation takes documents from: the held-out split of the run's own token store, or of a store you name, or a
folder or file you name.

The text of a store is what gaps are cut from, so it may have been tokenized otherwise than the model's. It refuses a
path without any readable text.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import xxhash

from inlay.config import BadInput
from inlay.evaluate.task import Corpus, Place, SourceDocument
from inlay.text.document import content_id, language_of
from inlay.text.filters import FilterConfig
from inlay.text.source import Drops, Skipped, left_out_line, read_text
from inlay.text.sources.folder import FolderSource
from inlay.text.store import MANIFEST, StoreSplit, TokenStore
from inlay.text.tokenizer import Tokenizer

FILE_BYTES = 16_000_000
"""A single file named by the user is read up to this size."""


def held_out(store: TokenStore, title: str = "the run's store") -> Corpus:
    """The documents of a store's held-out split; `title` says which store, for people."""
    return of_split(_split(store, "validation"), f"validation split of {title}")


def open_place(place: Place) -> tuple[Corpus, Tokenizer | None]:
    """The documents that a place names, and the tokenizer of the store that they come from, if they do.

    Raises BadInput when the place names none, or what it names cannot be read.
    """
    if place.data is None:
        if place.store is None:
            raise BadInput(
                "nothing says what the model was trained from: name a token store, a folder or a file to cut gaps from"
                " (--data PATH)"
            )
        main = place.store()
        return held_out(main.store, main.title), main.store.tokenizer
    if place.data.startswith("hf:"):
        raise BadInput(
            f"gaps are cut from a token store, a folder or a file, not from '{place.data}': prepare a store of it first"
        )
    path = Path(place.data).expanduser()
    if is_store(path):
        store = TokenStore.open(path)
        return of_split(_split(store, "validation"), f"validation split of {path}"), store.tokenizer
    return open_path(path), None


def is_store(path: Path) -> bool:
    """Whether a folder looks like a token store; `manifest.json` alone is a common name."""
    return (path / MANIFEST).is_file() and (path / "tokenizer").is_dir()


def _split(store: TokenStore, name: str) -> StoreSplit:
    if name not in store.splits:
        raise BadInput(f"the store has no split '{name}'; it has {', '.join(store.splits)}")
    return store.split(name)


def of_split(part: StoreSplit, source: str) -> Corpus:
    """The documents of one split."""

    def read(index: int) -> SourceDocument:
        info = part.document(index)
        return SourceDocument(info.id, info.path, info.language, part.text(index))

    ids = tuple(part.document(index).id for index in range(part.document_count))
    return Corpus(source, _hash(ids), ids, read)


def open_path(data: str | Path) -> Corpus:
    """The documents of a folder (read as training would read it: .gitignore, binaries and so on) or of one file.

    Raises BadInput when the path does not exist or nothing in it can be read as text.
    """
    path = Path(data)
    if not path.exists():
        raise BadInput(f"no such file or folder to evaluate on: {data}")
    documents = _folder(path) if path.is_dir() else [_file(path)]
    return of_documents(documents, str(data))


def of_documents(documents: Sequence[SourceDocument], source: str) -> Corpus:
    """A corpus of given documents, equal texts once."""
    unique = list({document.id: document for document in documents}.values())
    ids = tuple(document.id for document in unique)
    return Corpus(source, _hash(ids), ids, unique.__getitem__)


def _folder(path: Path) -> list[SourceDocument]:
    dropped = Drops()
    source = FolderSource(path=str(path))
    found = []
    for item in source.documents(dropped):
        # Lock files and what a tool wrote: no training text either.
        if FilterConfig().reason(item.text, item.path) == "generated":
            dropped.add("generated", item.path)
        else:
            found.append(SourceDocument(item.id, item.path, item.language, item.text))
    if not found:
        raise BadInput(f"no readable source file in {path}: left out {dropped.summary()}")
    if left_out := left_out_line(dropped.to_dict(), len(found)):
        print(f"inlay: {path}: {left_out}", file=sys.stderr)
    return found


def _file(path: Path) -> SourceDocument:
    try:
        text = read_text(path, FILE_BYTES)
    except Skipped as reason:
        raise BadInput(f"cannot evaluate on {path}: {reason}") from None
    return SourceDocument(content_id(text), path.name, language_of(path.name), text)


def _hash(ids: Sequence[str]) -> str:
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(ids)).encode())
