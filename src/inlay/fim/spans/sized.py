"""A byte-position cut whose length in tokens follows a law: the length-controlled cut of seed 000."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class SizedSpan(SpanStrategy):
    """Starts at any byte; ends inside the token that completes the drawn length, so both ends may split a word."""

    kind: Literal["sized"] = "sized"
    length: lengths.union() = LogUniform()  # type: ignore[valid-type]
    """Law of the middle's length in tokens of the document."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        size = view.size
        if size == 0:
            return None
        start = view.align(draws.integer(0, size))
        last = min(view.token_at(start) + self.length.draw(draws), len(view.token_offsets) - 1)
        low = max(start, int(view.token_offsets[last - 1]))
        end = view.align(draws.integer(low + 1, int(view.token_offsets[last]) + 1))
        # A step back to a character boundary may have emptied a one-character middle: take the whole character.
        return start, max(end, view.align_up(start + 1))
