"""Muon (Jordan et al. 2024) for matrices with AdamW for embeddings, head and vectors.

The momentum of each matrix is orthogonalised by five Newton-Schulz steps in bf16. Matrices of one shape are stacked, so
a layer stack costs a handful of batched matmuls instead of hundreds of small ones. Both published conventions of the
rate are here by name, because confusing them is a tenfold error:
`original` scales the update by sqrt(max(1, rows / columns)), rates 0.02 to 0.035;
`match_rms_adamw` (2502.16982) by 0.2 sqrt(max(rows, columns)), rates as for AdamW, 3e-4 to 3e-3.
Legend: K stacked matrices of m rows and n columns.
"""

from collections import defaultdict
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from inlay.model.precision import multiplies_bfloat16
from inlay.train.optimizer import AdamWGroups, Optimizer, OptimizerConfig, optimizers, route

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@optimizers.register
class MuonConfig(OptimizerConfig):
    """Muon + AdamW."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(0.02, gt=0.0)
    """Peak rate of matrices, in the convention that `adjust` names."""
    adjust: Literal["original", "match_rms_adamw"] = "original"
    momentum: float = Field(0.95, ge=0.0, lt=1.0)
    momentum_start: float = Field(0.85, ge=0.0, lt=1.0)
    """Momentum at step 0; rises linearly to `momentum` over `momentum_warmup` steps."""
    momentum_warmup: int = Field(300, ge=0)
    nesterov: bool = True
    newton_schulz_steps: int = Field(5, ge=1)
    weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled, times the unadjusted rate, on matrices only."""
    embedding_lr: float = Field(5e-3, gt=0.0)
    vector_lr: float = Field(5e-3, gt=0.0)
    betas: tuple[float, float] = (0.8, 0.95)
    """Of AdamW on embeddings and vectors."""
    eps: float = Field(1e-10, gt=0.0)

    def build(self, model: nn.Module) -> "Muon":
        return Muon(self, model)


class Muon(Optimizer):
    """The optimizer of MuonConfig."""

    def __init__(self, config: MuonConfig, model: nn.Module) -> None:
        routed = route(model)
        self._config = config
        self._adamw = AdamWGroups(
            [(routed["embedding"], config.embedding_lr, 0.0), (routed["vector"], config.vector_lr, 0.0)],
            config.betas,
            config.eps,
        )
        self._stacks: dict[tuple[int, int], dict[str, nn.Parameter]] = defaultdict(dict)
        for name, parameter in routed["matrix"].items():
            rows, columns = parameter.shape
            self._stacks[rows, columns][name] = parameter
        self._momenta = {
            shape: torch.zeros((len(stack), *shape), device=next(iter(stack.values())).device)
            for shape, stack in self._stacks.items()
        }

    @torch.no_grad()
    def step(self, multiplier: float, step: int) -> None:
        self._adamw.step(multiplier)
        config = self._config
        warm = min(1.0, step / config.momentum_warmup) if config.momentum_warmup else 1.0
        momentum = config.momentum_start + (config.momentum - config.momentum_start) * warm
        rate = config.lr * multiplier
        for shape, stack in self._stacks.items():
            gradient = torch.stack([_gradient(parameter) for parameter in stack.values()])
            buffer = self._momenta[shape]
            buffer.lerp_(gradient, 1.0 - momentum)
            update = gradient.lerp_(buffer, momentum) if config.nesterov else buffer
            update = orthogonalise(update, config.newton_schulz_steps)
            parameters: list[Tensor] = list(stack.values())
            if config.weight_decay:
                torch._foreach_mul_(parameters, 1.0 - rate * config.weight_decay)
            torch._foreach_add_(parameters, list(update.unbind(0)), alpha=-rate * adjustment(config.adjust, *shape))

    def state(self) -> dict[str, Tensor]:
        state = self._adamw.state()
        for shape, stack in self._stacks.items():
            for index, name in enumerate(stack):
                state[f"{name}|momentum"] = self._momenta[shape][index]
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._adamw.load_state(state)
        for shape, stack in self._stacks.items():
            for index, name in enumerate(stack):
                self._momenta[shape][index].copy_(state[f"{name}|momentum"])


def adjustment(convention: str, rows: int, columns: int) -> float:
    """Factor of the rate for a matrix of `rows` x `columns` (as in `torch.optim.Muon`)."""
    if convention == "original":
        return max(1.0, rows / columns) ** 0.5
    return 0.2 * max(rows, columns) ** 0.5


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values in about 0.7 to 1.2): [K, m, n] to fp32 [K, m, n].

    Quintic Newton-Schulz iteration on the side with fewer rows, in bf16 where that is the faster format.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if multiplies_bfloat16(matrices.device) else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        # Sums inside the product are fp32: half the error of separate bf16 ones (1.2 against 2.5 %), and faster.
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return (x.mT if tall else x).float()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
