"""Two cuts, uniform over byte positions: the baseline of 2207.14255, with no control of the middle's length."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class RandomSpan(SpanStrategy):
    """Both ends are drawn independently and sorted; the middle may be empty."""

    kind: Literal["random"] = "random"

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        one, two = (view.align(draws.integer(0, view.size + 1)) for _ in range(2))
        return min(one, two), max(one, two)
