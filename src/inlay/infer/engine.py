"""Generates completions for a batch of prompts with a K/V cache: greedy or sampled, each row stopping by itself.

It decides batching (rows of like length together), the prefill (in slices, so that attention scores stay small), when
finished rows leave the batch, and where a completion ends: at any stop id of the run's format, which is never part of
the text; at the token budget, which counts text alone, so that a text of exactly the budget may still be terminated;
or at a deadline. It refuses a prompt that leaves no room in the trained context. A row's result does not depend on its
batch.

Shapes: B rows, T tokens of a slice, R reference tokens, V vocabulary, d width. Positions of -1 mark padding, which the
cache neither stores nor attends to.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from inlay.config import BadInput
from inlay.infer.detokenise import Text, detokenise
from inlay.infer.open import Opened
from inlay.infer.sampling import SamplingConfig, choose
from inlay.model.cache import ROLLBACK
from inlay.model.decode_step import DecodeStep

Stopped = Literal["eot", "sentinel", "limit", "deadline"]
"""Why a completion ended: its terminator; another stop id of the format; the token budget; the time budget."""

GREEDY = SamplingConfig()
BATCH_ROWS = 64
SLICE_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion. Log-probabilities are the model's own (before temperature and truncation), in nats."""

    ids: tuple[int, ...]
    text: str
    stopped: Stopped
    logprobs: tuple[float, ...]
    """Of each id in `ids`."""
    eot_logprob: float
    """Of the terminator at the place where the text ends, whether it was chosen there or not."""
    dropped_bytes: int = 0
    """Bytes of an unfinished character at the end, which are not in `text`."""
    invalid_bytes: int = 0
    """Bytes inside that are no UTF-8 and stand in `text` as U+FFFD."""
    reference_logprobs: tuple[float, ...] | None = None
    """Of a given middle's ids and then its terminator, where a reference was scored."""

    @property
    def logprob(self) -> float:
        """Of the whole completion, its terminator included when it ended there."""
        return sum(self.logprobs) + (self.eot_logprob if self.stopped == "eot" else 0.0)


@dataclass(slots=True)
class _Row:
    """A completion under way."""

    index: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reference_logprobs: tuple[float, ...] | None = None
    done: bool = False


class Engine:
    """Generation with one opened model. Holds no state between calls."""

    def __init__(self, opened: Opened, batch_rows: int = BATCH_ROWS, slice_tokens: int = SLICE_TOKENS) -> None:
        """`batch_rows`: prompts decoded together; `slice_tokens`: tokens of a batch that one prefill slice may hold."""
        self.opened = opened
        self.batch_rows = batch_rows
        self.slice_tokens = slice_tokens
        self.stop_ids = opened.stop_ids
        model = opened.model
        self._step = DecodeStep(model) if DecodeStep.supports(model) else None
        """How one row goes on; a model in training decodes as a batch does."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int = 64,
        sampling: SamplingConfig = GREEDY,
        references: Sequence[Sequence[int]] | None = None,
        deadline: float | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> list[Generation]:
        """All completions, in the order of `prompts`; the arguments are those of `stream`. `progress` is called with 1
        for each that is done."""
        found: dict[int, Generation] = {}
        for index, generation in self.stream(
            prompts, max_tokens=max_tokens, sampling=sampling, references=references, deadline=deadline
        ):
            found[index] = generation
            if progress is not None:
                progress(1)
        return [found[index] for index in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int = 64,
        sampling: SamplingConfig = GREEDY,
        references: Sequence[Sequence[int]] | None = None,
        deadline: float | None = None,
    ) -> Iterator[tuple[int, Generation]]:
        """Yields (prompt index, completion) as completions end.

        `prompts`: ids of each; `max_tokens`: budget of text tokens, the same for all; `references`: for each prompt
        the ids of a middle to score (teacher-forced) beside the completion; `deadline`: a `time.monotonic()` moment at
        which everything ends with what it has. Raises BadInput for an empty prompt, or one that with the budget
        exceeds the trained context.
        """
        self.check(prompts, max_tokens)
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        for start in range(0, len(order), self.batch_rows):
            indices = order[start : start + self.batch_rows]
            rows = [_Row(index) for index in indices]
            batch = [prompts[index] for index in indices]
            goals = [references[index] for index in indices] if references is not None else None
            scored = max(map(len, goals)) if goals else 0
            longest = max(map(len, batch)) + max(max_tokens, scored) + 1
            with torch.inference_mode():
                # What is scored is taken back again.
                cache = self.new_cache(len(rows), longest, max(ROLLBACK, scored))
                logits = self.prefill(cache, batch)
                if goals is not None:
                    for row, scored in zip(rows, self._score(cache, logits, batch, goals), strict=True):
                        row.reference_logprobs = scored
                yield from self._decode(cache, logits, rows, max_tokens, sampling, deadline)

    def new_cache(self, rows: int, capacity: int, rollback: int = ROLLBACK) -> Any:
        """An empty K/V cache for `rows` rows of up to `capacity` tokens each, of which `rollback` can be taken back."""
        return self.opened.model.new_cache(rows, capacity, rollback)

    def prefill(self, cache: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Appends each prompt to its row of the cache; returns the logits after its last token, [B, V] fp32."""
        hidden = self._append(cache, prompts)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=hidden.device)
        return self._logits(hidden[torch.arange(len(prompts), device=hidden.device), last])

    def continue_row(
        self, cache: Any, logits: torch.Tensor, max_tokens: int, sampling: SamplingConfig, deadline: float | None
    ) -> Generation:
        """The completion of a one-row cache whose last logits are `logits` [1, V]. Its tokens are left in the cache."""
        with torch.inference_mode():
            ((_, generation),) = self._decode(cache, logits, [_Row(0)], max_tokens, sampling, deadline)
        return generation

    def check(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        """Raises BadInput for a prompt that is empty or, with its budget and terminator, exceeds the trained
        context."""
        if max_tokens < 1:
            raise BadInput(f"max_tokens = {max_tokens}: a completion needs a budget of at least 1 token")
        limit = self.opened.sequence_length
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise BadInput(f"prompt {index} is empty; build prompts with FimFormat.prompt")
            # One place more is the terminator's, which training rows hold as well.
            if len(prompt) + max_tokens + 1 > limit:
                raise BadInput(
                    f"prompt {index} has {len(prompt)} tokens, which with max_tokens={max_tokens} and the terminator"
                    f" exceeds the trained context of {limit}: shorten its far ends or lower max_tokens"
                )

    def _append(self, cache: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Appends ids to each row of the cache, in slices; returns hidden [B, longest, d] (rubbish at padding)."""
        device = self.opened.device
        lengths = cache.lengths
        longest = max(map(len, rows))
        tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
        positions = torch.full((len(rows), longest), -1, dtype=torch.int64)
        for index, ids in enumerate(rows):
            tokens[index, : len(ids)] = torch.as_tensor(ids, dtype=torch.int64)
            positions[index, : len(ids)] = torch.arange(len(ids))
        tokens, positions = tokens.to(device), positions.to(device)
        positions = torch.where(positions >= 0, positions + lengths[:, None], positions)
        width = max(1, min(longest, self.slice_tokens // len(rows)))
        slices = [
            self.opened.model.decode(tokens[:, at : at + width], positions[:, at : at + width], cache)
            for at in range(0, longest, width)
        ]
        return torch.cat(slices, dim=1)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """fp32 logits of the tokenizer's ids; a vocabulary padded for speed has rows that mean nothing."""
        # The head runs in fp32 whatever the blocks run in: bf16 logits tie, and a tie is decided by the lower id.
        return self.opened.model.logits(hidden.float())[..., : self.opened.tokenizer.vocab_size]

    def _score(
        self, cache: Any, logits: torch.Tensor, prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of each reference and its terminator after its prompt; the cache is left as it was."""
        first = torch.log_softmax(logits, dim=-1)
        targets = [[*reference, self.opened.fim_format.eot] for reference in references]
        scored = [[float(first[row, target[0]])] for row, target in enumerate(targets)]
        longest = max(map(len, references))
        if longest > 0:
            hidden = self._append(cache, references)
            for row, target in enumerate(targets):
                if len(target) > 1:
                    wanted = torch.tensor(target[1:], device=hidden.device)
                    found = torch.log_softmax(self._logits(hidden[row, : len(target) - 1]), dim=-1)
                    scored[row].extend(found.gather(1, wanted[:, None])[:, 0].tolist())
            cache.truncate(torch.tensor([len(prompt) for prompt in prompts], device=cache.lengths.device))
        return [tuple(row) for row in scored]

    def _decode(
        self,
        cache: Any,
        logits: torch.Tensor,
        rows: list[_Row],
        max_tokens: int,
        sampling: SamplingConfig,
        deadline: float | None,
    ) -> Iterator[tuple[int, Generation]]:
        eot = self.opened.fim_format.eot
        for step in range(max_tokens + 1):
            tokens = choose(logits, sampling, [row.index for row in rows], step)
            logprobs = logits.log_softmax(dim=-1)
            chosen = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
            ends = logprobs[:, eot].tolist()
            picked = tokens.tolist()
            late = deadline is not None and time.monotonic() >= deadline
            for at, row in enumerate(rows):
                if row.done:
                    continue
                stopped: Stopped | None = None
                if picked[at] in self.stop_ids:
                    stopped = "eot" if picked[at] == eot else "sentinel"
                elif step == max_tokens:
                    stopped = "limit"
                elif late:
                    stopped = "deadline"
                if stopped is not None:
                    row.done = True
                    yield row.index, self._finish(row, stopped, ends[at])
                    continue
                row.ids.append(picked[at])
                row.logprobs.append(chosen[at])
            left = [at for at, row in enumerate(rows) if not row.done]
            if not left:
                return
            # Leaving copies the cache, so finished rows ride along until half of the batch is done.
            if 2 * len(left) <= len(rows):
                keep = torch.tensor(left, device=cache.lengths.device)
                cache = cache.select(keep)
                rows = [rows[at] for at in left]
                tokens = tokens[keep.to(tokens.device)]
            logits = self._next(cache, tokens)

    def _next(self, cache: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Appends one token [B] to each row of the cache; returns the logits after it, [B, V] fp32."""
        if self._step is not None and len(tokens) == 1:
            return self._step.logits(self._step(tokens, cache))[:, : self.opened.tokenizer.vocab_size]
        hidden = self.opened.model.decode(tokens[:, None], cache.lengths[:, None], cache)
        return self._logits(hidden[:, 0])

    def _finish(self, row: _Row, stopped: Stopped, eot_logprob: float) -> Generation:
        text: Text = detokenise(row.ids, self.opened.tokenizer)
        return Generation(
            ids=tuple(row.ids),
            text=text.text,
            stopped=stopped,
            logprobs=tuple(row.logprobs),
            eot_logprob=eot_logprob,
            dropped_bytes=text.dropped_bytes,
            invalid_bytes=text.invalid_bytes,
            reference_logprobs=row.reference_logprobs,
        )
