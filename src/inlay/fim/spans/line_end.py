"""From a cursor inside a line to the line's end: what an editor asks for while a line is typed."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, draw_line, strategies


@strategies.register
class LineEnd(SpanStrategy):
    """The start is uniform over the line after its indentation; the line break stays in the suffix."""

    kind: Literal["line_end"] = "line_end"

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        found = draw_line(view, draws)
        if found is None:
            return None
        _, visible, end = found
        return view.align(draws.integer(visible, end)), end
