"""The contract of an evaluation task: a fixed list of infilling examples, and how the task itself reads an answer.

A task decides which gaps are asked and what its own rules are (its post-processing, its scorer, its tests). It never
looks at the model, so every model meets the same list; what is measured of every task is in `inlay.evaluate.metrics`.
One file a task in `inlay.evaluate.tasks`, and its options as YAML in `conf/evaluate`. A task whose examples come from a
file ships a few of them (`inlay.evaluate.samples`), so that it runs with nothing to fetch.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from inlay.config import Config, Registry
from inlay.evaluate.answer import Losses
from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.sandbox.program import Program
from inlay.infer.run_stores import MainStore
from inlay.text.tokenizer import Tokenizer

tasks = Registry("task", "inlay.evaluate.tasks")

Category = Literal[
    "word", "tokens_1_4", "tokens_5_8", "tokens_9_16", "tokens_17_32", "tokens_33_64", "line_end", "line"
]
"""Kinds of gap that are cut by `inlay.evaluate.cuts`."""


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
class ContextFile:
    """Another file (or a snippet of one) that a cross-file example may show the model."""

    path: str
    text: str


@dataclass(frozen=True)
class Example:
    """One gap and its gold answer."""

    id: str
    """Unique in its task, the same in every run and for every model."""
    group: str
    """What bootstrap resamples together: the document, the problem or the repository that the gap comes from."""
    category: str
    """Kind of gap, in the task's words; tables have a row for each."""
    prefix: str
    middle: str
    """The gold answer, byte for byte."""
    suffix: str
    path: str = ""
    language: str | None = None
    """As `inlay.text.document.language_of` names it."""
    context: tuple[ContextFile, ...] = ()
    """Other files of the repository, the most useful first."""
    repo: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only the task itself reads: tests, entry point, its own fields."""

    @property
    def origin(self) -> tuple[str, str]:
        """Group and path."""
        return self.group, self.path

    @cached_property
    def document(self) -> str:
        """The whole text with the gold answer in place."""
        return self.prefix + self.middle + self.suffix


@dataclass(frozen=True)
class Examples:
    """A task's list, or the beginning of it that was asked for."""

    items: Sequence[Example]
    of: int
    """Examples that the whole list has (with `limit`, more than `items`)."""
    source: str
    """Where they come from, for people: a path, "shipped sample", "validation split of the run's store"."""
    hash: str
    """Content hash of what they were made from, hexadecimal."""
    sample: bool = False
    """Whether this is only the shipped sample of a larger benchmark: never to be quoted as its score."""


@dataclass(frozen=True)
class Place:
    """What a task may take its examples from."""

    data: str | None = None
    """What the user named: a file, a folder, a token store, or `hf:OWNER/NAME`; None for the task's own default."""
    store: Callable[[], MainStore] | None = None
    """Opens the main store that the model was trained from; raises BadInput when it is gone or holds something else by
    now. None: nothing says which."""
    tokenizer: Tokenizer | None = None
    """The model's; None for a model behind a server and for completions from a file."""


class TaskConfig(Config):
    """Options every task has."""

    METRICS: ClassVar[tuple[Metric, ...]] = ()
    """What this task measures beside the metrics of all tasks; see `measures`."""
    POST: ClassVar[str] = "none: the raw text"
    """The benchmark's post-processing in a sentence, with its source."""
    EXECUTES: ClassVar[bool] = False
    """Whether `program` gives something to run."""
    GENERATES: ClassVar[bool] = True
    """Whether the model is asked for answers; a task of losses alone asks none."""
    SPLITS: ClassVar[bool] = False
    """Whether categories are splits of a benchmark, each with scores of its own."""
    CITATION: ClassVar[str] = ""
    """Where the benchmark was published."""

    kind: str
    max_tokens: int = Field(64, ge=1, le=1 << 24)
    """Token budget of every completion, one constant for the whole list: derived from an item it would hide overrun."""

    @abstractmethod
    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """The fixed list; `limit` takes its beginning. Raises BadInput, in one line, when the data has no examples, or
        has missing fields, duplicated ids or a format that cannot be read."""

    def fitted(self, examples: Examples) -> Self:
        """These options as they are used for `examples`: a task may choose its one token budget by the list."""
        return self

    def postprocess(self, example: Example, text: str) -> str:
        """A completion as the benchmark's own harness would cut or strip it."""
        return text

    def program(self, example: Example, middle: str) -> Program | None:
        """What to run to know whether `middle` is right; None where the example has no tests."""
        return None

    def loss_measures(self, example: Example, losses: Losses) -> dict[str, Measure | None]:
        """This task's own METRICS of the gold's losses."""
        return {}

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        """This task's own METRICS of a raw completion; None: not measured for this example."""
        return {}
