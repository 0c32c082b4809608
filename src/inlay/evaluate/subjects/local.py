"""Our own models as a subject: a run, a checkpoint, an export or a model in memory, through the batched engine.

It decides the prompt (far ends trimmed to the context that the budget leaves, the same for every example of a list, and
other files of the repository where the family has a form for them), and names every draw by the example's id and the
sample's number, so that an answer never depends on the batch, the order or the length of the list. It refuses an order
that the family does not have.

The loss of the gold's infilling prompt is computed beside the answers, in their prefill, and remembered; asking for
losses afterwards costs the left-to-right passes alone, and those once for all orders. A gold that is longer than the
budget is scored in a window that is shortened for it; one that no window holds has no losses.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from inlay import __version__
from inlay.config import BadInput
from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.subject import Decoding, Subject
from inlay.evaluate.task import Example
from inlay.fim.family import Order
from inlay.infer.detokenise import detokenise
from inlay.infer.engine import BATCH_ROWS, Engine, Generation
from inlay.infer.healing import NO_START, Start, take_back
from inlay.infer.open import Opened
from inlay.infer.prompt import Context, fit_with_files, prompt_of

CHUNK = 1024
"""Examples whose prompts are held at once; the engine sorts and batches within them."""

Infilled = tuple[float, int, float]
"""Nats of the middle, its tokens, nats of the terminator."""
Plain = tuple[float | None, float | None, int | None]
"""Nats of the middle and of the document left to right, and the bytes of the latter."""


class LocalSubject(Subject):
    """A model that inlay opens."""

    def __init__(
        self, opened: Opened, batch_rows: int = BATCH_ROWS, window: int | None = None, *, engine: Engine | None = None
    ) -> None:
        """`batch_rows`: prompts decoded together; `window`: tokens of prompt and completion together, where they are to
        be fewer than the model was trained on; `engine`: another than ours, with its interface. Raises BadInput for a
        window that is more."""
        if window is not None:
            if not 1 <= window <= opened.sequence_length:
                raise BadInput(f"window = {window}: the model was trained on 1 to {opened.sequence_length} tokens")
            opened = replace(opened, sequence_length=window)
        self.opened = opened
        self.orders = opened.orders
        self.tokenizer = opened.tokenizer
        self._format = opened.fim_format
        self._specials = frozenset(opened.tokenizer.special.values())
        self._engine = engine or Engine(opened, batch_rows=batch_rows)
        self._infilled: dict[tuple[str, str, int], Infilled] = {}
        self._plain: dict[tuple[str, int], Plain] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """That of the model, with what is shown of other files."""
        opened = self.opened
        where = opened.run or opened.checkpoint
        kind = "run" if opened.run is not None else "folder" if opened.checkpoint is not None else "memory"
        name = "model in memory" if where is None else where.resolve().name
        return {**opened.identity, "name": name, "kind": kind, "other_files": self._other_files()}

    @property
    def key(self) -> str | None:
        """Of weights, architecture, tokenizer, format, context, numbers and versions; None without a weights hash."""
        opened = self.opened
        if not opened.weights_hash:
            return None
        parts = {
            "subject": "local",
            "weights": opened.weights_hash,
            "model": opened.model.config.to_dict(),
            "tokenizer": opened.tokenizer.hash,
            "format": self._format.family.to_dict(),
            "stop_ids": sorted(opened.stop_ids),
            "sequence_length": opened.sequence_length,
            "dtype": str(opened.dtype),
            "device": opened.device.type,
            "inlay": __version__,
            "torch": torch.__version__,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def answers(
        self, examples: Sequence[Example], order: str, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Answer]]]:
        """As the contract says; the samples of an example share one prefill."""
        checked = self._order(order)
        for first in range(0, len(examples), CHUNK):
            chunk = examples[first : first + CHUNK]
            for index, generations in self._generate(chunk, checked, max_tokens, decoding):
                yield first + index, [Answer.of(made, self._specials) for made in generations]

    def losses(self, examples: Sequence[Example], order: str, max_tokens: int) -> Iterator[tuple[int, Losses]]:
        """As the contract says. Left out are examples whose gold is longer than the context."""
        checked = self._order(order)
        for first in range(0, len(examples), CHUNK):
            chunk = examples[first : first + CHUNK]
            self._score_plain(chunk, max_tokens)
            self._score_infilled(chunk, checked, max_tokens)
            for index, example in enumerate(chunk):
                found = self._infilled.get((_content(example), checked, max_tokens))
                if found is not None:
                    middle, tokens, end = found
                    l2r, document, size = self._plain[_content(example), max_tokens]
                    yield first + index, Losses(middle, tokens, end, l2r, document, size)

    def check_budget(self, max_tokens: int) -> None:
        """As the contract says."""
        if self._room(max_tokens) < 1:
            raise BadInput(
                f"answers of up to {max_tokens} tokens leave no room for a prompt in the context of"
                f" {self.opened.sequence_length} that the model was trained on: lower the task's max_tokens"
            )

    def gold_trouble(self, example: Example, order: str, max_tokens: int) -> str | None:
        """Whether the rendered example reads back as the very piece of the document that it was made from."""
        checked = self._order(order)
        fim_format, tokenizer = self._format, self.opened.tokenizer
        context = self._context(example, max_tokens)
        gold = tokenizer.encode(example.middle)
        row = fim_format.render(context.prefix, gold, context.suffix, checked, context.header)
        try:
            piece = fim_format.restore(row)
        except ValueError as error:
            return f"{order} prompt: {error}"
        before, after = example.prefix.encode("utf-8"), example.suffix.encode("utf-8")
        kept_before = len(tokenizer.decode_bytes(context.prefix))
        kept_after = len(tokenizer.decode_bytes(context.suffix))
        if piece != before[len(before) - kept_before :] + example.middle.encode("utf-8") + after[:kept_after]:
            return f"{order} prompt does not read back as the document"
        # In a joint order the sub-token at the cut is the middle's, so the prompt need not be the row's beginning.
        begins = [*prompt_of(context, checked, fim_format), *gold] == row.tokens[:-1].tolist()
        return None if begins or fim_format.joins(checked) else f"{order} prompt is not what a training row begins with"

    def gold_answer(self, example: Example) -> Answer:
        """The gold through ids and back."""
        ids = self.opened.tokenizer.encode(example.middle)
        text = detokenise(ids, self.opened.tokenizer)
        made = Generation(tuple(ids), text.text, "eot", (), 0.0, text.dropped_bytes, text.invalid_bytes)
        answer = Answer.of(made, self._specials)
        return Answer(answer.text, "eot", answer.tokens, leaked=answer.leaked, broken_bytes=answer.broken_bytes)

    def _generate(
        self, examples: Sequence[Example], order: Order, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Generation]]]:
        prompts: list[list[int]] = []
        starts: list[Start] = []
        golds: list[list[int]] = []
        for example in examples:
            context = self._context(example, max_tokens)
            start = NO_START
            if decoding.heal:
                # The family's leading space belongs to a prefix that is not empty.
                kept, start = take_back(context.prefix, self.opened.tokenizer, keep=1 if self._format.dummy else 0)
                context = Context(kept, context.suffix, context.trimmed, context.header)
            prompts.append(prompt_of(context, order, self._format))
            starts.append(start)
            golds.append(self.opened.tokenizer.encode(example.middle))
        # Healing asks another prompt than the one whose loss is wanted; a long gold wants another window.
        scored = [not decoding.heal and len(gold) <= max_tokens for gold in golds]
        samples = decoding.samples
        repeated = [index for index in range(len(examples)) for _ in range(samples)]
        stream = self._engine.stream(
            [prompts[index] for index in repeated],
            max_tokens=max_tokens,
            sampling=decoding,
            references=[golds[index] if scored[index] else [] for index in repeated] if any(scored) else None,
            keys=[f"{examples[index].id} {at % samples}" for at, index in enumerate(repeated)],
            starts=[starts[index] for index in repeated],
            infill_sampler=decoding.infill_sampler,
        )
        waiting: dict[int, dict[int, Generation]] = {}
        for at, made in stream:
            index, sample = divmod(at, samples)
            found = waiting.setdefault(index, {})
            found[sample] = made
            if scored[index] and made.reference_logprobs is not None:
                key = _content(examples[index]), order, max_tokens
                self._infilled[key] = _infilled(made.reference_logprobs)
            if len(found) == samples:
                yield index, [found[sample] for sample in range(samples)]
                del waiting[index]

    def _score_infilled(self, examples: Sequence[Example], order: Order, max_tokens: int) -> None:
        """Remembers the losses of infilling prompts that are not known yet."""
        rows, firsts, keys = [], [], []
        for example in examples:
            key = _content(example), order, max_tokens
            gold = self.opened.tokenizer.encode(example.middle)
            if key in self._infilled or self._room(max(max_tokens, len(gold))) < 0:
                continue
            prompt = prompt_of(self._context(example, max(max_tokens, len(gold))), order, self._format)
            rows.append([*prompt, *gold, self._format.eot])
            firsts.append(len(prompt))
            keys.append(key)
        for index, logprobs in self._engine.score(rows, firsts):
            self._infilled[keys[index]] = _infilled(logprobs)

    def _score_plain(self, examples: Sequence[Example], max_tokens: int) -> None:
        """Remembers the losses of left-to-right windows that are not known yet: they are the same for every order."""
        tokenizer, limit = self.opened.tokenizer, self.opened.sequence_length
        bos = [] if self._format.bos is None else [self._format.bos]
        rows, firsts, places = [], [], []
        found: dict[tuple[str, int], list[float | None]] = {}
        sizes: dict[tuple[str, int], int] = {}
        for example in examples:
            key = _content(example), max_tokens
            gold = tokenizer.encode(example.middle)
            room = max(max_tokens, len(gold))
            if key in self._plain or key in found or self._room(room) < 0:
                continue
            context = self._context(example, room)
            found[key] = [None, None]
            before = [*bos, *context.prefix]
            if not gold:
                found[key][0] = 0.0
            elif before:  # without anything before it the first token has no probability
                rows.append([*before, *gold])
                firsts.append(len(before))
                places.append((key, 0))
            around = (tokenizer.decode_bytes(ids).decode() for ids in (context.prefix, context.suffix))
            ids = [*bos, *tokenizer.encode(example.middle.join(around))][:limit]
            if len(ids) > len(bos) + 1:
                rows.append(ids)
                firsts.append(len(bos) + 1)
                places.append((key, 1))
                sizes[key] = int(tokenizer.token_lengths[ids[len(bos) + 1 :]].sum())
        for index, logprobs in self._engine.score(rows, firsts):
            key, place = places[index]
            found[key][place] = -sum(logprobs)
        for key, (l2r, document) in found.items():
            self._plain[key] = l2r, document, sizes.get(key)

    def _context(self, example: Example, max_tokens: int) -> Context:
        files = [(file.path, file.text) for file in example.context]
        room = self._room(max_tokens)
        return fit_with_files(example.prefix, example.suffix, room, self._format, files, example.repo, example.path)

    def _room(self, max_tokens: int) -> int:
        """Tokens of surroundings; the same for every example, so that nothing of the gold shows in it."""
        return self.opened.sequence_length - max_tokens - self._format.OVERHEAD

    def _order(self, order: str) -> Order:
        for known in self._format.family.orders:
            if known == order:
                return known
        orders = ", ".join(self._format.family.orders)
        raise BadInput(f"the run's format '{self._format.name}' has no order '{order}': {orders}")

    def _other_files(self) -> str:
        """What becomes of a cross-file example's other files, in a few words."""
        if self._format.family.repository is None:
            return f"left out: format '{self._format.name}' has no repository form"
        level = (self.opened.config.get("fim") or {}).get("level")
        trained = "" if level == "repository" else "; the model was not trained on repositories"
        return f"repository form of '{self._format.name}'{trained}"


def _infilled(logprobs: tuple[float, ...]) -> Infilled:
    return -sum(logprobs[:-1]), len(logprobs) - 1, -logprobs[-1]


def _content(example: Example) -> str:
    """Names what an example asks and its gold; ids of two tasks may be alike."""
    files = [[file.path, file.text] for file in example.context]
    parts = [example.prefix, example.middle, example.suffix, example.path, example.repo, files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
