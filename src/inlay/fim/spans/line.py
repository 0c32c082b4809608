"""One whole line, the single-line benchmark's cut (2207.14255 section 2.2)."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, draw_line, strategies


@strategies.register
class Line(SpanStrategy):
    """Every line that is not blank alike; its line break stays in the suffix."""

    kind: Literal["line"] = "line"

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        found = draw_line(view, draws)
        return found and (found[0], found[2])
