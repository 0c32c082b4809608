"""How the next token is chosen from the logits: greedily, or by a draw that is keyed and so never depends on the batch.

A draw is a hash of (seed, key, step), the key being the prompt's index or what the caller names it by: the same key and
prompt give the same text alone, in a batch, and on any machine whose logits agree. There is no generator to carry.
Shapes: B rows, V vocabulary, K candidates.
"""

from collections.abc import Sequence

import torch
from pydantic import Field

from inlay.config import Config
from inlay.fim.draws import Draws


class SamplingConfig(Config):
    """How tokens are chosen. Temperature 0 is greedy, and then the other options have no effect."""

    temperature: float = Field(0.0, ge=0.0, le=1000.0)
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    top_k: int | None = Field(None, ge=1, le=1 << 24)
    """Sample among this many likeliest tokens only."""
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    """Sample among the likeliest tokens that together hold this probability only (nucleus sampling, 1904.09751)."""
    seed: int = Field(0, ge=0, le=(1 << 63) - 1)
    """Key of every draw."""


def choose(logits: torch.Tensor, sampling: SamplingConfig, keys: Sequence[int | str], step: int) -> torch.Tensor:
    """The next token of each row. `logits` [B, V] fp32; `keys` name the B draws; returns [B] int64."""
    if sampling.temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities, order = candidates(logits, sampling)
    marks = torch.tensor([Draws(sampling.seed, "sample", key, step).uniform() for key in keys], dtype=torch.float64)
    cumulative = probabilities.double().cumsum(dim=-1)
    targets = marks.to(cumulative.device)[:, None] * cumulative[:, -1:]
    # `right=True` skips candidates of probability zero even when the draw is exactly zero.
    picked = torch.searchsorted(cumulative, targets, right=True).clamp(max=cumulative.shape[1] - 1)
    return order.gather(1, picked)[:, 0]


def candidates(logits: torch.Tensor, sampling: SamplingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Unnormalised probabilities of the candidates, likeliest first, and their ids; both [B, K]."""
    count = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    values, order = logits.topk(count, dim=-1)
    probabilities = torch.softmax(values / sampling.temperature, dim=-1)
    if sampling.top_p is not None:
        # A candidate stays while the mass before it is below top_p, so the likeliest always stays.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = torch.where(before < sampling.top_p, probabilities, 0.0)
    return probabilities, order
