"""One answer with all that was found out about it, before and after it was measured."""

from dataclasses import dataclass, field

from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.metric import Measure
from inlay.evaluate.sandbox.program import Outcome
from inlay.evaluate.task import Example


@dataclass(frozen=True)
class Answered:
    """An answer to an example, and what running it said."""

    example: Example
    answer: Answer
    sample: int = 0
    """Which of the example's answers this is."""
    post: str = ""
    """The text after the task's own post-processing (`TaskConfig.postprocess`)."""
    losses: Losses | None = None
    """The gold's; on the first answer of an example alone."""
    raw_outcome: Outcome | None = None
    """Of the raw text; None where nothing was run."""
    post_outcome: Outcome | None = None
    """Of the post-processed text."""


@dataclass(frozen=True)
class Scored:
    """An answer and its measures by metric name (None: not measured)."""

    answered: Answered
    measures: dict[str, Measure | None] = field(default_factory=dict)

    @property
    def example(self) -> Example:
        """The gap."""
        return self.answered.example

    @property
    def answer(self) -> Answer:
        """What came back for it."""
        return self.answered.answer

    @property
    def exact(self) -> bool:
        """Whether the raw text equals the gold."""
        return self.answer.text == self.example.middle
