"""Cross-entropy in fp32, in chunks over tokens, outside autocast, as a weighted sum.

The [tokens, vocabulary] table of logits is never whole in memory: each chunk's logits are made, turned into their
gradient and dropped in the forward pass, which leaves one hidden-state gradient and one head gradient (the arrangement
torchtitan and Liger use). Impossibly good losses have been blamed on bf16 logits: here they are widened to fp32
before anything is summed, and a test holds the whole against an unchunked fp32 (and fp64) cross-entropy.
Legend: N tokens, d channels, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 1024

ChunkStep = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def chunk_step(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One chunk: hidden [n, d], weight [V, d] (both in the activation dtype), targets and weights [n].

    Returns the loss of each token [n] fp32 (unweighted), and the gradients of the weighted sum for hidden [n, d] and
    weight [V, d].
    """
    logits = torch.matmul(hidden, weight.t()).float()
    normaliser = torch.logsumexp(logits, dim=-1)
    losses = normaliser - logits.gather(1, targets[:, None]).squeeze(1)
    probability = torch.exp(logits - normaliser[:, None])
    columns = torch.arange(logits.shape[1], device=logits.device)
    hit = columns[None, :] == targets[:, None]
    gradient = ((probability - hit.float()) * weights[:, None]).to(hidden.dtype)
    return losses, torch.matmul(gradient, weight), torch.matmul(gradient.t(), hidden).float()


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
        for begin in range(0, len(hidden), CHUNK):
            part = slice(begin, begin + CHUNK)
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
    `step` may be a compiled `chunk_step`.
    """
    return _ChunkedCrossEntropy.apply(hidden, weight, targets, weights, scale, step)  # type: ignore[return-value]


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss of each token [N] fp32 in nats, for evaluation: hidden [N, d], weight [V, d], targets [N]."""
    cast = weight.to(hidden.dtype)
    losses = []
    for begin in range(0, len(hidden), CHUNK):
        logits = torch.matmul(hidden[begin : begin + CHUNK], cast.t()).float()
        losses.append(torch.nn.functional.cross_entropy(logits, targets[begin : begin + CHUNK], reduction="none"))
    return torch.cat(losses)
