"""Best of n: which of several answers to one gap is handed out, decided without the gold.

The rule is that of 2207.14255 (section 4.3 and appendix): answers that ended with their terminator are preferred, for
one that did not end did not find its way to the suffix; among those kept the likeliest wins, by mean log-probability
per token (the terminator counted) or in total. It refuses answers without log-probabilities.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from inlay.config import BadInput

Rank = Literal["mean", "total"]


class Ranked(Protocol):
    """What the rule looks at, of an answer in an evaluation and of a completion alike."""

    @property
    def stopped(self) -> str:
        """Why it ended; `eot` for its terminator."""
        ...

    @property
    def logprob(self) -> float | None:
        """Of the text, and of the terminator where it ended there."""
        ...

    @property
    def mean_logprob(self) -> float | None:
        """`logprob` per token, the terminator counted where it ended there."""
        ...


def best_of(answers: Sequence[Ranked], rank: Rank = "mean") -> int:
    """The index of the answer to hand out. Equal ones: the first.

    Raises BadInput when an answer that is to be ranked has no log-probability, ValueError without answers.
    """
    if not answers:
        raise ValueError("no answers to choose from")
    ended = [index for index, answer in enumerate(answers) if answer.stopped == "eot"]
    kept = ended or list(range(len(answers)))
    scores: list[float] = []
    for index in kept:
        score = answers[index].mean_logprob if rank == "mean" else answers[index].logprob
        if score is None:
            raise BadInput("best of n ranks by log-probability, which these answers do not have: leave best of n out")
        scores.append(score)
    return kept[scores.index(max(scores))]


def can_rank(answers: Sequence[Sequence[Ranked]]) -> bool:
    """Whether `best_of` can choose everywhere: each gap has several answers, and all of them log-probabilities."""
    return bool(answers) and all(
        len(found) > 1 and all(answer.mean_logprob is not None for answer in found) for found in answers
    )


def share_without_end(answers: Sequence[Sequence[Ranked]]) -> float:
    """The share of gaps of which no answer ended with its terminator; 0 without gaps."""
    return sum(all(answer.stopped != "eot" for answer in found) for found in answers) / max(1, len(answers))
