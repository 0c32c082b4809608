"""Starts at any character and ends where a token ends: a cursor anywhere, and a completion that ends cleanly."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, draw_start, strategies


@strategies.register
class TokenSpan(SpanStrategy):
    """`length` counts tokens of the document, the one that the start falls into included."""

    kind: Literal["tokens"] = "tokens"
    length: lengths.union() = LogUniform()  # type: ignore[valid-type]
    """Law of the middle's length in tokens of the document."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        found = draw_start(view, draws, self.length)
        if found is None:
            return None
        start, last = found
        # A token may end inside a character; the cut may not.
        return start, view.align_up(int(view.token_offsets[last]))
