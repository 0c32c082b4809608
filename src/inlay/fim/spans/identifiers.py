"""A whole identifier, or its rest from a cursor inside it: the middle of a word being typed."""

import re
from typing import Literal

from pydantic import Field

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, strategies
from inlay.text.syntax_walk import OPEN_BYTES

_TRIES = 64
_BORDER = re.compile(rb"(?<=_)(?=[^_])|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where snake_case and camelCase words begin; `HTTPServer` has one between `HTTP` and `Server`."""
_DIGITS = b"0123456789"
_NO_CODE = ("comment", "string")


@strategies.register
class Identifiers(SpanStrategy):
    """Every word that does not begin with a digit alike. With syntax no keyword outside the smallest nodes, and no word
    of a comment or a string. None when 64 words that are drawn are none.
    """

    kind: Literal["identifiers"] = "identifiers"
    whole: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the middles that are a whole identifier; the others begin inside one and end where it ends."""
    borders: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the inner starts that stand where a part of a snake_case or camelCase name begins, where it has parts;
    the others stand behind any of its characters."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        found = self._identifier(view, draws)
        if found is None:
            return None
        start, end = found
        if draws.uniform() < self.whole:
            return found
        data = view.window(start, end)
        places = [match.start() for match in _BORDER.finditer(data)]
        if places and draws.uniform() < self.borders:
            return start + places[draws.integer(0, len(places))], end
        text = data.decode()
        if len(text) < 2:
            return found
        return start + len(text[: draws.integer(1, len(text))].encode()), end

    def _identifier(self, view: TextView, draws: Draws) -> Span | None:
        total = view.word_count
        # Asking every word would cost a thousand draws, and where 64 are none there is next to nothing to cut.
        for _ in range(_TRIES if total else 0):
            word = view.word(draws.integer(0, total))
            if _is_identifier(view, word):
                return word
        return None


def _is_identifier(view: TextView, word: Span) -> bool:
    start, end = word
    if view.window(start, start + 1) in _DIGITS:
        return False
    if view.syntax is None:
        return True
    node = view.syntax.around(start, end)
    if node < 0:
        return True  # the piece begins or ends inside everything that is around this word
    first, last, kind = view.syntax.nodes[node].tolist()
    # In a node that was looked into, a name is a node of its own; a keyword is none.
    named = (first, last) == word or last - first < OPEN_BYTES
    return named and not any(part in view.syntax.kinds[kind] for part in _NO_CODE)
