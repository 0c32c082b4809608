"""What a model is trained on: the next token, and what its configuration adds (one more token, the middle's length).

Each objective is a weighted sum over the slots of a batch, divided by its own weight sum over the whole batch (not over
a micro-batch, and over all ranks), and these add up: next token + mtp.weight * MTP + horizon.weight * horizon. Which
slots an objective has follows from `positions` and what rows carry. Only training calls this; validation measures the
next token alone. All use of weights is inside one module, `MicroBatchLoss`, which can so be copied or sharded over
processes as a whole.
Legend: B rows of this rank, T slots, b rows of a micro-batch, n = b T of its slots, d channels, V vocabulary.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from inlay.data.loader import Batch
from inlay.data.rows import relative_horizon
from inlay.model.auxiliary import MTP
from inlay.model.mixer import Context
from inlay.model.transformer import BlockCall, Transformer
from inlay.train.compiler import settings
from inlay.train.distribute import replicate, shard, synchronised
from inlay.train.loss import ChunkStep, cross_entropy, step_with
from inlay.train.parallel import Parallel


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
    """What the forward passes of a step found on this rank."""

    losses: list[Tensor] = field(default_factory=list)
    """fp32 [n] of each micro-batch in order: the loss of each next token, unweighted."""
    sums: dict[str, tuple[Tensor, float]] = field(default_factory=dict)
    """By name: (weighted sum over this rank's rows, its weight) of each other objective."""

    def add(self, name: str, value: Tensor, weight: float) -> None:
        """Adds a micro-batch's weighted sum; `weight` is that of all rows of this rank."""
        before = self.sums.get(name)
        self.sums[name] = (value if before is None else before[0] + value, weight)


class Part(NamedTuple):
    """A target of a micro-batch on the device."""

    values: Tensor
    """[b, T] int64 or fp32"""
    weights: Tensor
    """[b, T] fp32"""
    scale: Tensor
    """0-d fp32: what weights are multiplied by, so that the sums of all ranks and micro-batches average to the loss."""


class _Placed:
    """A target of all rows of this rank on its device; `total` is the sum of its weights."""

    def __init__(self, target: Target, device: torch.device) -> None:
        values = torch.from_numpy(target.values).to(device)
        self.values = values if values.is_floating_point() else values.long()
        self.weights = torch.from_numpy(target.weights).to(device)
        self.total = float(target.weights.sum())
        self.scale = torch.ones((), device=device)

    def divide(self, total: float, world: int) -> None:
        """Sets the scale: one over the weight of the whole batch, times the processes over which gradients are averaged
        afterwards. A batch without any weight has a loss of zero."""
        self.scale.fill_(world / max(total, 1e-9))

    def part(self, rows: slice) -> Part:
        """Those of some rows."""
        return Part(self.values[rows], self.weights[rows], self.scale)


class MicroBatchLoss(nn.Module):
    """The loss of a micro-batch from its tokens: what DDP and FSDP are put around."""

    def __init__(self, model: Transformer, z_loss: float) -> None:
        super().__init__()
        self.model = model
        self._eager_step: ChunkStep = step_with(model.config.head_softcap, z_loss)
        self.step = self._eager_step
        self._blocks: Sequence[BlockCall] | None = None
        self._mtp_block: BlockCall | None = None

    def forward(
        self, tokens: Tensor, positions: Tensor, main: Part, mtp: Part | None, horizon: Part | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """tokens, positions [b, T] int64 to: the loss, the fp32 loss [n] of each next token, and the weighted sums of
        the other objectives, those three detached."""
        model = self.model
        context = model.context(positions)
        hidden = model(tokens, positions, self._blocks, context)
        later, error = None, None
        if model.mtp is None or mtp is None:
            loss, each = self._cross_entropy(
                hidden.flatten(0, 1), main.values.flatten(), main.weights.flatten(), main.scale
            )
        else:
            deeper = self.deeper(model.mtp, hidden, main.values, context)
            loss, each, later = self._two_tokens(hidden, deeper, main, mtp)
        if horizon is not None:
            added, error = self._horizon(hidden, horizon)
            loss = loss + added
        return loss, each, later, error

    def compile_parts(self) -> None:
        """Compiles blocks and loss for static shapes: one graph for the whole run, shared by layers of one kind."""
        model = self.model
        if _is_sharded(model):
            # The hooks that gather a block's weights are around its forward, and stay outside of the graph. Validation
            # runs on a copy, so that this changes nothing there.
            for block in [*model.layers, *([] if model.mtp is None else [model.mtp.block])]:
                block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]
        else:
            self._blocks = [torch.compile(block, dynamic=False) for block in model.blocks]
            if model.mtp is not None:
                self._mtp_block = torch.compile(model.mtp.block, dynamic=False)
        self.step = torch.compile(self._eager_step, dynamic=False)

    def eager(self) -> None:
        """Takes `compile` back."""
        model = self.model
        for block in [*model.layers, *([] if model.mtp is None else [model.mtp.block])]:
            vars(block).pop("forward", None)
        self._blocks = self._mtp_block = None
        self.step = self._eager_step

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(hidden, self.model.head_weight, targets, weights, scale, self.step)

    def deeper(self, mtp: MTP, hidden: Tensor, targets: Tensor, context: Context) -> Tensor:
        """The hidden states [b, T, d] that predict the token after the next."""
        model = self.model
        # The token behind slot t is its target: `tokens` would show the last slot of a document the next document.
        embedded = model.embedding(targets).to(model.compute_dtype)
        block = mtp.block if self._mtp_block is None else self._mtp_block
        return mtp(hidden, embedded, context, partial(model.run_block, block))

    def _two_tokens(self, hidden: Tensor, deeper: Tensor, main: Part, mtp: Part) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted losses of both depths together, that of each next token [n], and the weighted sum of those of
        the tokens after; in one pass over the head: it then has one [V, d] gradient at a time, not two."""
        config = self.model.config.mtp
        if config is None:
            raise AssertionError("the model has no multi-token prediction")
        weights, later_weights = main.weights.flatten(), mtp.weights.flatten()
        loss, each = self._cross_entropy(
            torch.cat([hidden.flatten(0, 1), deeper.flatten(0, 1)]),
            torch.cat([main.values.flatten(), mtp.values.flatten()]),
            torch.cat([weights * main.scale, later_weights * (config.weight * mtp.scale)]),
            torch.ones_like(main.scale),
        )
        return loss, each[: len(weights)], (each[len(weights) :] * later_weights).sum()

    def _horizon(self, hidden: Tensor, target: Part) -> tuple[Tensor, Tensor]:
        """The weighted loss, and the weighted sum of errors."""
        config, head = self.model.config.horizon, self.model.horizon
        if config is None or head is None:
            raise AssertionError("the model has no horizon head")
        error = ((head(hidden).flatten() - target.values.flatten()).abs() * target.weights.flatten()).sum()
        return config.weight * target.scale * error, error.detach()


SETTLING_SLOTS = 32


class Objectives:
    """The loss of `model` on batches, eager until `compile` is called; over the processes of `parallel`."""

    def __init__(self, model: Transformer, z_loss: float = 0.0, parallel: Parallel | None = None) -> None:
        """`z_loss`: see `TrainConfig`. Under FSDP this replaces the parameters of `model` by shares of them; make the
        optimizer afterwards."""
        self._model = model
        self._parallel = parallel or Parallel(model.embedding.weight.device)
        self._loss = MicroBatchLoss(model, z_loss)
        self._called: nn.Module = self._loss
        self._compiled = False
        if self._parallel.strategy == "fsdp":
            shard(self._loss, model, self._parallel)

    def join(self) -> None:
        """Connects the copies of DDP, which takes all ranks at once. Call it before the first `backward`."""
        if self._parallel.strategy != "ddp":
            return
        self._called = replicate(self._loss)
        if self._parallel.device.type == "cpu":
            self._settle()

    def _settle(self) -> None:
        """One backward pass of nothing. DDP orders what travels by the first pass that it sees, and sums of more than
        two ranks round by that order: without this the first step after a resume would differ in its last bits."""
        model = self._model
        tokens = torch.zeros((1, SETTLING_SLOTS), dtype=torch.int64)
        nothing = Part(tokens, torch.zeros(tokens.shape), torch.ones(()))
        loss, *_ = self._called(
            tokens,
            torch.arange(SETTLING_SLOTS)[None],
            nothing,
            None if model.mtp is None else nothing,
            None if model.horizon is None else nothing._replace(values=torch.zeros(tokens.shape)),
        )
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None

    def compile(self) -> None:
        """Compiles blocks and loss for static shapes: one graph for the whole run, shared by layers of one kind."""
        self._loss.compile_parts()
        self._compiled = True

    def eager(self) -> None:
        """Takes `compile` back."""
        self._loss.eager()
        self._compiled = False

    @torch.enable_grad()
    def losses(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The loss of each token [n] fp32 exactly as training computes it, for probes: hidden [n, d], the whole head
        [V, d], targets [n]. No gradient is left anywhere."""
        # With gradients, as in training: a compiled loss is another one without them.
        hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
        weights = torch.ones(len(hidden), device=hidden.device)
        with settings() if self._compiled else contextlib.nullcontext():
            return cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum(), self._loss.step)[1].detach()

    def backward(self, batch: Batch, rows: int) -> Measured:
        """Adds the gradient of the whole loss on the batch of all ranks to that of the parameters, in micro-batches of
        `rows` rows of this rank's share `batch`."""
        model, parallel = self._model, self._parallel
        device = parallel.device
        tokens, positions = (
            torch.from_numpy(array).to(device, torch.int64) for array in (batch.tokens, batch.positions)
        )
        main = _Placed(Target(batch.targets, batch.weights), device)
        mtp = None if model.mtp is None else _Placed(token_after_next(batch), device)
        horizon = None if model.horizon is None else _Placed(share_to_come(batch), device)
        placed = [target for target in (main, mtp, horizon) if target is not None]
        for target, total in zip(placed, parallel.sum(np.array([target.total for target in placed])), strict=True):
            target.divide(float(total), parallel.world)
        measured = Measured()
        with settings() if self._compiled else contextlib.nullcontext():
            for begin in range(0, len(tokens), rows):
                part = slice(begin, begin + rows)
                last = begin + rows >= len(tokens)
                with synchronised(self._called, wanted=last or parallel.reduce == "each"):
                    loss, each, later, error = self._called(
                        tokens[part],
                        positions[part],
                        main.part(part),
                        None if mtp is None else mtp.part(part),
                        None if horizon is None else horizon.part(part),
                    )
                    loss.backward()
                measured.losses.append(each)
                if mtp is not None and later is not None:
                    measured.add("mtp_loss", later, mtp.total)
                if horizon is not None and error is not None:
                    measured.add("horizon_error", error, horizon.total)
        return measured


def _is_sharded(model: Transformer) -> bool:
    return isinstance(model.embedding.weight, DTensor)
