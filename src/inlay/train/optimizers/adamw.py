"""AdamW (1711.05101) alone: the baseline."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from inlay.train.optimizer import AdamWGroups, Optimizer, OptimizerConfig, optimizers, route


@optimizers.register
class AdamWConfig(OptimizerConfig):
    """One rate for all; weight decay on matrices only."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(3e-3, gt=0.0)
    embedding_lr: float | None = Field(None, gt=0.0)
    """Rate of the embedding and head; null for `lr`."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-10, gt=0.0)
    weight_decay: float = Field(0.1, ge=0.0)

    def build(self, model: nn.Module) -> "AdamW":
        return AdamW(self, model)


class AdamW(Optimizer):
    """The optimizer of AdamWConfig."""

    def __init__(self, config: AdamWConfig, model: nn.Module) -> None:
        routed = route(model)
        self._groups = AdamWGroups(
            [
                (routed["matrix"], config.lr, config.weight_decay),
                (routed["embedding"], config.embedding_lr or config.lr, 0.0),
                (routed["vector"], config.lr, 0.0),
            ],
            config.betas,
            config.eps,
        )

    def step(self, multiplier: float, step: int) -> None:
        self._groups.step(multiplier)

    def state(self) -> dict[str, Tensor]:
        return self._groups.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._groups.load_state(state)
