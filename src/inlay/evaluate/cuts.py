"""Where gaps are cut for evaluation, one rule a category. Positions are characters of the document's text.

Each rule takes keyed draws and answers None when the document (or this try) has no such gap; the task then moves on. A
middle longer than the budget is refused, because no model could answer it; the budget is one constant for the list.
Without a tokenizer (a model behind a server) a token counts as `BYTES_PER_TOKEN` bytes, and categories that promise a
number of tokens are refused.
"""

import re
from typing import Literal

from inlay.config import BadInput
from inlay.evaluate.task import Category
from inlay.fim.draws import Draws
from inlay.text.tokenizer import Tokenizer

Span = tuple[int, int, int]
"""Start, end, and the number of tokens between them."""

Probe = Literal["empty", "three_tokens"]
"""Gaps where nothing is missing, and where three tokens are: a model that does not stop in time shows it there first.
"""

_WORD = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"[^\r\n]+")
LONGEST_TOKEN = 24
"""Characters of text encoded per wanted token: a run with longer tokens than this on average is drawn anew."""
TRIES = 8
BYTES_PER_TOKEN = 3
"""Bytes of code that stand for a token where none can be counted; common vocabularies of code have 3 to 4."""


def cut(
    text: str, category: Category | Probe, max_tokens: int, draws: Draws, tokenizer: Tokenizer | None
) -> Span | None:
    """One gap of `category` in `text`, or None. Raises BadInput for a category that counts tokens without a
    tokenizer."""
    if category == "empty":
        at = draws.integer(0, len(text) + 1)
        return at, at, 0
    if category == "word":
        return _word(text, max_tokens, draws, tokenizer)
    if category == "line":
        return _line(text, max_tokens, draws, tokenizer, whole=True)
    if category == "line_end":
        return _line(text, max_tokens, draws, tokenizer, whole=False)
    if tokenizer is None:
        raise BadInput(
            f"category '{category}' counts tokens, and the model's tokenizer is not known: choose word, line and"
            " line_end alone, or evaluate on a token store, which has one"
        )
    low, high = token_range(category)
    return _tokens(text, low, min(high, max_tokens), draws, tokenizer)


def token_range(category: Category | Probe) -> tuple[int, int]:
    """The shortest and longest middle of a `tokens_LOW_HIGH` category (or of three_tokens), in tokens."""
    if category == "three_tokens":
        return 3, 3
    _, low, high = category.split("_")
    return int(low), int(high)


def token_count(text: str, tokenizer: Tokenizer | None) -> int:
    """Tokens of `text` encoded alone; without a tokenizer by its bytes, rounded up."""
    if tokenizer is None:
        return -(-len(text.encode("utf-8")) // BYTES_PER_TOKEN)
    return len(tokenizer.encode(text))


def fitting(text: str, start: int, end: int, max_tokens: int, tokenizer: Tokenizer | None) -> Span | None:
    """The span from `start` to `end` with its count, None where it is empty or beyond the budget."""
    count = token_count(text[start:end], tokenizer)
    return (start, end, count) if 1 <= count <= max_tokens else None


def _word(text: str, max_tokens: int, draws: Draws, tokenizer: Tokenizer | None) -> Span | None:
    """A maximal run of letters, digits and underscores that starts as an identifier does; keywords and names alike."""
    words = [match.span() for match in _WORD.finditer(text)]
    return fitting(text, *words[draws.integer(0, len(words))], max_tokens, tokenizer) if words else None


def _line(text: str, max_tokens: int, draws: Draws, tokenizer: Tokenizer | None, *, whole: bool) -> Span | None:
    """A line without its line end: all of it, indentation included, or from a cursor inside it on."""
    lines = [match.span() for match in _LINE.finditer(text) if not match[0].isspace()]
    if not lines:
        return None
    start, end = lines[draws.integer(0, len(lines))]
    if not whole:
        line = text[start:end]
        first = start + len(line) - len(line.lstrip())
        last = start + len(line.rstrip())
        # Behind the first visible character and before the last, so that both sides of the cursor say something.
        if last - first < 2:
            return None
        start = draws.integer(first + 1, last)
    return fitting(text, start, end, max_tokens, tokenizer)


def _tokens(text: str, low: int, high: int, draws: Draws, tokenizer: Tokenizer) -> Span | None:
    """A middle that begins at any character and encodes to `low` to `high` tokens, every length alike."""
    if not text or low > high:
        return None
    for _ in range(TRIES):
        wanted = draws.integer(low, high + 1)
        start = draws.integer(0, len(text))
        window = tokenizer.encode(text[start : start + LONGEST_TOKEN * wanted])
        if len(window) < wanted:
            continue
        try:
            middle = tokenizer.decode_bytes(window[:wanted]).decode("utf-8")
        except UnicodeDecodeError:
            continue
        # Cut off here the middle may encode otherwise than as a part of the window.
        if len(tokenizer.encode(middle)) == wanted:
            return start, start + len(middle), wanted
    return None
