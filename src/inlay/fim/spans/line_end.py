"""From a cursor inside a line to the line's end: what an editor asks for while a line is typed."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class LineEnd(SpanStrategy):
    """The start is uniform over the line after its indentation; the line break stays in the suffix."""

    kind: Literal["line_end"] = "line_end"

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        starts = view.line_starts
        if len(starts) < 2:
            return None
        for _ in range(8):  # blank lines have no such span; a few draws find a full one, else another strategy cuts
            line = draws.integer(0, len(starts) - 1)
            begin, end = int(starts[line]), int(starts[line + 1])
            content = view.data[begin:end].rstrip(b"\r\n")
            indent = len(content) - len(content.lstrip())
            if len(content) > indent:
                return view.align(draws.integer(begin + indent, begin + len(content))), begin + len(content)
        return None
