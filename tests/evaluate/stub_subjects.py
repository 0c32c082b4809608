"""Subjects whose answers are known: what a harness must see in each is known too."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.subject import Decoding, Subject
from inlay.evaluate.task import Example

Reply = Callable[[Example, int], Answer]
"""The answer to an example's sample."""


class StubSubject(Subject):
    """Answers by a function; counts what it was asked."""

    def __init__(self, reply: Reply, orders: tuple[str, ...] = ("psm", "spm"), key: str | None = None) -> None:
        self.reply = reply
        self.orders = orders
        self.asked: list[str] = []
        self._key = key

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": "stub", "kind": "stub", "step": 7, "weights_hash": None}

    @property
    def key(self) -> str | None:
        return self._key

    def answers(
        self, examples: Sequence[Example], order: str, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Answer]]]:
        for at, example in enumerate(examples):
            self.asked.append(example.id)
            yield at, [self.reply(example, sample) for sample in range(decoding.samples)]

    def losses(self, examples: Sequence[Example], order: str, max_tokens: int) -> Iterator[tuple[int, Losses]]:
        for at, example in enumerate(examples):
            yield at, Losses(float(len(example.middle)), max(1, len(example.middle)), 0.5)


def gold(example: Example, sample: int) -> Answer:
    """The gold answer, ended as it should be."""
    return Answer(example.middle, "eot", tokens=len(example.middle), logprob=-1.0, eot_logprob=-0.1, leaked=False)


def silent(example: Example, sample: int) -> Answer:
    """Nothing at all."""
    return Answer("", "eot", tokens=0, logprob=-0.1, eot_logprob=-0.1, leaked=False)
