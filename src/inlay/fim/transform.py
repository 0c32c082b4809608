"""The transform: a piece of one document to one training example that fits its place, whole.

Context level (2207.14255 section 4.3): rows are chunked before this, so prefix, middle and suffix of an example always
share one window. The cut is made in bytes, each part is encoded as if alone, and the example is measured again. What
does not fit is taken from the head of the prefix, then from the tail of the suffix; the middle and its terminator are
never cut. A piece in which even that cannot fit stays plain text. Every example ends in a trained terminator. It
refuses an order that the family does not have, when it is made and not in the middle of a run.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator, model_validator

from inlay.config import Config
from inlay.fim.draws import Draws
from inlay.fim.family import Order
from inlay.fim.format import FimFormat, FimTokens, Ids, Region
from inlay.fim.span import Span, SpanStrategy, TextView, strategies
from inlay.fim.spans.sized import SizedSpan


class LossWeights(Config):
    """Training weight of each region's tokens, as targets. All ones is the pretraining default (all tokens)."""

    text: float = Field(1.0, ge=0.0)
    """Left-to-right text."""
    prefix: float = Field(1.0, ge=0.0)
    suffix: float = Field(1.0, ge=0.0)
    middle: float = Field(1.0, ge=0.0)
    sentinel: float = Field(1.0, ge=0.0)
    terminator: float = Field(1.0, ge=0.0)
    hint: float = Field(1.0, ge=0.0)
    header: float = Field(1.0, ge=0.0)

    def table(self) -> np.ndarray:
        """[9] float32, indexed by Region; padding is never trained."""
        weights = {region: getattr(self, region.name.lower()) for region in Region if region != Region.PADDING}
        return np.array([weights.get(region, 0.0) for region in Region], dtype=np.float32)


class FimConfig(Config):
    """How text becomes fill-in-the-middle examples."""

    family: str = "inlay"
    """Format family: sentinel strings and orders (`inlay inspect formats` lists them)."""
    rate: float = Field(0.75, ge=0.0, le=1.0)
    """Share of pieces that become FIM examples; the others stay left-to-right text."""
    orders: dict[Order, float] = Field({"psm": 0.5, "spm": 0.5})
    """Shares of the orders among FIM examples."""
    spans: dict[str, strategies.union()] = Field({"sized": SizedSpan()})  # type: ignore[valid-type]
    """Span strategies by a name of your choice, each with a `kind` and a `weight`."""
    loss: LossWeights = LossWeights()
    """Training weight of each region."""

    @field_validator("orders")
    @classmethod
    def _orders(cls, orders: dict[Order, float]) -> dict[Order, float]:
        if any(share < 0.0 for share in orders.values()) or not any(orders.values()):
            raise ValueError("shares of orders must not be negative and not all zero")
        return orders

    @model_validator(mode="after")
    def _weights(self) -> "FimConfig":
        if self.rate > 0.0 and not any(strategy.weight for strategy in self.spans.values()):
            raise ValueError("spans: every weight is zero; give at least one strategy a positive weight")
        return self


@dataclass(frozen=True, slots=True)
class Example:
    """A finished example and how it came to be.

    `strategy` and `span` (bytes of the piece) are None for plain text; `trimmed` counts outer tokens removed.
    """

    row: FimTokens
    strategy: str | None
    span: Span | None
    trimmed: int


class Transform:
    """Turns pieces into examples under one FimConfig and FimFormat. Holds no state between calls."""

    RESERVE = 8
    """Slots that the packing plan keeps for a piece beside its tokens: sentinels, terminator, re-encoding at cuts."""

    def __init__(self, config: FimConfig, form: FimFormat) -> None:
        self.config = config
        self.format = form
        self._names = [name for name, strategy in config.spans.items() if strategy.weight > 0.0]
        self._strategies: list[SpanStrategy] = [config.spans[name] for name in self._names]
        self._orders: list[Order] = [order for order, share in config.orders.items() if share > 0.0]
        for order in self._orders:
            form.check_order(order)
        self._shares = [config.orders[order] for order in self._orders]

    def __call__(self, tokens: np.ndarray, capacity: int, draws: Draws) -> Example:
        """One piece ([n] token ids that decode to valid UTF-8) to an example of at most `capacity` tokens.

        Raises ValueError when `capacity` does not hold a terminator.
        """
        if capacity < 1:
            raise ValueError(f"an example has a terminator at least; capacity {capacity} holds none")
        if draws.uniform() < self.config.rate:
            example = self._infill(tokens, capacity, draws)
            if example is not None:
                return example
        keep = _character_start(tokens, capacity - 1, self.format.starts_character)
        return Example(self.format.plain(tokens[:keep]), None, None, len(tokens) - keep)

    def _infill(self, tokens: np.ndarray, capacity: int, draws: Draws) -> Example | None:
        order = self._orders[draws.choose(self._shares)]
        weights = [strategy.weight for strategy in self._strategies]
        view = TextView(self.format.tokenizer, tokens)
        data = view.data
        while any(weights):
            chosen = draws.choose(weights)
            span = self._strategies[chosen].draw(view, draws)
            if span is not None:
                return self._cut(data, span, order, capacity, self._names[chosen])
            weights[chosen] = 0.0  # this text has no such span (no word, no line): another strategy takes its place
        return None

    def _cut(self, data: bytes, span: Span, order: Order, capacity: int, strategy: str) -> Example | None:
        encode = self.format.tokenizer.encode
        start, end = span
        middle = encode(data[start:end].decode())
        fitted = fit(
            encode(data[:start].decode()),
            encode(data[end:].decode()),
            capacity - FimFormat.OVERHEAD - len(middle),
            self.format.starts_character,
        )
        if fitted is None:
            return None
        prefix, suffix, trimmed = fitted
        return Example(self.format.render(prefix, middle, suffix, order), strategy, span, trimmed)


def fit(
    prefix: list[int], suffix: list[int], room: int, starts_character: np.ndarray
) -> tuple[list[int], list[int], int] | None:
    """Trims the outer context to `room` tokens: first the head of the prefix, then the tail of the suffix.

    Cuts stay on character boundaries (`starts_character` [V] bool, by token), so a few tokens more may go. Returns
    (prefix, suffix, tokens removed), or None when the room is negative.
    """
    if room < 0:
        return None
    excess = len(prefix) + len(suffix) - room
    if excess <= 0:
        return prefix, suffix, 0
    head = min(excess, len(prefix))
    while head < len(prefix) and not starts_character[prefix[head]]:
        head += 1
    keep = _character_start(suffix, len(suffix) - max(0, excess - head), starts_character)
    return prefix[head:], suffix[:keep], head + len(suffix) - keep


def _character_start(tokens: Ids, index: int, starts_character: np.ndarray) -> int:
    """The last index up to `index` at which `tokens` may be cut without splitting a character."""
    while 0 < index < len(tokens) and not starts_character[tokens[index]]:
        index -= 1
    return min(index, len(tokens))
