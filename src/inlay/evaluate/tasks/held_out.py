"""The task `held_out`: gaps of several kinds and lengths in held-out documents.

It decides the list by keyed draws from (seed, category, document): neither the model nor the order of the store plays a
part. Documents are visited in a keyed permutation, one gap each before any gets a second, so that small packages count
as much as large ones. The list alternates between categories, so its beginning is as mixed as the whole.
"""

from typing import Literal, get_args

from pydantic import Field

from inlay.config import BadInput
from inlay.evaluate.cuts import cut
from inlay.evaluate.task import Category, Corpus, Example, SourceDocument, TaskConfig, tasks
from inlay.fim.draws import Draws, permutation
from inlay.text.tokenizer import Tokenizer

ROUNDS = 50
"""Gaps tried in each document of a small corpus before a category is left short."""


@tasks.register
class HeldOutConfig(TaskConfig):
    """Gaps in held-out documents by kind and length."""

    kind: Literal["held_out"] = "held_out"
    seed: int = 0
    """Key of every draw: another seed is another list."""
    categories: dict[Category, int] = Field(default_factory=lambda: dict.fromkeys(get_args(Category), 200))
    """Number of gaps of each kind; leave a kind out to skip it."""
    max_document_bytes: int = Field(65_536, ge=1)
    """Larger documents are left out: each completion is compiled inside its whole document."""

    def examples(self, corpus: Corpus, tokenizer: Tokenizer, limit: int | None = None) -> list[Example]:
        """The list, alternating between categories. Raises BadInput when there is no gap at all."""
        known: dict[int, SourceDocument | None] = {}
        columns = [self._of(category, corpus, tokenizer, known, limit) for category in self.categories]
        longest = max(map(len, columns), default=0)
        listed = [column[row] for row in range(longest) for column in columns if row < len(column)]
        if not listed:
            raise BadInput(
                f"no gap can be cut from {corpus.source}: it has {len(corpus.ids)} documents, none with text of at most"
                f" {self.max_document_bytes} bytes that fits the categories"
            )
        return listed if limit is None else listed[:limit]

    def _of(
        self,
        category: Category,
        corpus: Corpus,
        tokenizer: Tokenizer,
        known: dict[int, SourceDocument | None],
        limit: int | None,
    ) -> list[Example]:
        wanted = self.categories[category]
        if limit is not None:
            wanted = min(wanted, -(-limit // max(1, len(self.categories))))
        found: list[Example] = []
        taken: set[tuple[str, int, int]] = set()
        # Sorted by id first, so that the same documents give the same list whatever order they are stored in.
        ranked = sorted(range(len(corpus.ids)), key=corpus.ids.__getitem__)
        visit = [ranked[rank] for rank in permutation(len(ranked), self.seed, "documents", category)]
        for turn in range(ROUNDS):
            for index in visit:
                if len(found) >= wanted:
                    return found
                document = self._read(index, corpus, known)
                if document is None:
                    continue
                draws = Draws(self.seed, category, document.id, turn)
                span = cut(document.text, category, self.max_tokens, draws, tokenizer)
                if span is None or (document.id, *span[:2]) in taken:
                    continue
                taken.add((document.id, *span[:2]))
                found.append(Example(document, category, *span))
        return found

    def _read(self, index: int, corpus: Corpus, known: dict[int, SourceDocument | None]) -> SourceDocument | None:
        if index not in known:
            document = corpus.read(index)
            known[index] = document if len(document.text.encode("utf-8")) <= self.max_document_bytes else None
        return known[index]
