"""Norms by part of the model: gradients, parameters, updates over parameters, and the gains of QK-norm.

A run that stalls shows it first here: an update far under 1e-3 of its parameter barely moves it, one far above shakes
it.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from inlay.model import Transformer
from inlay.train.callback import Callback, CallbackConfig, callbacks
from inlay.train.distribute import whole
from inlay.train.norms import group_norms, groups_of, squares

if TYPE_CHECKING:
    from inlay.data.loader import Batch
    from inlay.train.trainer import Trainer

UPDATED = ("embedding", "head", "block_first", "block_middle", "block_last")
"""Parts whose update is measured: what they were before the step is kept meanwhile, where they are."""


@callbacks.register
class NormsConfig(CallbackConfig):
    """Logs `norms/gradient/PART` (as the optimizer got it, clipped), `norms/parameter/PART`, `norms/update/PART` (the
    norm of a step's change over that of the parameter) and `norms/qk_gain/LAYER` (the largest).

    One step in `every_steps` reads all parameters twice and, for its length, keeps a copy of both tables and three
    blocks.
    """

    kind: Literal["norms"] = "norms"
    every_steps: int = Field(250, ge=1, le=10**12)
    """The last step counts too."""

    def build(self) -> "Norms":
        return Norms(self)


class Norms(Callback):
    """The callback of NormsConfig."""

    def __init__(self, config: NormsConfig) -> None:
        self._every = config.every_steps
        self._groups: dict[str, list[str]] = {}
        self._before: dict[str, Tensor] | None = None
        self._gradients: dict[str, float] = {}

    def start(self, trainer: "Trainer") -> None:
        self._groups = groups_of(trainer.model)

    def update(self, trainer: "Trainer", batch: "Batch") -> None:
        done = trainer.step + 1
        if done % self._every and done != trainer.total_steps:
            return
        parameters = dict(trainer.model.named_parameters())
        gradients = ((name, value.grad) for name, value in parameters.items() if value.grad is not None)
        self._gradients = group_norms(squares(gradients), self._groups)
        kept = {name for part in UPDATED for name in self._groups.get(part, ())}
        self._before = {name: value.detach().clone() for name, value in parameters.items() if name in kept}

    def step(self, trainer: "Trainer") -> None:
        if self._before is None:
            return
        before, self._before = self._before, None
        parameters = dict(trainer.model.named_parameters())
        norms = group_norms(squares(parameters.items()), self._groups)
        changes = squares((name, parameters[name].detach() - value) for name, value in before.items())
        updates = group_norms(changes, {part: self._groups[part] for part in UPDATED if part in self._groups})
        trainer.log(
            {
                **{f"norms/gradient/{part}": value for part, value in self._gradients.items()},
                **{f"norms/parameter/{part}": value for part, value in norms.items()},
                **{f"norms/update/{part}": value / max(norms[part], 1e-30) for part, value in updates.items()},
                **{f"norms/qk_gain/{layer}": value for layer, value in qk_gains(trainer.model).items()},
            }
        )


def qk_gains(model: Transformer) -> dict[int, float]:
    """The largest absolute gain of the query and key norms of each layer that has them. Every rank calls it."""
    gains: dict[int, float] = {}
    for name, parameter in model.named_parameters():
        if name.endswith((".query_norm.weight", ".key_norm.weight")) and name.startswith("blocks."):
            layer = int(name.split(".")[1])
            gains[layer] = max(gains.get(layer, 0.0), float(whole(parameter.detach()).abs().max()))
    return gains
