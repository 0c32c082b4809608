"""One completion at a cursor: text before and after it in, the insertion out.

It decides how much of the surroundings the model sees (see `inlay.infer.prompt`) and refuses an order that the run's
format does not have. What is inserted is the model's raw text up to where it stopped: nothing is stripped.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from inlay.config import validate
from inlay.fim.family import Order
from inlay.infer.best_of import Rank, best_of
from inlay.infer.engine import Engine, Stopped
from inlay.infer.healing import NO_START, take_back
from inlay.infer.open import DtypeName, Opened, open_model
from inlay.infer.prompt import Context, fit, prompt_of
from inlay.infer.sampling import SamplingConfig
from inlay.infer.session import Session


class CompleteConfig(SamplingConfig):
    """How a completion is made."""

    order: Order | None = None
    """Layout of the prompt; None takes spm where the model was trained in it (it makes keystrokes cheap), else the
    first order it was trained in."""
    max_tokens: int = Field(64, ge=1, le=1 << 24)
    """Budget of text tokens; a completion that reaches it says so in `stopped`."""
    heal: bool = False
    """Token healing: where the cursor stands inside a word, its tokens are taken back and completed as one."""
    infill_sampler: bool = False
    """Chooses and ends as llama.cpp's infill sampler does, which wants top_k (else 40) and top_p (else 0.9)."""
    best_of: int = Field(1, ge=1, le=64)
    """Samples to take, of which the best is handed out, by the rule of the evaluation's best of n; more than one wants
    a temperature."""
    rank: Rank = "mean"
    """What is best among samples that ended alike: the mean log-probability per token, or the total."""
    deadline_seconds: float | None = Field(None, gt=0.0, le=86400.0)
    """Time after which the completion ends with what it has; None waits."""
    dtype: DtypeName = "float32"
    """Number format of the weights: float32, bfloat16, or auto."""
    family: str | None = None
    """FIM format of a Hugging Face folder whose tokenizer does not tell; None finds it."""
    sequence_length: int | None = Field(None, ge=1, le=1 << 24)
    """Context of a Hugging Face folder; None takes its own, at most 4096."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "CompleteConfig":
        if self.best_of > 1 and self.temperature == 0.0:
            raise ValueError(
                f"best_of {self.best_of} with temperature 0 would be {self.best_of} times the same text: give a"
                " temperature, such as temperature=0.8"
            )
        return self


@dataclass(frozen=True, slots=True)
class Completion:
    """An insertion and how it came about."""

    text: str
    stopped: Stopped
    tokens: int
    """Text tokens generated."""
    logprob: float
    """Of the text, and of the terminator when it ended there; nats."""
    eot_logprob: float
    """Of the terminator at the end of the text; nats."""
    seconds: float
    """From the request to the text, without opening the model."""
    order: Order
    prompt_tokens: int
    reused_tokens: int
    """Prompt tokens taken from the session's cache."""
    trimmed: bool
    """Whether the far ends of the surroundings did not fit."""

    @property
    def mean_logprob(self) -> float:
        """`logprob` per token, the terminator counted where it ended there."""
        return self.logprob / max(1, self.tokens + (self.stopped == "eot"))

    def to_dict(self) -> dict[str, Any]:
        """The completion as plain JSON types."""
        return {**asdict(self), "mean_logprob": self.mean_logprob}


class Completer:
    """Completions with one opened model; the K/V cache is kept from one to the next."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._session = Session(Engine(opened))

    def complete(self, prefix: str, suffix: str, config: CompleteConfig | None = None) -> Completion:
        """The insertion between `prefix` and `suffix`: the best of `config.best_of`. Raises BadInput when the budget
        leaves no room for a prompt."""
        config = config or CompleteConfig()
        found = self.candidates(prefix, suffix, config)
        return found[best_of(found, config.rank)]

    def candidates(self, prefix: str, suffix: str, config: CompleteConfig) -> list[Completion]:
        """`config.best_of` samples in the order of their draws. Raises BadInput as `complete` does."""
        return [self._sample(prefix, suffix, config, key) for key in range(config.best_of)]

    def _sample(self, prefix: str, suffix: str, config: CompleteConfig, key: int) -> Completion:
        started = time.monotonic()
        fim_format = self.opened.fim_format
        room = self.opened.sequence_length - config.max_tokens - fim_format.OVERHEAD
        context = fit(prefix, suffix, room, self.opened.tokenizer)
        order = config.order or self.opened.orders[0]
        start = NO_START
        if config.heal:
            # The family's leading space belongs to a prefix that is not empty.
            kept, start = take_back(context.prefix, self.opened.tokenizer, keep=1 if fim_format.dummy else 0)
            context = Context(kept, context.suffix, context.trimmed)
        prompt = prompt_of(context, order, fim_format)
        result = self._session.generate(
            prompt,
            max_tokens=config.max_tokens,
            sampling=config,
            deadline=None if config.deadline_seconds is None else started + config.deadline_seconds,
            start=start,
            infill_sampler=config.infill_sampler,
            key=key,
        )
        generation = result.generation
        return Completion(
            text=generation.text,
            stopped=generation.stopped,
            tokens=generation.tokens,
            logprob=generation.logprob,
            eot_logprob=generation.eot_logprob,
            seconds=time.monotonic() - started,
            order=order,
            prompt_tokens=len(prompt),
            reused_tokens=result.reused,
            trimmed=context.trimmed,
        )


def candidates(target: str | Path, prefix: str, suffix: str, config: CompleteConfig) -> tuple[list[Completion], int]:
    """Opens `target` and takes `config.best_of` samples; they, and the index of the best. Errors as of `complete`."""
    opened = open_model(target, dtype=config.dtype, family=config.family, sequence_length=config.sequence_length)
    found = Completer(opened).candidates(prefix, suffix, config)
    return found, best_of(found, config.rank)


def complete(
    target: str | Path, prefix: str, suffix: str, config: CompleteConfig | None = None, **options: Any
) -> Completion:
    """Opens `target` (see `open_model`) and completes between `prefix` and `suffix` once.

    `options` are fields of CompleteConfig and go over `config`: `complete(run, "def f(", "):", max_tokens=16)`. Raises
    BadInput for a bad target or option, InlayError for damaged files.
    """
    merged = {**(config or CompleteConfig()).to_dict(), **options}
    checked = validate(CompleteConfig, merged, where="complete")
    found, best = candidates(target, prefix, suffix, checked)
    return found[best]
