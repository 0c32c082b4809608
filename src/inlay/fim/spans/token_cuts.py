"""Both ends on token borders: the token cut of 2207.14255 table 2, which fails where a cursor splits a word."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, room_for, strategies


@strategies.register
class TokenCuts(SpanStrategy):
    """Starts at any token of the document; `length` counts tokens.

    A border inside a character moves outward to the next one that splits none. For comparisons: a model trained on this
    alone does not complete words (`tokens` has a free start, `sized` two free ends).
    """

    kind: Literal["token_cuts"] = "token_cuts"
    length: lengths.union() = LogUniform()  # type: ignore[valid-type]
    """Law of the middle's length in tokens of the document."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        room = room_for(view)
        if view.size == 0 or self.length.least > room:
            return None
        length = self.length.draw(draws, room)
        first = draws.integer(0, len(view.tokens) - length + 1)
        last = first + length
        offsets = view.token_offsets
        while (start := int(offsets[first])) != view.align(start):
            first -= 1
        while (end := int(offsets[last])) != view.align(end):
            last += 1
        return start, end
