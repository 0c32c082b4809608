"""The contract of a callback: it observes and persists, and never touches gradients, the plan or the batch.

One file a callback in `inlay.train.callbacks`. They are called in the order of the configuration.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inlay.config import Config, Registry
from inlay.config.files import parse_json, read_bounded_text, write_atomic

if TYPE_CHECKING:
    from inlay.data.loader import Batch
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

    name = ""
    """Its name in the configuration, which the trainer gives it: checkpoints keep its state under it."""

    def start(self, trainer: "Trainer") -> None:
        """Before the first step, also of a resumed run."""

    def phase(self, trainer: "Trainer", name: str) -> None:
        """Something that takes a while begins, such as compiling."""

    def update(self, trainer: "Trainer", batch: "Batch") -> None:
        """Before each optimizer step, when the gradients of `batch` are there, clipped; `trainer.step` counts the steps
        before it. Reading gradients waits for the device: do it at intervals."""

    def step(self, trainer: "Trainer") -> None:
        """After each optimizer step; `trainer.step` counts those done."""

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        """Somebody logged `values`, which hold step, tokens and seconds."""

    def samples(self, trainer: "Trainer", samples: Sequence[dict[str, Any]]) -> None:
        """Infilled samples were made at this step: what `samples.jsonl` gets, on the main process."""

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as JSON; asked for at each checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes back what `state` gave when the checkpoint was saved; before `start`."""

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        """After the last step, or when the run is interrupted; also after an error, be it in `start`."""


def due(step: int, total: int | None, times: int, every_steps: int | None) -> bool:
    """Whether something is done after `step` steps of `total` (None: not known yet): `times` times evenly over the run,
    or in place of that behind every `every_steps` steps and the last."""
    if every_steps is not None:
        return step % every_steps == 0 or step == total
    return total is not None and (step == total or step * times // total > (step - 1) * times // total)


def drop_lines_behind(path: Path, step: int) -> None:
    """Drops from a file of JSON lines what a run wrote behind `step`, from which it goes on: each step is there once.

    A run that starts from the beginning starts an empty file. Raises InlayError in one line on a full disk.
    """
    if not path.exists():
        return
    kept = []
    for line in read_bounded_text(path, errors="replace").splitlines():
        try:
            if 0 <= parse_json(line)["step"] <= step and step > 0:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # a kill may have left half a line at the end
    write_atomic(path, "".join(kept))
