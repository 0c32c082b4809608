"""The contract of an evaluation task: a fixed list of infilling examples, cut from documents the model never saw.

A task decides which gaps are cut; it never looks at the model, so every model with the same tokenizer meets the same
list. One file a task in `inlay.evaluate.tasks`. Categories are named here because slices, tables and the report share
them.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field

from inlay.config import Config, Registry
from inlay.text.tokenizer import Tokenizer

tasks = Registry("task", "inlay.evaluate.tasks")

Category = Literal[
    "word", "tokens_1_4", "tokens_5_8", "tokens_9_16", "tokens_17_32", "tokens_33_64", "line_end", "line"
]


@dataclass(frozen=True)
class SourceDocument:
    """A held-out document. `id` is its content hash; `language` is None when the file name does not tell."""

    id: str
    path: str
    language: str | None
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents to cut gaps from, in a fixed order; a text is read only when it is drawn."""

    source: str
    """Where they come from, for the report."""
    hash: str
    """Content hash of the list."""
    ids: tuple[str, ...]
    read: Callable[[int], SourceDocument]
    """The document at an index of `ids`."""


@dataclass(frozen=True)
class Example:
    """One gap: characters `start` to `end` of a document."""

    document: SourceDocument
    category: Category
    start: int
    end: int
    tokens: int
    """Length of the middle, encoded alone."""

    @property
    def id(self) -> str:
        """Says which gap this is, in every run."""
        return f"{self.category}:{self.document.id[:12]}:{self.start}-{self.end}"

    @property
    def origin(self) -> tuple[str, str]:
        """Document id and path."""
        return self.document.id, self.document.path

    @cached_property
    def prefix(self) -> str:
        """The document before the gap."""
        return self.document.text[: self.start]

    @cached_property
    def middle(self) -> str:
        """The gold answer."""
        return self.document.text[self.start : self.end]

    @cached_property
    def suffix(self) -> str:
        """The document after the gap."""
        return self.document.text[self.end :]


class TaskConfig(Config):
    """Options every task has."""

    kind: str
    max_tokens: int = Field(64, ge=1)
    """Token budget of every completion, one constant for the whole list: derived from an item it would hide overrun."""

    @abstractmethod
    def examples(self, corpus: Corpus, tokenizer: Tokenizer, limit: int | None = None) -> Sequence[Example]:
        """The fixed list; `limit` takes its beginning. Raises BadInput when the corpus has no gap of the asked
        kinds."""
