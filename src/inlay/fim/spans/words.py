"""A run of whole words with what stands between them: the shape of most suggestions that people accept."""

from typing import Literal

from inlay.fim.draws import Draws
from inlay.fim.length import lengths
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.span import Span, SpanStrategy, TextView, strategies


@strategies.register
class WordSpan(SpanStrategy):
    """Starts where a word starts and ends where a word ends; `length` counts words."""

    kind: Literal["words"] = "words"
    length: lengths.union() = LogUniform(high=12)  # type: ignore[valid-type]
    """Law of the number of words."""

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        words = view.words
        if len(words) == 0:
            return None
        count = min(self.length.draw(draws), len(words))
        first = draws.integer(0, len(words) - count + 1)
        return int(words[first, 0]), int(words[first + count - 1, 1])
