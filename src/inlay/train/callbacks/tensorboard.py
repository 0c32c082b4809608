"""TensorBoard: what is logged, as event files of the run directory. Look at it with `tensorboard --logdir runs`."""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from inlay.config import BadInput
from inlay.config.files import disk_errors
from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from inlay.train.trainer import Trainer

FOLDER = "tensorboard"


@callbacks.register
class TensorBoardConfig(CallbackConfig):
    """Writes every logged number and the samples' texts against the step to RUN/tensorboard.

    Needs the package: pip install 'inlay[track]'.
    """

    kind: Literal["tensorboard"] = "tensorboard"

    def build(self) -> "TensorBoard":
        return TensorBoard()


class TensorBoard(Callback):
    """A resumed run says from which step on older events are void, so that every step is drawn once."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._early: list[dict[str, Any]] | None = []
        """What callbacks that start before this one logged; None once it has started."""

    def start(self, trainer: "Trainer") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BadInput(
                "the callback 'tensorboard' needs the package tensorboard: pip install 'inlay[track]', or take the"
                " callback away"
            ) from None
        early, self._early = self._early or [], None
        if not trainer.parallel.main:
            return
        folder = trainer.run.path / FOLDER
        # As `drop_lines_behind`: what was logged at the step itself stays, unless the run begins again.
        purge = trainer.step + 1 if trainer.step else 0
        with disk_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=purge if folder.exists() else None)
        for values in early:
            self.record(trainer, values)

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        if self._early is not None:
            self._early.append(values)
        if self._writer is None:
            return
        step = values["step"]
        with disk_errors(trainer.run.path / FOLDER):
            for name, value in values.items():
                if isinstance(value, Real) and name != "step":
                    self._writer.add_scalar(name, float(value), step)
            if "warning" in values:
                warning = values["warning"]
                self._writer.add_text(f"warning/{warning['rule']}", warning["text"], step)

    def samples(self, trainer: "Trainer", samples: Sequence[dict[str, Any]]) -> None:
        if self._writer is None:
            return
        with disk_errors(trainer.run.path / FOLDER):
            for number, sample in enumerate(samples):
                # TensorBoard shows Markdown: an indented block is code as it stands.
                text = f"{sample['prefix']}⟦{sample['middle']}⟧{sample['suffix']}"
                block = "".join(f"    {line}\n" for line in text.splitlines())
                gold = "as the original" if sample["exact"] else f"the original has `{sample['gold']}`"
                self._writer.add_text(f"sample {number}", f"{sample['path']}: {gold}\n\n{block}", trainer.step)

    def finish(self, trainer: "Trainer", completed: bool) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with disk_errors(trainer.run.path / FOLDER):
                writer.close()
