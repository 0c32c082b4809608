"""The contract of a callback: it observes and persists, and never touches gradients, the plan or the batch.

One file a callback in `inlay.train.callbacks`. They are called in the order of the configuration.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from inlay.config import Config, Registry

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer

callbacks = Registry("callback", "inlay.train.callbacks")


class CallbackConfig(Config):
    """Options of a callback; `build` makes it."""

    kind: str

    @abstractmethod
    def build(self) -> "Callback":
        """The callback."""


class Callback:
    """Every method may be left out."""

    def start(self, trainer: "Trainer") -> None:
        """Before the first step, also of a resumed run."""

    def phase(self, trainer: "Trainer", name: str) -> None:
        """Something that takes a while begins, such as compiling."""

    def step(self, trainer: "Trainer") -> None:
        """After each optimizer step; `trainer.step` counts those done."""

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        """Somebody logged `values`, which hold step, tokens and seconds."""

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        """After the last step, or when the run is interrupted; runs also after an error in the loop."""
