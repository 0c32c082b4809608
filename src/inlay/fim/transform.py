"""The transform: a piece of one document to one training example that fits its place, whole.

The cut is made in bytes, each part gets the ids it would have if it were encoded alone (`inlay.fim.splice`), and the
example is measured again. What does not fit is taken from the head of the prefix, then from the tail of the suffix; the
middle and its terminator are never cut. A piece in which even that cannot fit stays plain text. Every example ends in a
trained terminator. It refuses an order that the family does not have, hints without the sentinels for them, and weights
that name nothing, when it is made and not in the middle of a run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from inlay.config import Config, Share
from inlay.fim.draws import Draws
from inlay.fim.example import FimTokens, Header, Hints, Ids, Region
from inlay.fim.family import Order
from inlay.fim.format import FimFormat
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, apply_indentation, strategies, whole_lines
from inlay.fim.spans.sized import SizedSpan
from inlay.fim.splice import Splicer

_TRIES = 16
"""Draws of one strategy that may be a whole piece until the piece counts as one that it cannot cut."""
Fallback = Literal["no syntax", "no node"]
Level = Literal["context", "document", "repository"]


class LossWeights(Config):
    """Training weight of each region's tokens, as targets. All ones is the pretraining default (all tokens)."""

    text: float = Field(1.0, ge=0.0, le=1e6)
    """Left-to-right text."""
    prefix: float = Field(1.0, ge=0.0, le=1e6)
    suffix: float = Field(1.0, ge=0.0, le=1e6)
    middle: float = Field(1.0, ge=0.0, le=1e6)
    sentinel: float = Field(1.0, ge=0.0, le=1e6)
    terminator: float = Field(1.0, ge=0.0, le=1e6)
    hint: float = Field(1.0, ge=0.0, le=1e6)
    header: float = Field(1.0, ge=0.0, le=1e6)

    @model_validator(mode="after")
    def _something(self) -> "LossWeights":
        if not any(vars(self).values()):
            raise ValueError("every weight is 0, so that nothing would be trained")
        return self

    def table(self) -> np.ndarray:
        """[9] float32, indexed by Region; padding is never trained."""
        weights = {region: getattr(self, region.name.lower()) for region in Region if region != Region.PADDING}
        return np.array([weights.get(region, 0.0) for region in Region], dtype=np.float32)


class HintConfig(Config):
    """Line hints: the middle is made of whole lines, and what is known of its first and last one is told (FIM-SE,
    2405.17103 section 3)."""

    rate: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the FIM examples that get hints."""
    blank: float = Field(0.25, ge=0.0, le=1.0)
    """Probability with which each of the two hints is left empty."""


class FimConfig(Config):
    """How text becomes fill-in-the-middle examples."""

    family: str = "inlay"
    """Format family: sentinel strings and orders (`inlay inspect formats` lists them)."""
    rate: float = Field(0.75, ge=0.0, le=1.0)
    """Share of pieces that become FIM examples; the others stay left-to-right text."""
    level: Level = "context"
    """What is cut: a piece that fits a row, a whole document that is chunked afterwards, or the last file of a window
    with other files of its repository."""
    served_names: float = Field(0.1, ge=0.0, le=1.0)
    """Share of examples at repository level with the names that llama.cpp fills in, `myproject` and `filename`."""
    orders: dict[Order, Share] = Field({"psm": 0.5, "spm": 0.5})
    """Shares of the orders among FIM examples."""
    spans: dict[str, strategies.union()] = Field({"sized": SizedSpan()})  # type: ignore[valid-type]
    """Span strategies by a name of your choice, each with a `kind` and a `weight`."""
    indentation: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the middles that start a line which include its indentation."""
    hints: HintConfig = HintConfig()
    """Line hints (FIM-SE)."""
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
    """A finished example and how it came to be."""

    row: FimTokens
    strategy: str | None
    """Name of the strategy that cut; None for plain text."""
    span: Span | None
    """Bytes of the piece that are the middle; None for plain text."""
    trimmed: int
    """Outer tokens removed to fit."""
    node_kind: str | None = None
    """Kind of the syntax node that the middle is, or begins with."""
    fallback: Fallback | None = None
    """Why lines or tokens under the strategy's law took the place of a syntax node: the document has no syntax, or no
    node fits this piece and nothing else may be cut. None for what its strategy cut."""


class Transform:
    """Turns pieces into examples under one FimConfig and FimFormat. Holds no state between calls."""

    RESERVE = 8
    """Slots that the packing plan keeps for a piece beside its tokens: sentinels, terminator, re-encoding at cuts."""

    def __init__(self, config: FimConfig, form: FimFormat) -> None:
        """Raises BadInput for an order or hints that the format does not have."""
        self.config = config
        self.format = form
        self._names = [name for name, strategy in config.spans.items() if strategy.weight > 0.0]
        self._strategies: list[SpanStrategy] = [config.spans[name] for name in self._names]
        self._weights = [strategy.weight for strategy in self._strategies]
        self._orders: list[Order] = [order for order, share in config.orders.items() if share > 0.0]
        for order in self._orders:
            form.check_order(order)
            if config.hints.rate:
                form.check_hints(order)
        self._shares = [config.orders[order] for order in self._orders]
        self._splicer = Splicer(form.tokenizer)
        self.needs_syntax = config.rate > 0.0 and any(strategy.needs_syntax for strategy in self._strategies)
        """Whether some strategy cuts by syntax nodes."""
        self._syntactic = next((index for index, s in enumerate(self._strategies) if s.needs_syntax), None)

    def __call__(
        self,
        tokens: np.ndarray,
        capacity: int,
        draws: Draws,
        *,
        syntax: Syntax | Callable[[], Syntax | None] | None = None,
        whole: bool = True,
        header: Header | None = None,
    ) -> Example:
        """One piece ([n] token ids that decode to valid UTF-8) to an example of at most `capacity` tokens.

        `syntax`: nodes of the piece, None where it was not parsed; a function is called when they are looked at.
        `whole`: both ends of the piece are pre-token borders of its document. `header`: what stands before the example
        in its window, inside `capacity`. Raises ValueError when `capacity` does not hold the header and what an empty
        example has.
        """
        if header is not None:
            capacity -= len(header.tokens)
        room = capacity - self.format.overhead(None)
        if room < 0:
            raise ValueError(f"no room for a terminator: its place holds {-room} tokens too few")
        if len(tokens) and draws.uniform() < self.config.rate:
            view = TextView(self.format.tokenizer, tokens, syntax)
            example = self._infill(view, capacity, draws, whole, header)
            if example is not None:
                return example
        keep = character_upto(tokens, room, self.format.starts_character)
        return Example(self.format.plain(tokens[:keep], header), None, None, len(tokens) - keep)

    def _infill(
        self, view: TextView, capacity: int, draws: Draws, whole: bool, header: Header | None
    ) -> Example | None:
        order = self._orders[draws.choose(self._shares)]
        drawn = self._draw(view, draws)
        if drawn is None:
            return None
        strategy, span, node, fallback = drawn
        hints: Hints | None = None
        if draws.uniform() < self.config.hints.rate:
            wider, hints = self._hinted(view, span, draws)
            room = capacity - self.format.overhead(order, hinted=True) - len(hints[0]) - len(hints[1])
            made = None if wider == (0, view.size) else self._cut(view, wider, order, room, whole, header, hints)
            if made is not None:  # whole lines may be too long for a place that holds the cut itself
                return Example(made[0], strategy, wider, made[1], node, fallback)
        made = self._cut(view, span, order, capacity - self.format.overhead(order), whole, header, None)
        return made and Example(made[0], strategy, span, made[1], node, fallback)

    def _draw(self, view: TextView, draws: Draws) -> tuple[str, Span, str | None, Fallback | None] | None:
        """(name of the strategy, span, node kind, why something took the place of syntax); None when nothing can be
        cut. The span is never the whole piece: draws that are, are made again."""
        weights = list(self._weights)
        while any(weights):
            chosen = draws.choose(weights)
            name, strategy = self._names[chosen], self._strategies[chosen]
            if strategy.needs_syntax and view.syntax is None:
                found, fallback = self._part(strategy.instead, view, draws), "no syntax"
            else:
                found, fallback = self._part(strategy.draw, view, draws), None
            if found is not None:
                drawn, span = found
                looks = strategy.needs_syntax and view.syntax is not None
                return name, span, view.syntax.kind_at(*drawn) if looks and view.syntax else None, fallback
            weights[chosen] = 0.0  # this text has no such span (no word, no line): another strategy takes its place
        if self._syntactic is not None and view.syntax is not None:
            # A piece without a node of its own, such as the inside of a long string, where nothing else may be cut.
            found = self._part(self._strategies[self._syntactic].instead, view, draws)
            if found is not None:
                return self._names[self._syntactic], found[1], None, "no node"
        return None

    def _part(
        self, draw: Callable[[TextView, Draws], Span | None], view: TextView, draws: Draws
    ) -> tuple[Span, Span] | None:
        """(a span that is drawn, the same under the rule of indentation), which is not the whole piece; None where
        there is none: with prefix and suffix empty the model would learn to write with nothing to go by."""
        for _ in range(_TRIES):
            drawn = draw(view, draws)
            if drawn is None:
                return None
            span = apply_indentation(view, drawn, draws, self.config.indentation)
            if span != (0, view.size):
                return drawn, span
        return None

    def _cut(
        self,
        view: TextView,
        span: Span,
        order: Order,
        room: int,
        whole: bool,
        header: Header | None,
        hints: Hints | None,
    ) -> tuple[FimTokens, int] | None:
        """The example with this middle, and how many outer tokens were removed; None when the middle does not fit."""
        form = self.format
        if form.joins(order):
            # Prefix and middle are one text: no sub-token is split at the cut, the one it falls into is to be filled.
            together = self._splicer.upto(view, span[1], whole)
            ends = np.cumsum(form.tokenizer.token_lengths[together])
            first = int(ends.searchsorted(span[0], side="right"))
            before, middle = together[:first], together[first:]
            after = self._splicer.cut(view, span[1], span[1], whole).suffix
        else:
            parts = self._splicer.cut(view, *span, whole=whole)
            before, middle, after = parts.prefix, parts.middle, parts.suffix
        fitted = fit(before, after, room - len(middle), form.starts_character)
        if fitted is None:
            return None
        prefix, suffix, trimmed = fitted
        if len(middle) and not len(prefix) and not len(suffix):
            return None  # nothing is left to go by
        if form.joins(order):
            together = np.concatenate((prefix, middle))
            return form.render_joint(together, len(prefix), suffix, order, header, hints), trimmed
        return form.render(prefix, middle, suffix, order, header, hints), trimmed

    def _hinted(self, view: TextView, span: Span, draws: Draws) -> tuple[Span, Hints]:
        """The span widened to whole lines, and what is known of the first line's beginning and the last line's end."""
        start, end = whole_lines(view, span)
        known = (view.window(start, span[0]), view.window(span[1], end))
        encode = self.format.tokenizer.encode
        first, last = ([] if draws.uniform() < self.config.hints.blank else encode(part.decode()) for part in known)
        return (start, end), (first, last)


def fit(
    prefix: np.ndarray, suffix: np.ndarray, room: int, starts_character: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Trims the outer context to `room` tokens: first the head of the prefix, then the tail of the suffix.

    Cuts stay on character boundaries (`starts_character` [V] bool, by token), so a few tokens more may go. Returns
    (prefix, suffix, tokens removed), or None when the room is negative.
    """
    if room < 0:
        return None
    excess = len(prefix) + len(suffix) - room
    if excess <= 0:
        return prefix, suffix, 0
    head = character_from(prefix, min(excess, len(prefix)), starts_character)
    keep = character_upto(suffix, len(suffix) - max(0, excess - head), starts_character)
    return prefix[head:], suffix[:keep], head + len(suffix) - keep


def character_upto(tokens: Ids, index: int, starts_character: np.ndarray) -> int:
    """The last index up to `index` at which `tokens` may be cut without splitting a character."""
    while 0 < index < len(tokens) and not starts_character[tokens[index]]:
        index -= 1
    return min(index, len(tokens))


def character_from(tokens: Ids, index: int, starts_character: np.ndarray) -> int:
    """The first index from `index` on at which a character starts, or the end of `tokens`."""
    while index < len(tokens) and not starts_character[tokens[index]]:
        index += 1
    return index
