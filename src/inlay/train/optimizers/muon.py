"""Muon (Jordan et al. 2024) for matrices with AdamW for embeddings, head and vectors.

The momentum of each matrix is orthogonalised by a few Newton-Schulz steps, block by block where a weight is made of
several matrices, and whole where its rows are spread over ranks. Both published conventions of the rate are here by
name, because confusing them is a tenfold error: `original` scales the update by sqrt(max(1, rows / columns)), rates
0.02 to 0.035; `match_rms_adamw` (2502.16982) by 0.2 sqrt(max(rows, columns)), rates as for AdamW, 3e-4 to 3e-3. At a
width of 2048 they are a factor of 9 to 18 apart. Weight decay goes by the rate without that factor: whoever changes
the convention keeps lr x weight_decay.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from inlay.config import Beta
from inlay.train.blocks import Blocks, Convention, adjustment, blocks_of, iteration_dtype, orthogonalise_blocks
from inlay.train.optimizer import (
    AdamWGroups,
    BlockRow,
    Optimizer,
    OptimizerConfig,
    ParameterClass,
    Treatment,
    optimizers,
    refuse_head_rate,
    route,
)
from inlay.train.shards import arrange, local, take

PUBLISHED: dict[Convention, tuple[float, float]] = {"original": (0.02, 0.035), "match_rms_adamw": (3e-4, 3e-3)}
"""Peak rates of matrices that published recipes use, by convention."""
UNUSUAL: dict[Convention, tuple[float, float]] = {"original": (5e-3, 0.2), "match_rms_adamw": (1e-4, 8e-3)}
"""Outside of these a rate is more likely meant for the other convention."""
ABSURD: dict[Convention, float] = {"original": 1.0, "match_rms_adamw": 0.1}
"""From here on one step is as large as the weights themselves."""


@optimizers.register
class MuonConfig(OptimizerConfig):
    """Muon + AdamW."""

    kind: Literal["muon"] = "muon"
    lr: float = Field(0.02, gt=0.0, le=1000.0)
    """Peak rate of matrices, in the convention that `adjust` names."""
    adjust: Convention = "original"
    """`original`: rates of 0.02 to 0.035; `match_rms_adamw`: AdamW's, 3e-4 to 3e-3."""
    momentum: float = Field(0.95, ge=0.0, lt=1.0)
    momentum_start: float = Field(0.85, ge=0.0, lt=1.0)
    """Momentum at step 0; rises linearly to `momentum` over `momentum_warmup` steps."""
    momentum_warmup: int = Field(300, ge=0, le=10**12)
    nesterov: bool = True
    newton_schulz_steps: int = Field(5, ge=1, le=100)
    per_head: bool = False
    """Orthogonalises every attention head alone: queries, keys and values by rows, the output by columns."""
    cautious_decay: bool = False
    """Matrices decay only where the update shrinks a weight too (2510.12402)."""
    embedding_lr: float = Field(5e-3, gt=0.0, le=1000.0)
    """Rate of the embedding (and of a head tied to it)."""
    head_lr: float | None = Field(None, gt=0.0, le=1000.0)
    """Rate of an untied head; null for the embedding's."""
    vector_lr: float = Field(5e-3, gt=0.0, le=1000.0)
    betas: tuple[Beta, Beta] = (0.8, 0.95)
    """Of AdamW on embeddings, head and vectors."""
    eps: float = Field(1e-10, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _possible(self) -> "MuonConfig":
        if self.lr > ABSURD[self.adjust]:
            low, high = PUBLISHED[self.adjust]
            raise ValueError(
                f"lr {self.lr:g} is as large as the weights themselves in the convention {self.adjust}: give {low:g} to"
                f" {high:g}"
            )
        if self.cautious_decay and not self.weight_decay:
            raise ValueError("cautious_decay says where matrices decay, and weight_decay is 0: set one of them")
        return self

    def build(self, model: nn.Module) -> "Muon":
        return Muon(self, model)

    def treatments(self) -> dict[ParameterClass, Treatment]:
        head_lr = self.embedding_lr if self.head_lr is None else self.head_lr
        return {
            "matrix": Treatment("muon", self.lr, self.weight_decay),
            "embedding": Treatment("adamw", self.embedding_lr, self.embedding_decay),
            "head": Treatment("adamw", head_lr, self.embedding_decay),
            "vector": Treatment("adamw", self.vector_lr, self.vector_decay),
        }

    def blocks(self, model: nn.Module, matrices: dict[str, nn.Parameter]) -> dict[str, tuple[BlockRow, ...]]:
        found = {}
        for name, division in zip(matrices, blocks_of(model, matrices, self.per_head), strict=True):
            counts: dict[tuple[int, int], int] = {}
            for count, *shape in division.shapes:
                counts[shape[0], shape[1]] = counts.get((shape[0], shape[1]), 0) + count
            found[name] = tuple(BlockRow(count, *at, adjustment(self.adjust, *at)) for at, count in counts.items())
        return found

    def notices(self) -> list[str]:
        least, most = UNUSUAL[self.adjust]
        if least <= self.lr <= most:
            return []
        low, high = PUBLISHED[self.adjust]
        other: Convention = "match_rms_adamw" if self.adjust == "original" else "original"
        return [
            f"optim.lr={self.lr:g} is unusual for optim.adjust={self.adjust}, whose rates are {low:g} to {high:g};"
            f" those of {other} are {PUBLISHED[other][0]:g} to {PUBLISHED[other][1]:g}"
        ]

    def momentum_at(self, step: int) -> float:
        """Momentum at a step, from 0."""
        warm = min(1.0, step / self.momentum_warmup) if self.momentum_warmup else 1.0
        return self.momentum_start + (self.momentum - self.momentum_start) * warm


class Muon(Optimizer):
    """The optimizer of MuonConfig."""

    def __init__(self, config: MuonConfig, model: nn.Module) -> None:
        routed = route(model)
        refuse_head_rate(config.head_lr, routed)
        self._config = config
        treatments = config.treatments()
        self._adamw = AdamWGroups(
            [(routed[name], treatment) for name, treatment in treatments.items() if treatment.optimizer == "adamw"],
            config.betas,
            config.eps,
        )
        self._matrices = routed["matrix"]
        self._momenta = {
            name: torch.zeros_like(parameter, requires_grad=False) for name, parameter in self._matrices.items()
        }
        self._blocks = blocks_of(model, self._matrices, config.per_head)
        self._arrangements = arrange(dict(self._matrices), [blocks.cost for blocks in self._blocks])
        self._uniform: dict[float, list[int]] = {}
        """Matrices by the factor of their rate."""
        self._factors: dict[int, Tensor] = {}
        """Factors within a matrix whose blocks differ in theirs, as this rank holds it."""
        for indices, arrangement in self._arrangements:
            for place, index in enumerate(indices):
                factors = self._blocks[index].factors(config.adjust)
                if isinstance(factors, Tensor):
                    device = next(iter(self._matrices.values())).device
                    self._factors[index] = arrangement.held(factors.to(device), place)
                    factors = 1.0
                self._uniform.setdefault(factors, []).append(index)

    @torch.no_grad()
    def step(self, multiplier: float, step: int, remaining: float = 1.0) -> None:
        config = self._config
        share = config.decay_share(remaining)
        self._adamw.step(multiplier, share)
        if not self._matrices:
            return
        parameters = [local(parameter) for parameter in self._matrices.values()]
        updates = self._updates(config.momentum_at(step))
        rate = config.lr * multiplier
        self._decay(parameters, updates, rate * config.weight_decay * share)
        for index, factors in self._factors.items():
            updates[index].mul_(factors)
        for factor, indices in self._uniform.items():
            chosen = [parameters[index] for index in indices]
            torch._foreach_add_(chosen, [updates[index] for index in indices], alpha=-rate * factor)

    def _updates(self, momentum: float) -> list[Tensor]:
        """What this rank holds of the orthogonalised update of each matrix, fp32."""
        gradients = [_gradient(parameter) for parameter in self._matrices.values()]
        momenta = [local(buffer) for buffer in self._momenta.values()]
        torch._foreach_lerp_(momenta, gradients, 1.0 - momentum)
        if self._config.nesterov:
            torch._foreach_lerp_(gradients, momenta, momentum)
        found = gradients if self._config.nesterov else momenta
        updates = list(found)
        dtype, steps = iteration_dtype(found[0].device), self._config.newton_schulz_steps
        for indices, arrangement in self._arrangements:

            def work(places: list[int], matrices: list[Tensor], indices: list[int] = indices) -> list[Tensor]:
                blocks: list[Blocks] = [self._blocks[indices[place]] for place in places]
                return orthogonalise_blocks(matrices, blocks, steps, dtype)

            results = arrangement.spread([found[index] for index in indices], work, dtype)
            for index, result in zip(indices, results, strict=True):
                updates[index] = result
        return updates

    def _decay(self, parameters: list[Tensor], updates: list[Tensor], amount: float) -> None:
        """Takes the share `amount` off the weights."""
        if not amount:
            return
        if not self._config.cautious_decay:
            torch._foreach_mul_(parameters, 1.0 - amount)
            return
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.addcmul_(parameter, (parameter * update >= 0.0).to(parameter.dtype), value=-amount)

    def state(self) -> dict[str, Tensor]:
        return {**self._adamw.state(), **{f"{name}|momentum": buffer for name, buffer in self._momenta.items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._adamw.load_state(state)
        for name, buffer in self._momenta.items():
            take(f"{name}|momentum", buffer, state)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of the gradient; zeros where there is none."""
    return torch.zeros_like(local(parameter)) if parameter.grad is None else local(parameter.grad)
