"""Whole lines. Half of the middles include the first line's indentation, so that an empty line can be filled."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class Lines(SpanStrategy):
    """`length` counts lines; the last line break stays in the suffix, where an editor has it."""

    kind: Literal["lines"] = "lines"
    length: lengths.union() = LogUniform(high=8)  # type: ignore[valid-type]
    """Law of the number of lines."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        starts = view.line_starts
        total = len(starts) - 1
        if total < 1:
            return None
        count = min(self.length.draw(draws), total)
        first = draws.integer(0, total - count + 1)
        start, end = int(starts[first]), int(starts[first + count])
        body = view.data[start:end]
        end -= len(body) - len(body.rstrip(b"\r\n"))
        if end <= start:
            return start, start
        # Without the indentation in half of them, a tiny model never learns to indent (Falcon-H1-Tiny-Coder, 90M).
        if draws.uniform() < 0.5:
            line = view.data[start:end]
            start += len(line) - len(line.lstrip(b" \t"))
        return start, end
