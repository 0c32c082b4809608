"""Cross-entropy in fp32, in chunks over tokens, outside autocast, as a weighted sum.

The [tokens, vocabulary] table of logits is never whole in memory: each chunk's logits are made, turned into their
gradient and dropped in the forward pass, which leaves one hidden-state gradient and one head gradient (the arrangement
torchtitan and Liger use). Impossibly good losses have been blamed on bf16 logits: here they are widened to fp32
before anything is summed, and a test holds the whole against an unchunked fp32 (and fp64) cross-entropy. A head's
softcap belongs to the chunk too, so that compiling fuses it with the rest.
Legend: N tokens, d channels, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 1024
CHUNK_ON_GPU = 8192
"""Each chunk reads and writes the whole fp32 gradient of the head: at 100k tokens of width 2048, chunks of 1024 would
move 4 GB each, a tenth of a step on a GPU. Logits of 8192 tokens are 1.6 GB there."""

ChunkStep = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def chunk_step(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """One chunk: hidden [n, d], weight [V, d] (both in the activation dtype), targets and weights [n].

    `softcap` caps logits smoothly, in fp32: cap tanh(logit / cap) (2408.00118). `z_loss` times the squared
    log-normaliser is added to what is differentiated (2204.02311, section 5), not to the losses. Returns the loss of
    each token [n] fp32 (unweighted), and the gradients of the weighted sum for hidden [n, d] and weight [V, d].
    """
    logits = torch.matmul(hidden, weight.t()).float()
    if softcap is not None:
        logits = (logits / softcap).tanh_().mul_(softcap)  # in place: eagerly, fresh memory is what costs
    normaliser = torch.logsumexp(logits, dim=-1)
    losses = normaliser - logits.gather(1, targets[:, None]).squeeze(1)
    probability = torch.exp(logits - normaliser[:, None])
    if z_loss:
        # d log(Z)^2 / d logit = 2 log(Z) p, beside p - 1[target] of the cross-entropy itself.
        probability = probability * (1.0 + 2.0 * z_loss * normaliser)[:, None]
    columns = torch.arange(logits.shape[1], device=logits.device)
    hit = columns[None, :] == targets[:, None]
    gradient = (probability - hit.float()) * weights[:, None]
    if softcap is not None:
        gradient = gradient * (logits / softcap).square_().neg_().add_(1.0)
    gradient = gradient.to(hidden.dtype)
    return losses, torch.matmul(gradient, weight), torch.matmul(gradient.t(), hidden).float()


def step_with(softcap: float | None, z_loss: float = 0.0) -> ChunkStep:
    """`chunk_step` for a model whose head has this softcap, and for this weight of the squared log-normaliser."""
    if softcap is None and not z_loss:
        return chunk_step

    def bound(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return chunk_step(hidden, weight, targets, weights, softcap, z_loss)

    return bound


def chunk_size(device: torch.device) -> int:
    """Tokens of a chunk."""
    return CHUNK if device.type == "cpu" else CHUNK_ON_GPU


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        scale: Tensor,
        step: ChunkStep,
    ) -> tuple[Tensor, Tensor]:
        cast = weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        # Scaled here, before bf16 rounding of the gradient, so that its size is that of the final mean.
        scaled = weights * scale
        size = chunk_size(hidden.device)
        for begin in range(0, len(hidden), size):
            part = slice(begin, begin + size)
            losses[part], hidden_gradient[part], increment = step(hidden[part], cast, targets[part], scaled[part])
            weight_gradient += increment
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.mark_non_differentiable(losses)
        return (losses * scaled).sum(), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradient.to(hidden_gradient.dtype), weight_gradient * gradient, None, None, None, None


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, scale: Tensor, step: ChunkStep = chunk_step
) -> tuple[Tensor, Tensor]:
    """sum(weights * loss) * scale, differentiable in hidden and weight, and the loss of each token [N] fp32, detached.

    hidden [N, d] in the activation dtype, weight [V, d] master weights, targets [N] int64, weights [N] fp32; `scale` is
    one over the global weight sum (0-d fp32). A batch without trained tokens gives zero connected to the graph.
    `step` is a `chunk_step` (see `step_with`), maybe compiled.
    """
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, weights, scale, step)  # type: ignore[return-value]


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """The loss of each token [N] fp32 in nats, for evaluation: hidden [N, d], weight [V, d], targets [N]; `softcap` is
    the head's."""
    cast = weight.to(hidden.dtype)
    losses = []
    for begin in range(0, len(hidden), CHUNK):
        logits = torch.matmul(hidden[begin : begin + CHUNK], cast.t()).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        losses.append(torch.nn.functional.cross_entropy(logits, targets[begin : begin + CHUNK], reduction="none"))
    return torch.cat(losses)
