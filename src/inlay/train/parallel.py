"""The processes of a run: which rank this is, on which device, and what all ranks have to agree on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from inlay.config import Config


class ParallelConfig(Config):
    """How a run is spread over the processes that started it."""

    strategy: Literal["auto"] = "auto"


@dataclass(frozen=True)
class Parallel:
    """One process of a run; `rank` of `world`."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, config: ParallelConfig) -> "Parallel":
        """The processes that this one was started with."""
        return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes what a run writes once."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """`values` float64 [n] summed over all ranks."""
        return values

    def first(self, value: float) -> float:
        """Rank 0's `value`, on every rank: for what must not differ, such as a decision by the clock."""
        return value
