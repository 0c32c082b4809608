"""The task `held_out`: gaps of several kinds and lengths in held-out documents.

It decides how many gaps of each kind there are, and how they are shared between languages and lengths; where each is
cut is drawn by `inlay.evaluate.drawing`. The list alternates between its sorts, so its beginning is as mixed as the
whole. It refuses a corpus without any gap of a kind that was asked for by name.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, TypeVar, get_args

from pydantic import Field, field_validator

from inlay.config import BadInput, Count, Share, nearest
from inlay.evaluate.corpus import open_place
from inlay.evaluate.cuts import Probe
from inlay.evaluate.drawing import Drawing, Sort, drawing
from inlay.evaluate.node_cuts import GROUPS
from inlay.evaluate.task import Category, Corpus, Example, Examples, Place, TaskConfig, tasks
from inlay.text.tokenizer import Tokenizer

K = TypeVar("K")

EMPTY: Probe = "empty"
THREE_TOKENS: Probe = "three_tokens"


@tasks.register
class HeldOutConfig(TaskConfig):
    """Gaps in held-out documents by kind and length."""

    kind: Literal["held_out"] = "held_out"
    seed: int = Field(0, ge=0, le=(1 << 63) - 1)
    """Key of every draw: another seed is another list."""
    categories: dict[Category | Probe, Count] = Field(default_factory=lambda: dict.fromkeys(get_args(Category), 200))
    """Number of gaps of each kind; leave a kind out to skip it. `empty` is a place where nothing is missing."""
    kinds: dict[str, Count] = Field(default_factory=dict)
    """Number of gaps that are syntax nodes, by name: function, function_body, block, condition, arguments, call, type,
    string, comment, return, import, or a grammar's own kind or a shell pattern of kinds ("if_*")."""
    languages: dict[str, Share] | Literal["even"] | None = None
    """Each number is shared between these languages by weight; "even": between all that there are, alike. None takes
    documents as they come, mostly in the commonest language."""
    data_share: float = Field(1.0, ge=0.0, le=1.0)
    """Without `languages`: at most this share of the gaps is in data and prose (JSON, XML, Markdown, reStructuredText,
    plain text) while code gives others; 1 takes documents as they come. The demo has 0.2."""
    lengths: tuple[str, ...] = ()
    """Each number is shared between these lengths of the middle in bytes, such as "1-10" and "11-40", alike. None: as
    they fall."""
    max_document_bytes: int = Field(65_536, ge=1, le=1 << 30)
    """Larger documents are left out: each completion is compiled inside its whole document."""

    @field_validator("kinds")
    @classmethod
    def _names(cls, kinds: dict[str, int]) -> dict[str, int]:
        taken = sorted({*get_args(Category), *get_args(Probe)} & set(kinds))
        if taken:
            raise ValueError(f"'{taken[0]}' is a category, no syntax node: name it in categories")
        return kinds

    @field_validator("languages")
    @classmethod
    def _weights(cls, languages: dict[str, float] | str | None) -> dict[str, float] | str | None:
        if isinstance(languages, dict) and (not languages or min(languages.values()) <= 0.0):
            raise ValueError("give each language a weight above 0")
        return languages

    @field_validator("lengths")
    @classmethod
    def _ranges(cls, lengths: tuple[str, ...]) -> tuple[str, ...]:
        ranges = sorted(_range(text) for text in lengths)
        for (_, high), (low, _) in pairwise(ranges):
            if low <= high:
                raise ValueError(f"lengths overlap at {low} bytes; each middle belongs to one")
        return lengths

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """Gaps in a token store's validation split, a folder or a file; with none named, in the store that the model
        was trained from.

        Raises BadInput when there is nothing to cut from, or a category counts tokens and there is no tokenizer.
        """
        corpus, own = open_place(place)
        # The whole list is drawn even for a part of it, so that the result can say what it is a part of.
        items = self.gaps(corpus, place.tokenizer or own)
        return Examples(items[:limit], len(items), corpus.source, corpus.hash)

    def gaps(self, corpus: Corpus, tokenizer: Tokenizer | None, limit: int | None = None) -> list[Example]:
        """The list, alternating between its sorts. Raises BadInput when there is no gap at all, or none of a node kind
        or language that was asked for."""
        with drawing(corpus, tokenizer, self.seed, self.max_tokens, self.max_document_bytes, self.data_share) as source:
            sorts = self._sorts(source, corpus)
            quota = None if limit is None else -(-limit // max(1, len(sorts)))
            columns = [source.draw(sort, sort.wanted if quota is None else min(quota, sort.wanted)) for sort in sorts]
            if limit is not None and sum(map(len, columns)) < limit:
                # A sort fell short of its share of the beginning: others have more of it.
                columns = [source.draw(sort, sort.wanted) for sort in sorts]
        longest = max(map(len, columns), default=0)
        listed = [column[row] for row in range(longest) for column in columns if row < len(column)]
        self._refuse_missing(corpus, sorts, columns)
        if not listed:
            raise BadInput(
                f"no gap can be cut from {corpus.source}: it has {len(corpus.ids)} documents, none with text of at most"
                f" {self.max_document_bytes} bytes that fits the categories"
            )
        return listed if limit is None else listed[:limit]

    def probes(self, corpus: Corpus, tokenizer: Tokenizer, category: Probe, count: int) -> list[Example]:
        """Up to `count` gaps of one probe, whatever the options ask for; none where none can be cut."""
        with drawing(corpus, tokenizer, self.seed, self.max_tokens, self.max_document_bytes) as source:
            return source.draw(Sort(category, count), count)

    def _sorts(self, source: Drawing, corpus: Corpus) -> list[Sort]:
        shares = self._language_shares(source, corpus)
        asked = [*((name, count, False) for name, count in self.categories.items())]
        asked += [(name, count, True) for name, count in self.kinds.items()]
        sorts = []
        for name, count, node in asked:
            for language, part in _divide(count, shares).items():
                # A middle of no bytes has one length.
                ranges = [None] if name == EMPTY or not self.lengths else [_range(text) for text in self.lengths]
                for length, number in _divide(part, dict.fromkeys(ranges, 1.0)).items():
                    sorts.append(Sort(name, number, node, language, length))
        return sorts

    def _language_shares(self, source: Drawing, corpus: Corpus) -> Mapping[str | None, float]:
        if self.languages is None:
            return {None: 1.0}
        present = source.languages()
        if self.languages == "even":
            return dict.fromkeys(sorted(present), 1.0)
        for language in self.languages:
            if language not in present:
                raise BadInput(
                    f"languages: no document of {corpus.source} is in '{language}'{nearest(language, present)};"
                    f" it has {', '.join(sorted(present)) or 'none'}"
                )
        return {**self.languages}

    def _refuse_missing(self, corpus: Corpus, sorts: list[Sort], columns: list[list[Example]]) -> None:
        for name, count in self.kinds.items():
            gaps = sum(len(column) for sort, column in zip(sorts, columns, strict=True) if sort.category == name)
            asked = sum(sort.wanted for sort in sorts if sort.category == name)
            if count and asked and not gaps:
                raise BadInput(
                    f"kinds: no '{name}' of at most {self.max_tokens} tokens is found in {corpus.source}"
                    f"{nearest(name, GROUPS)}; groups are {', '.join(GROUPS)}, other names are a grammar's node kinds"
                )


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"'{text}' is no length: write LEAST-MOST bytes, such as 11-40")
    return int(match[1]), int(match[2])


def _divide(count: int, weights: Mapping[K, float]) -> dict[K, int]:
    """`count` in proportion to `weights`, whole numbers by largest remainder, of equals the first."""
    total = sum(weights.values())
    exact = {key: count * weight / total for key, weight in weights.items()}
    parts = {key: int(value) for key, value in exact.items()}
    rest = sorted(parts, key=lambda key: parts[key] - exact[key])
    for key in rest[: count - sum(parts.values())]:
        parts[key] += 1
    return parts
