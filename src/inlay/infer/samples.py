"""Infilled samples for people to read: what training writes to `samples.jsonl` and the report colours.

The examples are the first of a fixed list, never picked by how they came out.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from inlay.fim.family import Order
from inlay.infer.engine import Engine
from inlay.infer.prompt import fit, prompt_of

PREFIX_CHARACTERS = 400
SUFFIX_CHARACTERS = 300


class Filled(Protocol):
    """What a sample needs of a completion: the engine's `Generation` has it, and `inlay.evaluate.answer.Answer`."""

    @property
    def text(self) -> str: ...
    @property
    def stopped(self) -> str: ...


class Gap(Protocol):
    """What a sample needs of an example; `inlay.evaluate.task.Example` has it."""

    @property
    def origin(self) -> tuple[str, str]:
        """Document id and path."""
        ...

    @property
    def category(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    @property
    def middle(self) -> str: ...
    @property
    def suffix(self) -> str: ...


def infill_samples(
    engine: Engine,
    examples: Sequence[Gap],
    *,
    step: int | None = None,
    order: Order | None = None,
    max_tokens: int = 64,
) -> list[dict[str, Any]]:
    """Fills each example greedily; one JSON-ready object each, in order (keys: see `sample_of`).

    `step` defaults to the opened checkpoint's, `order` to the first the model was trained in. A completion takes half a
    row at most: the other half is for the context.
    """
    opened = engine.opened
    max_tokens = min(max_tokens, opened.sequence_length // 2)
    chosen = order or opened.orders[0]
    room = opened.sequence_length - max_tokens - opened.fim_format.OVERHEAD
    prompts = [
        prompt_of(fit(gap.prefix, gap.suffix, room, opened.tokenizer), chosen, opened.fim_format) for gap in examples
    ]
    generations = engine.generate(prompts, max_tokens=max_tokens)
    at = opened.step if step is None else step
    return [sample_of(gap, generation, chosen, at) for gap, generation in zip(examples, generations, strict=True)]


def sample_of(gap: Gap, generation: Filled, order: str, step: int) -> dict[str, Any]:
    """One line of `samples.jsonl`: step, doc, path, category, order, prefix (its end), suffix (its beginning), gold,
    middle, stopped, exact."""
    document, path = gap.origin
    return {
        "step": step,
        "doc": document,
        "path": path,
        "category": gap.category,
        "order": order,
        "prefix": gap.prefix[-PREFIX_CHARACTERS:],
        "suffix": gap.suffix[:SUFFIX_CHARACTERS],
        "gold": gap.middle,
        "middle": generation.text,
        "stopped": generation.stopped,
        "exact": generation.text == gap.middle,
    }
