"""Draws gaps of one sort from a corpus: keyed by (seed, sort, document), so that neither the model nor the order of the
store plays a part.

Documents are visited in a keyed permutation, one gap each before any gets a second, so that small packages count as
much as large ones. Data and prose (JSON, XML, Markdown, reStructuredText, plain text) have at most a stated share of
the gaps of a sort as long as code gives others: a project's data files are many, and nobody completes them. A sort is
short of what was asked when `ROUNDS` tries in every document have not found it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from inlay.evaluate.cuts import BYTES_PER_TOKEN, TRIES, Probe, Span, cut, fitting
from inlay.evaluate.node_cuts import Place as NodePlace
from inlay.evaluate.node_cuts import every_node, node_places
from inlay.evaluate.task import Category, Corpus, Example, SourceDocument
from inlay.fim.draws import Draws, permutation
from inlay.text.document import DATA_AND_PROSE
from inlay.text.syntax import ParsedSyntax
from inlay.text.syntax_grammars import has_grammar
from inlay.text.syntax_pool import ParseJob, SyntaxPool
from inlay.text.tokenizer import Tokenizer

ROUNDS = 50
"""Gaps tried in each document of a small corpus before a sort is left short."""
BARREN_VISITS = 200
"""Visits without a gap, in two rounds through all documents at least, after which a sort that is rare is given up."""
PARSE_SECONDS = 10.0
"""Processor time that a grammar may take on one document; beyond it the document counts as not parsed."""
UNKNOWN = "unknown"
"""Language of a document whose name does not tell."""


@dataclass(frozen=True)
class Sort:
    """What is drawn: gaps of a category, or syntax nodes of a name, perhaps of one language and length alone."""

    category: str
    """In the list, and key of its draws."""
    wanted: int
    node: bool = False
    """Whether `category` names syntax nodes (`inlay.evaluate.node_cuts`)."""
    language: str | None = None
    length: tuple[int, int] | None = None
    """Least and most bytes of the middle."""

    @property
    def rare(self) -> bool:
        """Whether documents may well have none, so that each is tried several times in a row."""
        return self.node or self.length is not None

    def allows(self, document: SourceDocument, span: Span) -> bool:
        """Whether a span has the length."""
        if self.length is None:
            return True
        return self.length[0] <= len(document.text[span[0] : span[1]].encode("utf-8")) <= self.length[1]


class Drawing:
    """Documents of a corpus as they are drawn from; reads and parses each at most once. Use `drawing`."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer | None,
        seed: int,
        max_tokens: int,
        max_bytes: int,
        data_share: float = 1.0,
    ) -> None:
        self._data_share = data_share
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._seed = seed
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._known: dict[int, SourceDocument | None] = {}
        self._places: dict[tuple[int, str], list[NodePlace]] = {}
        self._parsed: dict[int, ParsedSyntax | None] = {}
        self._pool: SyntaxPool | None = None
        # Sorted by id first, so that the same documents give the same list whatever order they are stored in.
        self._ranked = sorted(range(len(corpus.ids)), key=corpus.ids.__getitem__)

    def languages(self) -> dict[str, int]:
        """Documents by language. Reads them all."""
        counts: dict[str, int] = {}
        for index in range(len(self._corpus.ids)):
            document = self._read(index)
            if document is not None:
                counts[document.language or UNKNOWN] = counts.get(document.language or UNKNOWN, 0) + 1
        return counts

    def draw(self, sort: Sort, wanted: int) -> list[Example]:
        """Up to `wanted` gaps; fewer are the beginning of more."""
        found: list[Example] = []
        taken: set[tuple[str, int, int]] = set()
        # A running share, so that the beginning of a longer list is the shorter list; what code cannot fill is filled
        # by data behind it.
        shares = [self._data_share, 1.0] if self._data_share < 1.0 and sort.language is None else [1.0]
        for share in shares:
            self._fill(sort, wanted, share, found, taken)
        return found

    def _fill(
        self, sort: Sort, wanted: int, share: float, found: list[Example], taken: set[tuple[str, int, int]]
    ) -> None:
        """Draws into `found` until it has `wanted`; data and prose are at most `share` of it."""
        data = sum(example.language in DATA_AND_PROSE for example in found)
        visit = [self._ranked[rank] for rank in permutation(len(self._ranked), self._seed, "documents", sort.category)]
        rounds = max(2, -(-BARREN_VISITS // max(1, len(visit)))) if sort.rare else ROUNDS
        barren = 0
        for turn in range(ROUNDS):
            before = len(found)
            for index in visit:
                if len(found) >= wanted:
                    return
                document = self._read(index)
                if document is None or sort.language not in (None, document.language or UNKNOWN):
                    continue
                is_data = document.language in DATA_AND_PROSE
                if is_data and data + 1 > share * (len(found) + 1):
                    continue
                span = self._cut(sort, index, document, turn)
                if span is None or (document.id, *span[:2]) in taken:
                    continue
                taken.add((document.id, *span[:2]))
                found.append(_example(document, sort.category, *span[:2]))
                data += is_data
            barren = 0 if len(found) > before else barren + 1
            if barren == rounds:
                break

    def close(self) -> None:
        """Ends the process that parses."""
        if self._pool is not None:
            self._pool.__exit__(None, None, None)
            self._pool = None

    def _cut(self, sort: Sort, index: int, document: SourceDocument, turn: int) -> Span | None:
        key = (self._seed, sort.category, document.id, turn)
        if not sort.rare:
            return self._once(sort, index, document, Draws(*key))
        for number in range(TRIES):
            span = self._once(sort, index, document, Draws(*key, str(sort.length), number))
            if span is not None and sort.allows(document, span):
                return span
        return None

    def _once(self, sort: Sort, index: int, document: SourceDocument, draws: Draws) -> Span | None:
        if not sort.node:
            category = cast("Category | Probe", sort.category)
            return cut(document.text, category, self._max_tokens, draws, self._tokenizer)
        places = self._nodes(sort.category, index, document)
        if not places:
            return None
        return fitting(document.text, *places[draws.integer(0, len(places))], self._max_tokens, self._tokenizer)

    def _nodes(self, name: str, index: int, document: SourceDocument) -> list[NodePlace]:
        if (index, name) not in self._places:
            syntax = self._syntax(index, document)
            places = [] if syntax is None else node_places(document.text, syntax, name)
            # Most that are too long for the budget are known without counting tokens.
            longest = 4 * BYTES_PER_TOKEN * self._max_tokens
            self._places[index, name] = [place for place in places if place[1] - place[0] <= longest]
        return self._places[index, name]

    def _syntax(self, index: int, document: SourceDocument) -> ParsedSyntax | None:
        if index not in self._parsed:
            self._parsed[index] = None
            if document.language is not None and has_grammar(document.language, document.path):
                if self._pool is None:
                    self._pool = SyntaxPool(1, PARSE_SECONDS)
                job = ParseJob(document.language, document.text.encode("utf-8"))
                (answer,) = self._pool.submit([job]).result()
                # The guarded parse tells whether it parses, and that it ends; the tree is then walked whole.
                if isinstance(answer, ParsedSyntax):
                    self._parsed[index] = every_node(document.text, document.language)
        return self._parsed[index]

    def _read(self, index: int) -> SourceDocument | None:
        if index not in self._known:
            document = self._corpus.read(index)
            self._known[index] = document if len(document.text.encode("utf-8")) <= self._max_bytes else None
        return self._known[index]


@contextmanager
def drawing(
    corpus: Corpus,
    tokenizer: Tokenizer | None,
    seed: int,
    max_tokens: int,
    max_bytes: int,
    data_share: float = 1.0,
) -> Iterator[Drawing]:
    """A `Drawing` whose parser ends with the block. Documents above `max_bytes` are left out; of the gaps of a sort at
    most `data_share` are in data and prose, while code gives others."""
    made = Drawing(corpus, tokenizer, seed, max_tokens, max_bytes, data_share)
    try:
        yield made
    finally:
        made.close()


def _example(document: SourceDocument, category: str, start: int, end: int) -> Example:
    text = document.text
    return Example(
        id=f"{category}:{document.id[:12]}:{start}-{end}",
        group=document.id,
        category=category,
        prefix=text[:start],
        middle=text[start:end],
        suffix=text[end:],
        path=document.path,
        language=document.language,
    )
