"""A random span snapped to syntax: the other half of AST-FIM (2506.00204 section 3)."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.uniform import Uniform
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, draw_lines, draw_start, strategies

_TRIES = 8


@strategies.register
class AstAligned(SpanStrategy):
    """A span of a drawn length from a random byte is replaced by the run of sibling nodes that overlaps it best.

    Comments at the end of a run stay in the suffix. A run above `max_tokens` is drawn again. Draws None without syntax,
    and when a few draws meet no run.
    """

    needs_syntax: ClassVar[bool] = True

    kind: Literal["ast_aligned"] = "ast_aligned"
    length: lengths.union() = Uniform()  # type: ignore[valid-type]
    """Law of the length, in tokens of the document, of the span that is then aligned."""
    max_tokens: int = Field(100, ge=1, le=1 << 24)
    """Runs that touch more tokens are drawn again."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        if view.size == 0 or view.syntax is None or len(view.syntax.nodes) == 0:
            return None
        for _ in range(_TRIES):
            found = draw_start(view, draws, self.length)
            if found is None:
                return None
            left, last = found
            run = aligned_run(view.syntax, left, int(view.token_offsets[last]))
            if run is None:
                continue
            start, end = _range(view.syntax, run)
            if view.tokens_in(start, end) <= self.max_tokens and (start, end) != (0, view.size):
                return view.align(start), view.align_up(end)
        return None

    def instead(self, view: TextView, draws: Draws) -> Span | None:
        return draw_lines(view, draws, self.length, self.max_tokens)


def aligned_run(syntax: Syntax, left: int, right: int) -> np.ndarray | None:
    """The run of nodes that stands for [left, right), left < right: indices of siblings, in order, [k] with k >= 1.

    Of the deepest node that contains [left, right), the contiguous run of children with the largest intersection over
    union with it (of equals the longest, then the first), where a run reaches from its first byte to its last; the node
    itself when no run overlaps. A text whose top node is missing is a forest, whose roots are then the children. None
    when nothing overlaps [left, right).
    """
    starts, ends = syntax.nodes[:, 0], syntax.nodes[:, 1]
    parent = syntax.around(left, right)
    itself = np.array([parent]) if parent >= 0 else None
    first = parent + 1
    stop = int(starts.searchsorted(ends[parent])) if parent >= 0 else len(starts)
    if first == stop:
        return itself
    # A node is a child when all that precede it below the parent have ended: a descendant lies inside one of them.
    reach = np.maximum.accumulate(ends[first:stop])
    later = first + 1 + np.flatnonzero(starts[first + 1 : stop] >= reach[:-1])
    children = np.concatenate(([first], later))
    begins, finishes = starts[children], ends[children]
    # A child inside [left, right) only adds to the overlap. So the best run begins with the child that sticks out on
    # the left or the one behind it; or, where none does, with the first inside or the one before it, whose union with
    # it takes in the gap between them. The right side likewise.
    head = int(finishes.searchsorted(left, side="right"))
    tail = int(begins.searchsorted(right)) - 1
    head -= int(head == len(children) or begins[head] >= left)
    tail += int(tail < 0 or finishes[tail] <= right)
    best, best_overlap, best_union = itself, 0, 1
    for one in range(max(head, 0), min(head + 2, len(children))):
        for two in range(min(tail, len(children) - 1), max(tail - 2, one - 1), -1):
            start, end = int(begins[one]), int(finishes[two])
            overlap = min(end, right) - max(start, left)
            union = end - start + right - left - overlap
            if overlap * best_union > best_overlap * union:
                best, best_overlap, best_union = children[one : two + 1], overlap, union
    return best


def _range(syntax: Syntax, run: np.ndarray) -> Span:
    """Bytes from the first to the last node of a run, without the comments that end it."""
    last = len(run) - 1
    while last > 0 and "comment" in syntax.kinds[syntax.nodes[run[last], 2]]:
        last -= 1
    return int(syntax.nodes[run[0], 0]), int(syntax.nodes[run[last], 1])
