"""What a model is trained on: the next token, and what its configuration adds (one more token, the middle's length).

Each objective is a weighted sum over the slots of a batch, divided by its own weight sum over the whole batch (not over
a micro-batch), and these add up: next token + mtp.weight * MTP + horizon.weight * horizon. Which slots an objective has
follows from `positions` and what rows carry. Only training calls this; validation measures the next token alone.
Legend: B rows, T slots, b rows of a micro-batch, n = b T of its slots, d channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from inlay.data.loader import Batch
from inlay.data.rows import relative_horizon
from inlay.model.auxiliary import MTP
from inlay.model.mixer import Context
from inlay.model.transformer import BlockCall, Transformer
from inlay.train.loss import ChunkStep, cross_entropy, step_with


@dataclass(frozen=True)
class Target:
    """What an objective wants of a batch: `values` [B, T], and `weights` [B, T] fp32 (0 where it wants nothing)."""

    values: np.ndarray
    weights: np.ndarray


def token_after_next(batch: Batch) -> Target:
    """The targets of multi-token prediction: at slot t the target of slot t + 1 with its weight, where both are of one
    document. The last slot of a document has none."""
    values, weights = np.zeros_like(batch.targets), np.zeros_like(batch.weights)
    follows = batch.positions[:, 1:] == batch.positions[:, :-1] + 1
    values[:, :-1] = batch.targets[:, 1:]
    weights[:, :-1] = np.where(follows, batch.weights[:, 1:], 0.0)
    return Target(values, weights)


def share_to_come(batch: Batch) -> Target:
    """The targets of horizon-length prediction: 1 at a middle's first token, 0 at its terminator. All slots of middles
    that are trained at all count alike."""
    values = relative_horizon(batch.remaining)
    wanted = np.isfinite(values) & (batch.weights > 0.0)
    return Target(np.where(wanted, values, 0.0).astype(np.float32), wanted.astype(np.float32))


@dataclass
class Measured:
    """What the forward passes of a step found."""

    losses: list[Tensor] = field(default_factory=list)
    """fp32 [n] of each micro-batch in order: the loss of each next token, unweighted."""
    sums: dict[str, tuple[Tensor, float]] = field(default_factory=dict)
    """By name: (weighted sum over the batch, its weight) of each other objective."""

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Adds a micro-batch's weighted sum; `weight` is the whole batch's."""
        before = self.sums.get(name)
        self.sums[name] = (value if before is None else before[0] + value, weight)


class _Placed:
    """A target on a device: `values` [B, T] (int64 or fp32), `weights` [B, T], `scale` one over their sum (0-d)."""

    def __init__(self, target: Target, device: torch.device) -> None:
        values = torch.from_numpy(target.values).to(device)
        self.values = values if values.is_floating_point() else values.long()
        self.weights = torch.from_numpy(target.weights).to(device)
        self.total = float(target.weights.sum())
        self.scale = torch.tensor(1.0 / max(self.total, 1e-9), device=device)

    def flat(self, part: slice) -> tuple[Tensor, Tensor]:
        """Values and weights [n] of some rows."""
        return self.values[part].flatten(), self.weights[part].flatten()


class Objectives:
    """The loss of `model` on batches, eager until `compile` is called."""

    def __init__(self, model: Transformer, z_loss: float = 0.0) -> None:
        """`z_loss`: see `TrainConfig`."""
        self._model = model
        self._z_loss = z_loss
        self._blocks: Sequence[BlockCall] | None = None
        self._mtp_block: BlockCall | None = None
        self._step: ChunkStep = self._eager_step()

    def compile(self) -> None:
        """Compiles blocks and loss for static shapes: one graph for the whole run, shared by layers of one kind."""
        self._blocks = [torch.compile(block, dynamic=False) for block in self._model.blocks]
        if self._model.mtp is not None:
            self._mtp_block = torch.compile(self._model.mtp.block, dynamic=False)
        self._step = torch.compile(self._eager_step(), dynamic=False)

    def eager(self) -> None:
        """Takes `compile` back."""
        self._blocks = self._mtp_block = None
        self._step = self._eager_step()

    def _eager_step(self) -> ChunkStep:
        return step_with(self._model.config.head_softcap, self._z_loss)

    def backward(self, batch: Batch, rows: int) -> Measured:
        """Adds the gradient of the whole loss on `batch` to that of the parameters, in micro-batches of `rows` rows."""
        model = self._model
        device = model.embedding.weight.device
        tokens, positions = (
            torch.from_numpy(array).to(device, torch.int64) for array in (batch.tokens, batch.positions)
        )
        main = _Placed(Target(batch.targets, batch.weights), device)
        mtp = None if model.mtp is None else _Placed(token_after_next(batch), device)
        horizon = None if model.horizon is None else _Placed(share_to_come(batch), device)
        measured = Measured()
        for begin in range(0, len(tokens), rows):
            part = slice(begin, begin + rows)
            context = model.context(positions[part])
            hidden = model(tokens[part], positions[part], self._blocks, context)
            if model.mtp is None or mtp is None:
                loss, each = self._cross_entropy(hidden.flatten(0, 1), *main.flat(part), main.scale)
            else:
                deeper = self._deeper(model.mtp, hidden, main.values[part], context)
                loss, each = self._two_tokens(hidden, deeper, main, mtp, part, measured)
            if horizon is not None:
                loss = loss + self._horizon(hidden, horizon, part, measured)
            loss.backward()
            measured.losses.append(each)
        return measured

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(hidden, self._model.head_weight, targets, weights, scale, self._step)

    def _deeper(self, mtp: MTP, hidden: Tensor, targets: Tensor, context: Context) -> Tensor:
        """The hidden states [b, T, d] that predict the token after the next."""
        model = self._model
        # The token behind slot t is its target: `tokens` would show the last slot of a document the next document.
        embedded = model.embedding(targets).to(model.compute_dtype)
        block = mtp.block if self._mtp_block is None else self._mtp_block
        return mtp(hidden, embedded, context, partial(model.run_block, block))

    def _two_tokens(
        self, hidden: Tensor, deeper: Tensor, main: _Placed, mtp: _Placed, part: slice, measured: Measured
    ) -> tuple[Tensor, Tensor]:
        """The weighted losses of both depths together, and that of each next token [n], in one pass over the head: it
        then has one [V, d] gradient at a time, not two."""
        config = self._model.config.mtp
        if config is None:
            raise AssertionError("the model has no multi-token prediction")
        (targets, weights), (later, later_weights) = main.flat(part), mtp.flat(part)
        loss, each = self._cross_entropy(
            torch.cat([hidden.flatten(0, 1), deeper.flatten(0, 1)]),
            torch.cat([targets, later]),
            torch.cat([weights * main.scale, later_weights * (config.weight * mtp.scale)]),
            torch.ones_like(main.scale),
        )
        measured.add("mtp_loss", (each[len(targets) :] * later_weights).sum(), mtp.total)
        return loss, each[: len(targets)]

    def _horizon(self, hidden: Tensor, target: _Placed, part: slice, measured: Measured) -> Tensor:
        config, head = self._model.config.horizon, self._model.horizon
        if config is None or head is None:
            raise AssertionError("the model has no horizon head")
        values, weights = target.flat(part)
        error = ((head(hidden).flatten() - values).abs() * weights).sum()
        measured.add("horizon_error", error.detach(), target.total)
        return config.weight * target.scale * error
