"""Whole lines: the shape of a block that is written at once."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class Lines(SpanStrategy):
    """`length` counts lines; the last line break stays in the suffix, where an editor has it, and so do blank lines at
    the end.
    """

    kind: Literal["lines"] = "lines"
    length: lengths.union() = LogUniform(high=8)  # type: ignore[valid-type]
    """Law of the number of lines."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        starts = view.line_starts
        total = len(starts) - 1
        if total < self.length.least:
            return None
        count = self.length.draw(draws, total)
        first = draws.integer(0, total - count + 1)
        start, end = int(starts[first]), int(starts[first + count])
        return start, max(start, view.last_not(b"\r\n", end) + 1)
