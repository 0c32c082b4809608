"""Parsing as a step of `prepare`: documents go in as they are read, packed nodes come out in their order.

Parsing runs beside reading, the removal of copies and the training of the tokenizer, and holds a bounded number of
batches. It loses no document: one that does not parse has no nodes, and is counted by language with the first paths.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from pydantic import Field, model_validator

from inlay.config import Config
from inlay.text.document import Document
from inlay.text.source import EXAMPLES_PER_REASON
from inlay.text.syntax import ParsedSyntax
from inlay.text.syntax_code import KindTable, pack_nodes
from inlay.text.syntax_grammars import GRAMMARS, Grammar, has_grammar
from inlay.text.syntax_pool import Failure, ParseJob, SyntaxPool

_BATCH_BYTES = 1 << 18
_BATCH_DOCUMENTS = 64
_EXAMPLES_OF_TROUBLE = 50


class SyntaxConfig(Config):
    """Whether and how documents are parsed, for spans that follow the syntax."""

    enabled: bool = True
    """Parse the languages that have a grammar. Without it the store has no syntax, and cuts by node become cuts by
    line."""
    timeout_seconds: float = Field(5.0, gt=0.0, allow_inf_nan=False, le=86400.0)
    """Processor time a document may take for each megabyte, at least one; then its parser is ended and it has no
    syntax."""

    @model_validator(mode="after")
    def _in_use(self) -> "SyntaxConfig":
        usual = SyntaxConfig.model_fields["timeout_seconds"].default
        if not self.enabled and self.timeout_seconds != usual:
            raise ValueError("timeout_seconds does nothing where enabled is false: leave one of them out")
        return self


class SyntaxStage:
    """Parses documents with `workers` processes; a context manager.

    `keep(position, packed)` is called from `add` and `finish` for each document that parsed, in order of position.
    Raises InlayError when a grammar is not installed.
    """

    def __init__(
        self,
        config: SyntaxConfig,
        workers: int,
        keep: Callable[[int, bytes], None],
        grammars: Mapping[str, Grammar] = GRAMMARS,
    ) -> None:
        self._enabled = config.enabled
        self._grammars = grammars
        self._pool = SyntaxPool(workers, config.timeout_seconds, grammars)
        self._keep = keep
        self._most_waiting = 2 * workers
        self._started = False
        self._batch: list[tuple[int, Document, ParseJob]] = []
        self._batch_bytes = 0
        self._waiting: deque[tuple[list[tuple[int, Document, ParseJob]], Future[list[ParsedSyntax | Failure]]]] = (
            deque()
        )
        self._kinds = KindTable()
        self._counts: dict[str, dict[str, Any]] = {}

    def add(self, position: int, document: Document) -> None:
        """Takes the document at `position`; positions rise."""
        if not self._enabled or not has_grammar(document.language, document.path, self._grammars):
            return
        if not self._started:
            self._started = True
            self._pool.start()
        data = document.text.encode()
        self._batch.append((position, document, ParseJob(document.language, data)))
        self._batch_bytes += len(data)
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_DOCUMENTS:
            self.flush()
            while len(self._waiting) > self._most_waiting:
                self._receive()

    def flush(self) -> None:
        """Gives the workers what was added so far, and waits for nothing."""
        if self._batch:
            self._waiting.append((self._batch, self._pool.submit([job for _, _, job in self._batch])))
            self._batch, self._batch_bytes = [], 0

    def finish(self) -> None:
        """Waits for all that was added."""
        self.flush()
        while self._waiting:
            self._receive()

    @property
    def kinds(self) -> list[str]:
        """Names of the node kinds, by the numbers in the packed nodes."""
        return self._kinds.names

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each language with a grammar: documents, bytes, parsed, failed, timed_out, crashed, nodes; and `paths`,
        the first paths of each failure.
        """
        return dict(sorted(self._counts.items()))

    def __enter__(self) -> "SyntaxStage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, traceback)

    def _receive(self) -> None:
        batch, results = self._waiting.popleft()
        for (position, document, job), result in zip(batch, results.result(), strict=True):
            counts = self._counts.setdefault(
                document.language,
                {
                    "documents": 0,
                    "bytes": 0,
                    "parsed": 0,
                    **{kind.value: 0 for kind in Failure},
                    "nodes": 0,
                    "paths": {},
                },
            )
            counts["documents"] += 1
            counts["bytes"] += len(job.data)
            if isinstance(result, Failure):
                counts[result.value] += 1
                paths = counts["paths"].setdefault(result.value, [])
                if len(paths) < (EXAMPLES_PER_REASON if result is Failure.FAILED else _EXAMPLES_OF_TROUBLE):
                    paths.append(document.path)
                continue
            counts["parsed"] += 1
            counts["nodes"] += len(result.nodes)
            self._keep(position, pack_nodes(self._kinds.numbered(result.nodes, result.kinds)))


def parsed_line(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """What a manifest's `syntax` says in few words: `parsed 1,204 of 1,210 documents (python 3, sql 3 did not parse)`;
    empty when nothing was to be parsed.
    """
    if not counts:
        return ""
    documents = sum(entry["documents"] for entry in counts.values())
    parsed = sum(entry["parsed"] for entry in counts.values())
    missed = [
        f"{language} {entry['documents'] - entry['parsed']:,}"
        for language, entry in counts.items()
        if entry["documents"] > entry["parsed"]
    ]
    rest = f" ({', '.join(missed)} did not parse)" if missed else ""
    return f"parsed {parsed:,} of {documents:,} documents{rest}"


def trouble_line(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """The files that hung or crashed a grammar, by name, in one line; empty when there is none."""
    named, total = [], 0
    for kind, what in ((Failure.TIMED_OUT, "timed out"), (Failure.CRASHED, "crashed")):
        for language, entry in counts.items():
            total += entry[kind.value]
            named += [f"{path} ({language}, {what})" for path in entry["paths"].get(kind.value, [])]
    if not total:
        return ""
    shown = ", ".join(named[:EXAMPLES_PER_REASON])
    more = f" and {total - EXAMPLES_PER_REASON:,} more, see the manifest" if total > EXAMPLES_PER_REASON else ""
    return f"the parser gave up on {total:,} {'document' if total == 1 else 'documents'}: {shown}{more}"
