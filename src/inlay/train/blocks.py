"""The matrices that a weight consists of, and their orthogonalisation (the step of Muon, Jordan et al. 2024).

A weight that several linear maps share is orthogonalised map by map: in the whole, one map's update would be as large
as the others' gradients let it. Which maps those are is declared by the module that owns the weight (`Mixer.fused`).
Nothing here knows of processes.
Legend: K stacked matrices of m rows and n columns.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from inlay.config import InlayError
from inlay.model.mixer import Fused, Mixer
from inlay.model.precision import multiplies_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
Convention = Literal["original", "match_rms_adamw"]


@dataclass(frozen=True)
class Blocks:
    """How a weight of `shape` [m, n] is divided; one block without `fused`."""

    shape: tuple[int, int]
    fused: Fused | None = None
    per_head: bool = False
    """Whether every head of a part is a block of its own; else they are one together."""

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(how many, rows, columns) of the blocks of each part."""
        if self.fused is None:
            return ((1, *self.shape),)
        heads, other = self.fused.heads, self.shape[1 - self.fused.axis]
        count, group = (heads, 1) if self.per_head else (1, heads)
        sides = [group * size for size in self.fused.parts]
        return tuple((count, side, other) if self.fused.axis == 0 else (count, other, side) for side in sides)

    def take(self, matrix: Tensor) -> list[Tensor]:
        """[m, n] to the blocks [K, rows, columns] of each part, views where that is possible."""
        if self.fused is None:
            return [matrix[None]]
        parts = self._grouped(matrix)
        if self.per_head:
            return [part if self.fused.axis == 0 else part.transpose(0, 1) for part in parts]
        return [part.flatten(self.fused.axis, self.fused.axis + 1)[None] for part in parts]

    def join(self, parts: list[Tensor]) -> Tensor:
        """The way back from `take`."""
        if self.fused is None:
            return parts[0][0]
        matrix = parts[0].new_empty(self.shape)
        for place, part in zip(self._grouped(matrix), parts, strict=True):
            if self.per_head:
                place.copy_(part if self.fused.axis == 0 else part.transpose(0, 1))
            else:
                place.copy_(part[0].unflatten(self.fused.axis, (self.fused.heads, -1)))
        return matrix

    def factors(self, convention: Convention) -> float | Tensor:
        """What the learning rate is multiplied by: one number when all blocks agree, else fp32 [m, 1] or [1, n]."""
        found = [adjustment(convention, rows, columns) for _, rows, columns in self.shapes]
        if self.fused is None or len(set(found)) == 1:
            return found[0]
        group = torch.cat([torch.full((size,), factor) for size, factor in zip(self.fused.parts, found, strict=True)])
        return group.repeat(self.fused.heads).unsqueeze(1 - self.fused.axis)

    @property
    def cost(self) -> int:
        """Multiplications of one Newton-Schulz iteration over all blocks."""
        sides = ((count, min(rows, columns), max(rows, columns)) for count, rows, columns in self.shapes)
        return sum(count * (2 * short * short * long + short**3) for count, short, long in sides)

    def _grouped(self, matrix: Tensor) -> tuple[Tensor, ...]:
        """Views of each part: [heads, size, n], or [m, heads, size]."""
        if self.fused is None:
            raise AssertionError("an undivided matrix has no parts")
        grouped = matrix.unflatten(self.fused.axis, (self.fused.heads, -1))
        return grouped.split(self.fused.parts, dim=self.fused.axis + 1)


def blocks_of(model: nn.Module, matrices: dict[str, nn.Parameter], per_head: bool) -> list[Blocks]:
    """The blocks of each of `matrices` (by name in `model`), in order.

    With `per_head` every attention head is a block of its own. Raises InlayError for a declaration that does not fit.
    """
    declared: dict[str, Fused] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Mixer):
            for part, fused in module.fused().items():
                declared[f"{prefix}.{part}.weight" if prefix else f"{part}.weight"] = fused
    found = []
    for name, parameter in matrices.items():
        shape, fused = (parameter.shape[0], parameter.shape[1]), declared.get(name)
        if fused is not None and fused.heads * sum(fused.parts) != shape[fused.axis]:
            declaration = f"{fused.heads} x {fused.parts} along axis {fused.axis}"
            raise InlayError(f"'{name}' [{shape[0]}, {shape[1]}] is declared as {declaration}, which does not add up")
        whole = fused is None or (len(fused.parts) == 1 and (fused.heads == 1 or not per_head))
        found.append(Blocks(shape) if whole else Blocks(shape, fused, per_head))
    return found


def adjustment(convention: Convention, rows: int, columns: int) -> float:
    """Factor of the rate for a matrix of `rows` x `columns`, as in `torch.optim.Muon`: `original` is
    sqrt(max(1, rows / columns)), `match_rms_adamw` 0.2 sqrt(max(rows, columns)) (2502.16982, section 2.2)."""
    if convention == "original":
        return max(1.0, rows / columns) ** 0.5
    return 0.2 * max(rows, columns) ** 0.5


def iteration_dtype(device: torch.device) -> torch.dtype:
    """What `device` iterates in: bf16 where that is the faster format, else fp32."""
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values in about 0.7 to 1.2): [K, m, n] to fp32 [K, m, n].

    Quintic Newton-Schulz iteration on the side with fewer rows, in `dtype` (None: `iteration_dtype`; fp64 stays fp64).
    The result does not depend on the scale of a matrix, and a zero matrix stays zero. Directions that a matrix of lower
    rank lacks stay absent in fp32; in bf16 the rounding of the others takes their place.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype or iteration_dtype(matrices.device))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        # Sums inside the product are fp32: half the error of separate bf16 ones (1.2 against 2.5 %), and faster.
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    x = x.mT if tall else x
    return x if x.dtype == torch.float64 else x.float()


def orthogonalise_blocks(
    matrices: list[Tensor], blocks: list[Blocks], steps: int, dtype: torch.dtype | None = None
) -> list[Tensor]:
    """`matrices` [m, n] block by block, to fp32 [m, n] each: blocks of one shape are stacked, so that a model costs a
    handful of batched products instead of hundreds of small ones."""
    stacks: dict[tuple[int, int], list[tuple[int, int, Tensor]]] = {}
    for index, (matrix, division) in enumerate(zip(matrices, blocks, strict=True)):
        for part, block in enumerate(division.take(matrix)):
            stacks.setdefault((block.shape[1], block.shape[2]), []).append((index, part, block))
    done: list[dict[int, Tensor]] = [{} for _ in matrices]
    for stack in stacks.values():
        flat = orthogonalise(torch.cat([block for _, _, block in stack]), steps, dtype)
        for (index, part, _), piece in zip(stack, flat.split([len(block) for _, _, block in stack]), strict=True):
            done[index][part] = piece
    return [
        division.join([parts[part] for part in range(len(parts))]) for division, parts in zip(blocks, done, strict=True)
    ]
