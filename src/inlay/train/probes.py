"""Probes of a model in training: does it see what it must not, and is its loss what it says.

Both take one fixed row. `causality` changes tokens that a slot must not see and compares hidden states bit for bit but
for what a control row shows to be noise. `loss_gaps` holds the losses that the training path gives against a
cross-entropy in float64 that shares nothing with it but the hidden states. Legend: T slots, n of them that are
compared, d channels, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inlay.data.rows import Row
from inlay.model import Transformer
from inlay.train.guards import Finding
from inlay.train.objectives import Objectives

ROWS = 4
"""Rows of a probe's batch: as it is, with another future, with another document before, as it is. Validation runs so
many at once too, which matters where kernels are compiled by shape."""
LEAK = 1e-5
"""Of the hidden states' size: a hidden state that must not depend on a token is the same to the bit, kernels
permitting."""
NOISE = 16.0
"""Times the difference between the two equal rows."""
COMPARED = 512
"""Slots whose losses are computed again: products in float64 are slow."""
AT_ONCE = 64
TOKEN_GAP = 1e-4
"""Of the log-normaliser (or of 1): the largest gap of a token's loss to the float64 loss of the same logits, for
MOST_TOKENS of them. Sums in fp32 leave 1e-6; a log-normaliser or logits rounded to bf16 leave a quarter of its last
place."""
MOST_TOKENS = 0.98
"""More than FLIPS leave alone, and few enough for a model that has nearly all tokens right already."""
MEAN_GAP = 1e-3
"""Largest relative gap of a mean loss, beside what rounding products to bf16 explains."""
FLIPS = 3e-3
"""Share of bf16 products that two kernels may round to different neighbours, because they add in another order."""


@dataclass(frozen=True)
class Probe:
    """The fixed row on a device: tokens and positions [ROWS, T], targets [T]. Slots to `cut` (included) must not see
    what is behind, those from `document` on not what is before; None when the row has one document only."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    cut: int
    document: int | None

    @classmethod
    def of(cls, row: Row, vocab_size: int, device: torch.device) -> "Probe":
        """A probe with the row as it is."""
        starts = np.flatnonzero(row.positions == 0)
        ends = np.append(starts[1:], len(row.positions))
        longest = int(np.argmax(ends - starts))
        cut = int(starts[longest] + ends[longest]) // 2
        later = int(np.argmax((ends - starts)[1:])) + 1 if len(starts) > 1 else None
        document = None if later is None else int(starts[later])
        tokens = torch.from_numpy(np.stack([row.tokens] * ROWS)).long()
        other = (tokens[0] + vocab_size // 2 + 1) % vocab_size
        tokens[1, cut + 1 :] = other[cut + 1 :]
        if document is not None:
            tokens[2, :document] = other[:document]
        positions = torch.from_numpy(row.positions)[None].long().expand(ROWS, -1)
        return cls(
            tokens.to(device), positions.to(device), torch.from_numpy(row.targets).long().to(device), cut, document
        )

    @torch.no_grad()
    def hidden(self, model: Transformer) -> Tensor:
        """[ROWS, T, d], as training computes them."""
        return model(self.tokens, self.positions)


def causality(probe: Probe, hidden: Tensor, document_masks: bool = True) -> Finding | None:
    """Whether a hidden state of [ROWS, T, d] depends on a later token, or on another document of its row."""
    plain, future, document, control = hidden.float()
    size = plain.square().mean().sqrt()
    allowed = torch.maximum(LEAK * size, NOISE * (control - plain).abs().amax())
    seen = slice(0, probe.cut + 1)
    if (future[seen] - plain[seen]).abs().amax() > allowed:
        return Finding(
            "leaking_targets",
            f"changing tokens behind slot {probe.cut} of a row changes what the model computes up to it: it sees what"
            " it is asked for; look at the attention mask and at whatever else mixes positions",
            stops=True,
        )
    if document_masks and probe.document is not None:
        apart = slice(probe.document, None)
        if (document[apart] - plain[apart]).abs().amax() > allowed:
            return Finding(
                "leaking_targets",
                f"changing the documents before slot {probe.document} of a row changes the one that begins there,"
                " though model.document_masks is on; look at positions and masks",
                stops=True,
            )
    return None


@dataclass(frozen=True)
class LossGaps:
    """How far the losses of the training path are from float64 ones, in nats."""

    exact: float
    """The mean loss of exact logits."""
    mean: float
    """The gap of the mean to that, and what of it rounding products to the activation dtype may explain."""
    mean_allowed: float
    same: float
    """The gap of the mean to the loss of the same, maybe rounded, logits, and what other kernels may explain."""
    same_allowed: float
    token: float
    """The gap to the same logits that MOST_TOKENS keep, and what fp32 sums may explain."""
    token_allowed: float


@torch.no_grad()
def loss_gaps(hidden: Tensor, head: Tensor, targets: Tensor, losses: Tensor, softcap: float | None) -> LossGaps:
    """`losses` [n] fp32 as training has them; hidden [n, d] in the activation dtype, head [V, d] master weights,
    targets [n] int64."""
    cast = head.to(hidden.dtype)
    exact, same, normalisers = [], [], []
    for part, wanted in zip(hidden.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
        exact.append(_losses(part.double() @ cast.double().t(), wanted, softcap)[0])
        loss, normaliser = _losses((part @ cast.t()).double(), wanted, softcap)
        same.append(loss)
        normalisers.append(normaliser.abs())
    given, truth, rounded, scale = losses.double(), torch.cat(exact), torch.cat(same), torch.cat(normalisers)
    # Products in the activation dtype are off by up to half a place each; over n tokens that averages out.
    place = 0.0 if hidden.dtype == torch.float32 else torch.finfo(hidden.dtype).eps / 2
    noise = 4.0 * place * float(scale.amax()) / len(truth) ** 0.5
    mean = float(truth.mean())
    return LossGaps(
        exact=mean,
        mean=abs(float(given.mean()) - mean),
        mean_allowed=MEAN_GAP * max(mean, 1e-3) + noise,
        same=abs(float(given.mean() - rounded.mean())),
        same_allowed=MEAN_GAP * max(float(rounded.mean()), 1e-3) + noise * FLIPS**0.5,
        token=float((given - rounded).abs().quantile(MOST_TOKENS)),
        token_allowed=TOKEN_GAP * max(float(scale.median()), 1.0),
    )


def loss_precision(gaps: LossGaps) -> Finding | None:
    """Whether the training path's loss is the cross-entropy of its logits."""
    # Written so that a gap that is no number counts as one.
    if not (gaps.token <= gaps.token_allowed and gaps.same <= gaps.same_allowed):
        what = (
            f"losses differ by {gaps.token:.2g} nats a token and {gaps.same:.2g} in the mean from the float64 loss of"
            f" the same logits, where {gaps.token_allowed:.2g} and {gaps.same_allowed:.2g} are allowed: the loss is"
            " computed on rounded logits"
        )
    elif not gaps.mean <= gaps.mean_allowed:
        what = (
            f"the mean loss differs by {gaps.mean:.2g} from the {gaps.exact:.4g} nats of exact logits, where"
            f" {gaps.mean_allowed:.2g} is allowed: logits are rounded, or the loss is another one"
        )
    else:
        return None
    return Finding(
        "loss_precision",
        f"{what}; look at the type of logits and of the log-normaliser in the loss (no autocast, .float() before both)",
        stops=True,
    )


def _losses(logits: Tensor, targets: Tensor, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy and log-normaliser [n] of float64 logits [n, V], by their definition."""
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    shift = logits.amax(dim=-1, keepdim=True)
    normaliser = (logits - shift).exp().sum(dim=-1).log() + shift[:, 0]
    return normaliser - logits[torch.arange(len(logits), device=logits.device), targets], normaliser


@torch.no_grad()
def probe_loss(probe: Probe, hidden: Tensor, model: Transformer, objectives: Objectives, slots: int) -> LossGaps:
    """`loss_gaps` of the training path `objectives` on the probe's row. `slots`: of a micro-batch; the row is repeated
    to so many, so that a compiled loss meets no shape that training has not."""
    row = hidden[0]
    repeats = -(-slots // len(row))
    states, targets = row.repeat(repeats, 1)[:slots], probe.targets.repeat(repeats)[:slots]
    losses = objectives.losses(states, model.head_weight, targets)
    count = min(COMPARED, len(row), slots)
    return loss_gaps(states[:count], model.head_weight, targets[:count], losses[:count], model.config.head_softcap)
