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
        total = view.word_count
        if total < self.length.least:
            return None
        count = self.length.draw(draws, total)
        first = draws.integer(0, total - count + 1)
        return view.word(first)[0], view.word(first + count - 1)[1]
