"""One syntax node, drawn in proportion to its size: half of AST-FIM (2506.00204 section 3)."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from inlay.config import Share
from inlay.fim.draws import Draws
from inlay.fim.lengths.log_uniform import LogUniform
from inlay.fim.marks import kind_groups
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, draw_lines, strategies

_TRIES = 8


@strategies.register
class AstNode(SpanStrategy):
    """Every node that is neither too small nor too large is a candidate; its probability is its share of their bytes.

    Draws None without syntax, and from a text in which no node is a candidate.
    """

    needs_syntax: ClassVar[bool] = True

    kind: Literal["ast_node"] = "ast_node"
    min_bytes: int = Field(5, ge=1, le=1 << 30)
    """Smaller nodes are not candidates."""
    max_share: float = Field(0.5, gt=0.0, le=1.0)
    """Nodes with a larger share of the piece's bytes are not candidates."""
    max_tokens: int = Field(100, ge=1, le=1 << 24)
    """Nodes that touch more tokens are not candidates."""
    weights: dict[str, Share] = Field({})
    """Node kinds (or shell patterns of their names: `if_*`) with weights: a kind is drawn by weight among those that
    the text has, then a node of it by size. Empty: by size alone."""

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if weights and (min(weights.values()) < 0.0 or not any(weights.values())):
            raise ValueError("weights of node kinds must not be negative and not all zero")
        return weights

    def draw(self, view: TextView, draws: Draws) -> Span | None:
        if view.syntax is None or len(view.syntax.nodes) == 0:
            return None
        starts, ends = view.syntax.nodes[:, 0], view.syntax.nodes[:, 1]
        sizes = ends - starts
        mass = np.where((sizes >= self.min_bytes) & (sizes <= view.size * self.max_share), sizes, 0)
        if not self.weights:
            # Few nodes are above the cap, so redrawing them is cheaper than counting everyone's tokens: the law is one.
            found = self._redraw(view, mass, draws)
            if found is not None:
                return found
        offsets = view.token_offsets
        tokens = offsets.searchsorted(ends) - offsets.searchsorted(starts, side="right") + 1
        mass = np.where(tokens <= self.max_tokens, mass, 0).astype(np.float64)
        if self.weights:
            mass = self._weighted(mass, view.syntax)
        heaps = np.cumsum(mass)
        if heaps[-1] <= 0.0:
            return None
        node = int(heaps.searchsorted(draws.uniform() * heaps[-1], side="right"))
        return _span(view, node)

    def instead(self, view: TextView, draws: Draws) -> Span | None:
        # Nodes in proportion to their size are short and long ones alike, on a logarithmic scale.
        return draw_lines(view, draws, LogUniform(high=self.max_tokens), self.max_tokens)

    def _redraw(self, view: TextView, mass: np.ndarray, draws: Draws) -> Span | None:
        """A candidate by size, redrawn while it is above the cap of tokens; None when a few draws find none below."""
        heaps = np.cumsum(mass)
        total = int(heaps[-1])
        for _ in range(_TRIES if total else 0):
            start, end = _span(view, int(heaps.searchsorted(draws.integer(0, total), side="right")))
            if view.tokens_in(start, end) <= self.max_tokens:
                return start, end
        return None

    def _weighted(self, mass: np.ndarray, syntax: Syntax) -> np.ndarray:
        """`mass` [N] with the sum over each kind brought to the kind's weight, 0 for kinds without one."""
        groups = kind_groups(syntax.kinds, tuple(self.weights))[syntax.nodes[:, 2]]
        totals = np.bincount(groups + 1, weights=mass, minlength=len(self.weights) + 1)[1:]
        scales = np.divide(list(self.weights.values()), totals, out=np.zeros(len(totals)), where=totals > 0.0)
        return mass * np.append(scales, 0.0)[groups]


def _span(view: TextView, node: int) -> Span:
    start, end, _ = view.syntax.nodes[node].tolist()  # type: ignore[union-attr]
    return view.align(start), view.align_up(end)
