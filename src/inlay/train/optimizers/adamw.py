"""AdamW (1711.05101) alone: the baseline."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from inlay.config import Beta
from inlay.train.optimizer import (
    AdamWGroups,
    Optimizer,
    OptimizerConfig,
    ParameterClass,
    Treatment,
    optimizers,
    refuse_head_rate,
    route,
)


@optimizers.register
class AdamWConfig(OptimizerConfig):
    """One rate for all, or another one for the tables; weight decay on matrices only."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(3e-3, gt=0.0, le=1000.0)
    embedding_lr: float | None = Field(None, gt=0.0, le=1000.0)
    """Rate of the embedding (and of a head tied to it); null for `lr`."""
    head_lr: float | None = Field(None, gt=0.0, le=1000.0)
    """Rate of an untied head; null for the embedding's."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(1e-10, gt=0.0, le=1.0)
    weight_decay: float = Field(0.1, ge=0.0, le=1000.0)

    def build(self, model: nn.Module) -> "AdamW":
        return AdamW(self, model)

    def treatments(self) -> dict[ParameterClass, Treatment]:
        embedding_lr = self.lr if self.embedding_lr is None else self.embedding_lr
        head_lr = embedding_lr if self.head_lr is None else self.head_lr
        return {
            "matrix": Treatment("adamw", self.lr, self.weight_decay),
            "embedding": Treatment("adamw", embedding_lr, self.embedding_decay),
            "head": Treatment("adamw", head_lr, self.embedding_decay),
            "vector": Treatment("adamw", self.lr, self.vector_decay),
        }


class AdamW(Optimizer):
    """The optimizer of AdamWConfig."""

    def __init__(self, config: AdamWConfig, model: nn.Module) -> None:
        routed = route(model)
        refuse_head_rate(config.head_lr, routed)
        self._config = config
        groups = [(routed[name], treatment) for name, treatment in config.treatments().items()]
        self._groups = AdamWGroups(groups, config.betas, config.eps)

    def step(self, multiplier: float, step: int, remaining: float = 1.0) -> None:
        self._groups.step(multiplier, self._config.decay_share(remaining))

    def state(self) -> dict[str, Tensor]:
        return self._groups.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._groups.load_state(state)
