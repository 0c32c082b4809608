"""What came back for one gap: the text, why it ended, and what it cost, whoever made it.

A run, a transformers model, a server and a file of completions all answer in this form. What one of them cannot know is
None, which every metric reads as "not measured", never as zero.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from inlay.infer.engine import Generation

Ended = Literal["eot", "sentinel", "limit", "deadline", "unknown"]
"""Why an answer ended: its terminator; another stop token of the format; the token budget; the time budget; nobody
says (a file of completions)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion of one gap. Log-probabilities are the model's own (before temperature and truncation), in nats."""

    text: str
    stopped: Ended
    tokens: int | None = None
    """Text tokens generated, the terminator not counted."""
    logprob: float | None = None
    """Of the text, and of the terminator where it ended there."""
    eot_logprob: float | None = None
    """Of the terminator at the end of the text, chosen there or not."""
    leaked: bool | None = None
    """Whether special tokens stand in it, or it ended at a stop token that is not the terminator."""
    broken_bytes: int = 0
    """Bytes that are no UTF-8, or belong to a character that its end cut short."""
    seconds: float | None = None
    """From request to answer, where it was made alone (a server); None in a batch."""

    @classmethod
    def of(cls, generation: "Generation", special_ids: frozenset[int]) -> "Answer":
        """The engine's completion as an answer; `special_ids` are those that have no place in code."""
        leaked = generation.stopped == "sentinel" or any(one in special_ids for one in generation.ids)
        broken = generation.invalid_bytes + (generation.dropped_bytes if generation.stopped == "eot" else 0)
        return cls(
            text=generation.text,
            stopped=generation.stopped,
            tokens=generation.tokens,
            logprob=generation.logprob,
            eot_logprob=generation.eot_logprob,
            leaked=leaked,
            broken_bytes=broken,
        )

    @property
    def mean_logprob(self) -> float | None:
        """`logprob` per token, the terminator counted where it ended there."""
        if self.logprob is None or self.tokens is None:
            return None
        return self.logprob / max(1, self.tokens + (self.stopped == "eot"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Answer":
        """Raises TypeError for unknown or missing keys."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Losses:
    """Teacher-forced losses of one example, in nats, and the weights to divide them by."""

    middle_nats: float
    """Of the gold middle's tokens in the infilling prompt, without terminator."""
    middle_tokens: int
    terminator_nats: float
    """Of the terminator after the gold middle."""
    l2r_nats: float | None = None
    """Of the same middle read left to right after the prefix alone, without sentinels."""
    document_nats: float | None = None
    """Of the whole window (prefix, middle, suffix as they fit) read left to right, without its first token."""
    document_bytes: int | None = None
    """Bytes of the tokens in `document_nats`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Losses":
        """Raises TypeError for unknown or missing keys."""
        return cls(**data)
