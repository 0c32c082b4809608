"""The contract of what is evaluated: a run, an export, a transformers model, a server, a file of completions.

A subject answers gaps in one or more orders and says who it is. It decides how a gap becomes a prompt; it never sees
the gold answer but to be asked for its loss, and never the tests. One file each in `inlay.evaluate.subjects`;
`open_subject` there chooses.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from inlay.config import BadInput
from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.task import Example, Examples
from inlay.infer.sampling import SamplingConfig
from inlay.text.tokenizer import Tokenizer


class Decoding(SamplingConfig):
    """How answers are made. Temperature 0 is greedy."""

    samples: int = Field(1, ge=1, le=10_000)
    """Answers to each gap; more than one wants a temperature above 0."""
    rank: Literal["mean", "total"] = "mean"
    """How best-of-n ranks the answers that ended by themselves: by log-probability per token, or in total."""
    heal: bool = False
    """Token healing: takes back the prompt's last tokens before the cursor, and makes the answer begin with their
    text."""
    infill_sampler: bool = False
    """Ends an answer as llama.cpp's infill sampler does: when 3 p(end) n exceeds p(text), n candidates left. Its
    candidates are those of top_k and top_p (40 and 0.9 where nothing is said), also at temperature 0."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "Decoding":
        if self.samples > 1 and self.temperature == 0.0:
            raise BadInput(f"samples = {self.samples} with temperature = 0 are all the same: add temperature=0.2, say")
        return self

    @property
    def title(self) -> str:
        """For people: "greedy", "8 samples at temperature 0.2, top_p 0.95"."""
        if self.temperature == 0.0:
            text = "greedy"
        else:
            text = f"{self.samples} sample{'s' if self.samples > 1 else ''} at temperature {self.temperature:g}"
            text += "" if self.top_p is None else f", top_p {self.top_p:g}"
            text += "" if self.top_k is None else f", top_k {self.top_k}"
        text += ", token healing" if self.heal else ""
        return text + (", infill sampler" if self.infill_sampler else "")


GREEDY = Decoding()


class Subject(ABC):
    """Something that fills gaps."""

    orders: tuple[str, ...]
    """The ways it can be asked, best first: "psm", "spm", "spm_v2" ..., "infill" and "completions" for servers, "given"
    for a file of completions."""
    tokenizer: Tokenizer | None = None
    """None where tokens cannot be counted."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What a report needs to say which model this is, as plain JSON types; has at least `name` (short, for a
        heading), `kind` (the sort of subject), `step` and `weights_hash` (None where there is none)."""

    @property
    @abstractmethod
    def key(self) -> str | None:
        """Changes whenever its answers may: cached answers of another key are not used. None: never cache."""

    @abstractmethod
    def answers(
        self, examples: Sequence[Example], order: str, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yields (index in `examples`, its `decoding.samples` answers) as they are done, in any order.

        An answer depends on the example's id, never on its place in `examples`. Raises BadInput when it cannot be asked
        so.
        """

    def losses(self, examples: Sequence[Example], order: str, max_tokens: int) -> Iterator[tuple[int, Losses]]:
        """Yields (index, losses of the gold) for every example; nothing where losses cannot be known."""
        return iter(())

    def gold_trouble(self, example: Example, order: str, max_tokens: int) -> str | None:
        """Why the gold answer does not survive the way through prompt, ids and back to text; None when it does."""
        return None

    def gold_answer(self, example: Example) -> Answer:
        """The gold as this subject would bring it back: through its ids and detokenisation where it has ids."""
        count = None if self.tokenizer is None else len(self.tokenizer.encode(example.middle))
        return Answer(text=example.middle, stopped="eot", tokens=count, leaked=False)

    def decoding(self, asked: Decoding, examples: Examples) -> Decoding:
        """The decoding that `examples` are answered with: the one asked for, but where the answers are there already
        (a file of completions says itself how many samples it has)."""
        return asked

    def check_order(self, order: str) -> None:
        """Raises BadInput for an order it cannot be asked in; `orders` are those that it is asked in by itself."""
        if order not in self.orders:
            raise BadInput(f"{self.identity['name']} has no order '{order}': {', '.join(self.orders)}")

    def check_budget(self, max_tokens: int) -> None:  # noqa: B027 (most have no context to know of)
        """Raises BadInput when answers of `max_tokens` leave no room for a prompt."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Releases what it holds."""
