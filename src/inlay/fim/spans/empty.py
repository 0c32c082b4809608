"""An empty middle: the cursor is where nothing is missing, and the model must say so by stopping at once."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class EmptySpan(SpanStrategy):
    """A zero-length span at any character boundary."""

    kind: Literal["empty"] = "empty"

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        position = view.align(draws.integer(0, view.size + 1))
        return position, position
