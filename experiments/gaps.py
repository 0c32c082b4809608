"""Gaps in held-out documents, by how they are cut and how long they are: the fixed list that every arm is judged on.

It decides the list by keyed draws from (category, document), so neither the model nor the seed of a run plays a part.
Documents take turns, and the list alternates between categories, so that its beginning is as mixed as the whole. A gap
is cut in bytes, on character boundaries, and its three parts are encoded each as if alone. A document that offers no
gap of a category in its turns is passed over.

Units: `token` both ends on token borders of the document; `inside` both ends strictly inside tokens; `byte` both ends
wherever the draw fell (borders by chance); `line` the visible part of one line; `node` a node of Python's own grammar
(module `ast`, not the parser of the token store).
"""

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from inlay.config import BadInput
from inlay.fim.draws import Draws, permutation
from inlay.fim.span import Span, TextView
from inlay.text.store import StoreSplit
from inlay.text.tokenizer import Tokenizer

Unit = Literal["token", "inside", "byte", "line", "node"]

TURNS = 40
"""Visits to each document before a category is left short."""
TRIES = 6
"""Draws at each visit."""


@dataclass(frozen=True)
class Category:
    """Gaps of one unit whose middle, encoded alone, has `low` to `high` tokens."""

    unit: Unit
    low: int
    high: int
    count: int

    @property
    def name(self) -> str:
        """`unit_low_high`."""
        return f"{self.unit}_{self.low}_{self.high}"


@dataclass(frozen=True)
class Gap:
    """One gap: ids of its parts, and bytes `start` to `end` of a document of the split."""

    category: str
    document: int
    start: int
    end: int
    prefix: list[int]
    middle: list[int]
    suffix: list[int]

    @property
    def size(self) -> int:
        """Bytes of the middle."""
        return self.end - self.start


def draw_gaps(
    split: StoreSplit,
    tokenizer: Tokenizer,
    categories: Sequence[Category],
    context: tuple[int, int],
    largest_document: int = 32_768,
) -> list[Gap]:
    """The fixed list, alternating between categories.

    `context`: fewest and most document tokens kept on each side, drawn for each side by itself; `largest_document` in
    bytes. Raises BadInput when a category has no gap at all.
    """
    documents = [
        index
        for index in range(split.document_count)
        if split.byte_lengths[index] <= largest_document and split.lengths[index] > 2 * context[0]
    ]
    columns = []
    for category in categories:
        column = _column(split, tokenizer, category, context, documents)
        if not column:
            raise BadInput(f"no gap of the category '{category.name}' in {len(documents)} held-out documents")
        columns.append(column)
    longest = max(map(len, columns))
    return [column[row] for row in range(longest) for column in columns if row < len(column)]


def _column(
    split: StoreSplit, tokenizer: Tokenizer, category: Category, context: tuple[int, int], documents: list[int]
) -> list[Gap]:
    found: list[Gap] = []
    visit = [documents[rank] for rank in permutation(len(documents), "gaps", category.name)]
    taken: set[tuple[int, int, int]] = set()
    for turn in range(TURNS):
        for index in visit:
            if len(found) == category.count:
                return found
            view = TextView(tokenizer, split.tokens(index))
            draws = Draws("gap", category.name, split.document(index).id, turn)
            for _ in range(TRIES):
                span = cut(view, category, draws)
                if span is None or (index, *span) in taken:
                    continue
                gap = _gap(view, tokenizer, category, index, span, context, draws)
                if gap is not None:
                    taken.add((index, *span))
                    found.append(gap)
                    break
    return found


def cut(view: TextView, category: Category, draws: Draws) -> Span | None:
    """One span of the category's unit and roughly its length, or None: the caller measures and draws again."""
    if category.unit == "line":
        return _line(view, draws)
    if category.unit == "node":
        spans = nodes(view.data)
        # Few nodes have more than six bytes a token; the caller measures.
        near = [span for span in spans if category.low <= span[1] - span[0] <= 6 * category.high]
        return near[draws.integer(0, len(near))] if near else None
    offsets, total = view.token_offsets, len(view.tokens)
    count = draws.integer(category.low, category.high + 1)
    if total < count + 2:
        return None
    first = draws.integer(1, total - count)
    start, end = int(offsets[first]), int(offsets[first + count])
    if category.unit == "inside":
        # A token's tail, whole tokens, a token's head: the middle then has about `count` tokens when encoded alone.
        start = _inside(view, first, draws)
        end = _inside(view, first + count - 1, draws)
    elif category.unit == "byte":
        start, end = start - draws.integer(0, 8), end - draws.integer(0, 8)
    if not 0 < start < end < view.size or view.align(start) != start or view.align(end) != end:
        return None
    return start, end


def _inside(view: TextView, token: int, draws: Draws) -> int:
    low, high = int(view.token_offsets[token]), int(view.token_offsets[token + 1])
    return draws.integer(low + 1, high) if high - low > 1 else 0  # 0 is refused by the caller


def _line(view: TextView, draws: Draws) -> Span | None:
    starts = view.line_starts
    if len(starts) < 4:
        return None
    line = draws.integer(1, len(starts) - 2)
    begin, end = int(starts[line]), int(starts[line + 1])
    text = view.data[begin:end].rstrip()
    begin, end = begin + len(text) - len(text.lstrip()), begin + len(text)
    return (begin, end) if begin < end else None


@lru_cache(maxsize=512)
def nodes(data: bytes) -> list[Span]:
    """Byte spans of the expressions and statements of a Python module, each span once; none where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(data)
        except (SyntaxError, ValueError):
            return []
    # Python counts lines at \n, \r\n and \r; its columns are UTF-8 bytes.
    starts, at = [0], 0
    while at < len(data):
        pair = data[at : at + 2] == b"\r\n"
        at += 2 if pair else 1
        if pair or data[at - 1 : at] in (b"\n", b"\r"):
            starts.append(at)
    spans: set[Span] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.expr | ast.stmt) and node.end_lineno is not None and node.end_col_offset is not None:
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            if 0 < start < end < len(data):
                spans.add((start, end))
    return sorted(spans)


def _gap(
    view: TextView,
    tokenizer: Tokenizer,
    category: Category,
    index: int,
    span: Span,
    context: tuple[int, int],
    draws: Draws,
) -> Gap | None:
    start, end = span
    middle = tokenizer.encode(view.window(start, end).decode())
    if not category.low <= len(middle) <= category.high:
        return None
    offsets = view.token_offsets
    before, after = (draws.integer(context[0], context[1] + 1) for _ in range(2))
    first = max(0, view.token_at(start - 1) + 1 - before)
    last = min(len(offsets) - 1, view.token_at(end) + after)
    head, tail = view.align_up(int(offsets[first])), view.align(int(offsets[last]))
    prefix = tokenizer.encode(view.window(head, start).decode())
    suffix = tokenizer.encode(view.window(end, tail).decode())
    if not prefix or not suffix or len(prefix) > context[1] + 4 or len(suffix) > context[1] + 4:
        return None
    return Gap(category.name, index, start, end, prefix, middle, suffix)
