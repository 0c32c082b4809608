"""A byte-position cut whose length in tokens follows a law: the length-controlled cut of seed 000."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, draw_start, strategies


@strategies.register
class SizedSpan(SpanStrategy):
    """Starts at any byte; ends inside the token that completes the drawn length, so both ends may split a word."""

    kind: Literal["sized"] = "sized"
    length: lengths.union() = LogUniform()  # type: ignore[valid-type]
    """Law of the middle's length in tokens of the document."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        found = draw_start(view, draws, self.length)
        if found is None:
            return None
        start, last = found
        low = max(start, int(view.token_offsets[last - 1]))
        end = view.align(draws.integer(low + 1, int(view.token_offsets[last]) + 1))
        # A step back to a character boundary may have emptied a one-character middle: take the whole character.
        return start, max(end, view.align_up(start + 1))
