"""Generates completions for a batch of prompts with a K/V cache: greedy or sampled, each row stopping by itself.

It decides batching (rows of like length together), the prefill (in slices, so that attention scores stay small), when
finished rows leave the batch, and where a completion ends: at any stop id of the run's format, which is never part of
the text; at the token budget, which counts text alone, so that a text of exactly the budget may still be terminated;
or at a deadline. It refuses a prompt that leaves no room in the trained context. A row's result does not depend on its
batch, but for what another batch shape rounds differently (1e-6 of a log-probability in fp32). Equal prompts of a
batch, such as several samples of one gap, are prefilled once.

Shapes: B rows, T tokens of a slice, R reference tokens, V vocabulary, d width. Positions of -1 mark padding, which the
cache neither stores nor attends to.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import torch

from inlay.config import BadInput
from inlay.infer.detokenise import decode_utf8
from inlay.infer.healing import NO_START, Start, vocabulary_of
from inlay.infer.infill_sampler import InfillSampler
from inlay.infer.open import Opened
from inlay.infer.sampling import SamplingConfig, choose
from inlay.model.cache import ROLLBACK
from inlay.model.decode_step import DecodeStep

Stopped = Literal["eot", "sentinel", "limit", "deadline"]
"""Why a completion ended: its terminator; another stop id of the format; the token budget; the time budget."""

GREEDY = SamplingConfig()
BATCH_ROWS = 64
SLICE_TOKENS = 8192
SCORED_TOKENS = 32768
"""Tokens of a batch that is only scored: its K/V cache and hidden states are what memory must hold."""
LOGIT_ROWS = 2048
"""Places whose logits are computed at once while scoring: at V = 150,000 in fp32, 1.2 GB."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion. Log-probabilities are the model's own (before temperature and truncation), in nats."""

    ids: tuple[int, ...]
    """With token healing the tokens that spell its start again are the first of them."""
    text: str
    """What comes behind the cursor."""
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
    before_cursor: int = 0
    """How many of `ids` lie wholly before the cursor (token healing). One that reaches over it is the text's."""

    @property
    def tokens(self) -> int:
        """Tokens of the text."""
        return len(self.ids) - self.before_cursor

    @property
    def logprob(self) -> float:
        """Of the text's tokens, and of the terminator when it ended there."""
        return sum(self.logprobs[self.before_cursor :]) + (self.eot_logprob if self.stopped == "eot" else 0.0)


@dataclass(slots=True)
class Row:
    """A completion under way."""

    index: int
    key: int | str = 0
    start: Start = NO_START
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reference_logprobs: tuple[float, ...] | None = None
    done: bool = False
    left: bytes = b""
    """What of the start is not spelled yet."""
    before_cursor: int = 0

    def __post_init__(self) -> None:
        self.left = self.start.data

    def append(self, token: int, logprob: float, size: int) -> None:
        """A token of `size` bytes more."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.left:
            self.before_cursor += size <= len(self.left)
            self.left = self.left[size:]

    def is_full(self, max_tokens: int) -> bool:
        """Whether its text has the budget, or it has used the places that its prompt gave back as well."""
        return max_tokens <= max(len(self.ids) - self.before_cursor, len(self.ids) - self.start.tokens)


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
        keys: Sequence[int | str] | None = None,
        starts: Sequence[Start] | None = None,
        infill_sampler: bool = False,
    ) -> list[Generation]:
        """All completions, in the order of `prompts`; the arguments are those of `stream`. `progress` is called with 1
        for each that is done."""
        found: dict[int, Generation] = {}
        for index, generation in self.stream(
            prompts,
            max_tokens=max_tokens,
            sampling=sampling,
            references=references,
            deadline=deadline,
            keys=keys,
            starts=starts,
            infill_sampler=infill_sampler,
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
        keys: Sequence[int | str] | None = None,
        starts: Sequence[Start] | None = None,
        infill_sampler: bool = False,
    ) -> Iterator[tuple[int, Generation]]:
        """Yields (prompt index, completion) as completions end.

        `prompts`: ids of each; `max_tokens`: budget of text tokens, the same for all; `references`: for each prompt
        the ids of a middle to score (teacher-forced) beside the completion; `deadline`: a `time.monotonic()` moment at
        which everything ends with what it has; `keys`: what names each prompt's draws, its index where nothing else is
        given; `starts`: what each completion must begin with, which its prompt no longer has (`healing.take_back`);
        `infill_sampler`: chooses and ends as llama.cpp's infill sampler does. Raises BadInput for an empty prompt, or
        one that with the budget exceeds the trained context.
        """
        begun = starts if starts is not None else [NO_START] * len(prompts)
        self.check(prompts, max_tokens, begun)
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        for first in range(0, len(order), self.batch_rows):
            indices = order[first : first + self.batch_rows]
            rows = [Row(index, index if keys is None else keys[index], begun[index]) for index in indices]
            goals = [() if references is None else tuple(references[index]) for index in indices]
            # Equal rows have one prefill.
            pairs = [(tuple(prompts[index]), goal) for index, goal in zip(indices, goals, strict=True)]
            different = {pair: at for at, pair in enumerate(dict.fromkeys(pairs))}
            batch = [prompt for prompt, _ in different]
            scored = max(map(len, goals))
            taken = max(row.start.tokens for row in rows)
            longest = max(map(len, batch)) + max(max_tokens + taken, scored) + 1
            with torch.inference_mode():
                # What is scored is taken back again.
                cache = self.new_cache(len(batch), longest, max(ROLLBACK, scored))
                logits = self.prefill(cache, batch)
                found = [None] * len(batch)
                if references is not None:
                    found = self._score(cache, logits, batch, [goal for _, goal in different])
                if len(batch) < len(rows):
                    copies = torch.tensor([different[pair] for pair in pairs], device=logits.device)
                    cache, logits = cache.select(copies), logits[copies]
                for row, pair in zip(rows, pairs, strict=True):
                    row.reference_logprobs = found[different[pair]]
                yield from self._decode(cache, logits, rows, max_tokens, sampling, deadline, infill_sampler)

    def check_scored(self, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> None:
        """Raises as `score` does."""
        limit = self.opened.sequence_length
        for index, (row, begin) in enumerate(zip(rows, firsts, strict=True)):
            if len(row) > limit:
                raise BadInput(f"row {index} has {len(row)} tokens, more than the context of {limit}")
            if not 1 <= begin <= len(row):
                raise ValueError(f"row {index} of {len(row)} tokens cannot be scored from {begin} on")

    def score(self, rows: Sequence[Sequence[int]], firsts: Sequence[int]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Yields (row index, log-probabilities of its ids from index `firsts[row]` on, in nats), teacher-forced.

        A first id has nothing before it, so that `firsts` are at least 1. Raises BadInput for a row beyond the trained
        context, ValueError for a first that is 0 or behind the row's end.
        """
        self.check_scored(rows, firsts)
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
        while order:
            fitting = max(1, min(self.batch_rows, SCORED_TOKENS // len(rows[order[0]])))
            indices, order = order[:fitting], order[fitting:]
            with torch.inference_mode():
                batch = [rows[index] for index in indices]
                hidden = self._append(self.new_cache(len(batch), len(batch[0])), batch)
                for at, index in enumerate(indices):
                    ids = rows[index]
                    wanted = torch.tensor([int(token) for token in ids[firsts[index] :]], device=hidden.device)
                    yield index, self._logprobs(hidden[at, firsts[index] - 1 : len(ids) - 1], wanted)

    def new_cache(self, rows: int, capacity: int, rollback: int = ROLLBACK) -> Any:
        """An empty K/V cache for `rows` rows of up to `capacity` tokens each, of which `rollback` can be taken back."""
        return self.opened.model.new_cache(rows, capacity, rollback)

    def prefill(self, cache: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Appends each prompt to its row of the cache; returns the logits after its last token, [B, V] fp32."""
        hidden = self._append(cache, prompts)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=hidden.device)
        return self._logits(hidden[torch.arange(len(prompts), device=hidden.device), last])

    def continue_row(
        self,
        cache: Any,
        logits: torch.Tensor,
        max_tokens: int,
        sampling: SamplingConfig,
        deadline: float | None,
        start: Start = NO_START,
        infill_sampler: bool = False,
        key: int = 0,
    ) -> Generation:
        """The completion of a one-row cache whose last logits are `logits` [1, V]. Its tokens are left in the cache.

        `key` names the draws: another one is another sample."""
        with torch.inference_mode():
            rows = [Row(0, key, start=start)]
            ((_, made),) = self._decode(cache, logits, rows, max_tokens, sampling, deadline, infill_sampler)
        return made

    def check(self, prompts: Sequence[Sequence[int]], max_tokens: int, starts: Sequence[Start] | None = None) -> None:
        """Raises BadInput for a prompt that is empty or, with what was taken off it, its budget and its terminator,
        exceeds the trained context."""
        if max_tokens < 1:
            raise BadInput(f"max_tokens = {max_tokens}: a completion needs a budget of at least 1 token")
        limit = self.opened.sequence_length
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise BadInput(f"prompt {index} is empty; build prompts with FimFormat.prompt")
            # One place more is the terminator's, which training rows hold as well.
            if len(prompt) + (starts[index].tokens if starts else 0) + max_tokens + 1 > limit:
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
                    scored[row].extend(self._logprobs(hidden[row, : len(target) - 1], wanted))
            cache.truncate(torch.tensor([len(prompt) for prompt in prompts], device=cache.lengths.device))
        return [tuple(row) for row in scored]

    def _logprobs(self, hidden: torch.Tensor, wanted: torch.Tensor) -> tuple[float, ...]:
        """Of `wanted` [R], each after its `hidden` [R, d]."""
        found: list[float] = []
        for part, ids in zip(hidden.split(LOGIT_ROWS), wanted.split(LOGIT_ROWS), strict=True):
            found += torch.log_softmax(self._logits(part), dim=-1).gather(1, ids[:, None])[:, 0].tolist()
        return tuple(found)

    def _decode(
        self,
        cache: Any,
        logits: torch.Tensor,
        rows: list[Row],
        max_tokens: int,
        sampling: SamplingConfig,
        deadline: float | None,
        infill_sampler: bool = False,
    ) -> Iterator[tuple[int, Generation]]:
        eot, tokenizer = self.opened.fim_format.eot, self.opened.tokenizer
        rule = InfillSampler(tokenizer, self.stop_ids, eot) if infill_sampler else None
        # Truncation is the rule's: what it leaves is drawn from as it is.
        drawn = SamplingConfig(temperature=sampling.temperature, seed=sampling.seed) if rule else sampling
        vocabulary = vocabulary_of(tokenizer) if any(row.left for row in rows) else None
        for step in count():
            allowed = logits
            if vocabulary is not None:
                allowed = vocabulary.narrow(allowed, [b"" if row.done else row.left for row in rows])
            if rule is not None:
                allowed = rule.narrow(allowed, sampling)
            tokens = choose(allowed, drawn, [row.key for row in rows], step)
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
                elif row.is_full(max_tokens):
                    stopped = "limit"
                elif late:
                    stopped = "deadline"
                if stopped is not None:
                    row.done = True
                    yield row.index, self.finish(row, stopped, ends[at])
                    continue
                row.append(picked[at], chosen[at], int(tokenizer.token_lengths[picked[at]]) if row.left else 0)
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

    def finish(self, row: Row, stopped: Stopped, eot_logprob: float) -> Generation:
        # A start that was not spelled to its end leaves no text.
        text = decode_utf8(self.opened.tokenizer.decode_bytes(row.ids)[len(row.start.data) :])
        return Generation(
            ids=tuple(row.ids),
            text=text.text,
            stopped=stopped,
            logprobs=tuple(row.logprobs),
            eot_logprob=eot_logprob,
            dropped_bytes=text.dropped_bytes,
            invalid_bytes=text.invalid_bytes,
            reference_logprobs=row.reference_logprobs,
            before_cursor=row.before_cursor,
        )
