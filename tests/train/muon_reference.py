"""A slow dense Muon in float64, written from the papers: matrices one by one, the iteration on singular values."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315


def flattened(matrix: Tensor, steps: int = 5) -> Tensor:
    """u p(p(...p(s / |s|))) v' of a float64 matrix [m, n]: what the iteration does to singular values, and to nothing
    else."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm().clamp(min=1e-7)
    for _ in range(steps):
        values = A * values + B * values**3 + C * values**5
    return left @ torch.diag(values) @ right


@dataclass
class DenseMuon:
    """One weight; `pieces` are the index arrays (rows, columns) of its matrices."""

    weight: Tensor
    pieces: list[tuple[Tensor, Tensor]]
    lr: float
    adjust: str
    nesterov: bool = True
    decay: float = 0.0
    cautious: bool = False
    momentum: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.weight = self.weight.double().clone()
        self.momentum = torch.zeros_like(self.weight)

    def step(self, gradient: Tensor, mu: float, multiplier: float = 1.0, decay_share: float = 1.0) -> None:
        gradient = gradient.double()
        self.momentum = mu * self.momentum + (1 - mu) * gradient
        wanted = (1 - mu) * gradient + mu * self.momentum if self.nesterov else self.momentum
        update = torch.full_like(self.weight, torch.nan)  # what no piece covers shows
        direction = torch.full_like(self.weight, torch.nan)
        for rows, columns in self.pieces:
            at = rows[:, None], columns[None, :]
            height, width = len(rows), len(columns)
            factor = max(1, height / width) ** 0.5 if self.adjust == "original" else 0.2 * max(height, width) ** 0.5
            direction[at] = flattened(wanted[at])
            update[at] = factor * direction[at]
        mask = (direction * self.weight >= 0).double() if self.cautious else 1.0
        rate = self.lr * multiplier
        self.weight = self.weight - rate * self.decay * decay_share * mask * self.weight - rate * update


def pieces(shape: tuple[int, int], *rows: Tensor, columns: bool = False) -> list[tuple[Tensor, Tensor]]:
    """The index arrays of matrices made of the given rows (or columns) of a weight; the whole without any."""
    everything = torch.arange(shape[0]), torch.arange(shape[1])
    if not rows:
        return [everything]
    return [(everything[0], chosen) if columns else (chosen, everything[1]) for chosen in rows]


def give_gradients(module: torch.nn.Module, step: int, scale: float = 1.0) -> None:
    """The same random gradients for every model of one shape."""
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in module.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
