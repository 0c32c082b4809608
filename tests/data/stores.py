"""Stores for the tests of this folder: written to disk, or held in memory where a test makes many."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inlay.data.loader import Rows
from inlay.fim.transform import FimConfig
from inlay.text.document import document
from inlay.text.store import DocumentInfo, StoreSplit, TokenStore
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter

LENGTH = 96
AWKWARD = (
    "",
    "x",
    "7" * 3_000,  # every digit is a pre-token
    "🙂" * 700,  # one pre-token, four tokens a character at first sight of it
    " " * 5_000 + "x",
    "日本語の説明 " * 200,
    "line\r\n" * 400,
    "<|fim_prefix|> is text\n",
)


def write_store(path: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> TokenStore:
    """A store whose two splits both hold `texts`, files of one repository."""
    return write_files(path, tokenizer, [("made/up", f"[page{n}]/file.py", text) for n, text in enumerate(texts)])


def write_files(path: Path, tokenizer: Tokenizer, files: Sequence[tuple[str, str, str]]) -> TokenStore:
    """A store whose two splits both hold `files`: (repository, path, text)."""
    encoded = tokenizer.encode_with_starts([text for _, _, text in files])
    with StoreWriter(path, tokenizer) as writer:
        for (repo, name, text), (ids, starts) in zip(files, encoded, strict=True):
            made = document(text, language="python", path=name, repo=repo, licence="MIT", source="folder")
            for split in ("train", "validation"):
                writer.add(split, made, ids, starts)
        return writer.commit({"split_by": "repo", "seed": 0})


def rows_of(store: TokenStore, length: int = LENGTH, seed: int = 0, piece: int | None = None, **fim: Any) -> Rows:
    options = {"rate": 0.8, "orders": {"psm": 1.0, "spm": 1.0, "spm_v2": 1.0}} | fim
    return Rows(str(store.path), "train", FimConfig(**options), length, seed, piece)


class MemorySplit(StoreSplit):
    """A split of given ids and pre-token starts, without files; each `repo` of them is a repository."""

    def __init__(
        self, documents: list[tuple[np.ndarray, np.ndarray]], token_lengths: np.ndarray, repo: int = 4
    ) -> None:
        self._documents = documents
        self._token_lengths = token_lengths
        self._repo = repo

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids, _ in self._documents], dtype=np.int64)

    @property
    def byte_lengths(self) -> np.ndarray:
        return np.array([self._token_lengths[ids].sum() for ids, _ in self._documents], dtype=np.int64)

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._documents[index][0][start:stop]

    def pretoken_starts(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._documents[index][1][start:stop]

    def spans(self, index: int) -> np.ndarray:
        return np.zeros((0, 3), np.int32)

    def document(self, index: int) -> DocumentInfo:
        path = f"{'abc'[index % 3]}/file{index}.py"
        tokens, size = int(self.lengths[index]), int(self.byte_lengths[index])
        return DocumentInfo(str(index), path, f"repo{index // self._repo}", "python", None, "made", tokens, size)
