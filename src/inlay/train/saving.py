"""A run's state on disk and back: weights, optimizer, counters, in the checkpoints of its directory."""

from typing import TYPE_CHECKING, Any

import torch

from inlay.config import BadInput, validate
from inlay.model import checkpoint
from inlay.train.config import TrainRun

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer


class Saver:
    """Writes and reads the checkpoints of one run."""

    def save(self, trainer: "Trainer") -> None:
        """Writes the checkpoint of the current step."""
        folder = trainer.run.checkpoint(trainer.step)
        weights = {name: parameter.data for name, parameter in trainer.model.named_parameters()}
        tensors = {checkpoint.WEIGHTS: weights, checkpoint.OPTIMIZER: trainer.optimizer.state()}
        checkpoint.write(folder, tensors, _record(trainer))

    def load(self, trainer: "Trainer") -> None:
        """Takes the newest undamaged checkpoint of the run; with none it starts from the beginning, with a notice.

        Raises BadInput when the store or the configuration is another than the checkpoint's, InlayError when every
        checkpoint is damaged.
        """
        run = trainer.run
        checkpoint.clear_unfinished(run.path)
        candidates = checkpoint.folders(run.path)
        if not candidates:
            trainer.notices.append("the run has no checkpoint yet: it starts from the beginning")
            return
        folder, record, skipped = checkpoint.newest_good(candidates, checkpoint.WEIGHTS, checkpoint.OPTIMIZER)
        trainer.notices += skipped
        if record["loader"]["store"] != trainer.rows.store_hash:
            raise BadInput(f"the store {trainer.config.data.path} is not the one that {run.path} was trained on")
        # Validated first: a run from before an option existed has its default.
        recorded = validate(TrainRun, record["config"], where=str(folder)).to_dict()
        then, now = _deciding(recorded), _deciding(trainer.config.to_dict())
        changed = ", ".join(group for group in now if then.get(group) != now[group])
        if changed:
            file = run.config_file
            raise BadInput(
                f"{file} has changed in {changed} since {folder.name} was saved: put it back, or start a new run with:"
                f" inlay train --config {file} out=DIR"
            )
        trainer.model.load_state_dict(checkpoint.read_tensors(folder, checkpoint.WEIGHTS))
        trainer.optimizer.load_state(checkpoint.read_tensors(folder, checkpoint.OPTIMIZER))
        trainer.restore(record)

    def finish(self) -> None:
        """Returns when nothing is being written any more."""


def _record(trainer: "Trainer") -> dict[str, Any]:
    return {
        "step": trainer.step,
        "tokens": trainer.tokens,
        "seconds": trainer.seconds,
        "total_steps": trainer.total_steps,
        "sums": trainer.meters.sums,
        "config": trainer.config.to_dict(),
        "loader": trainer.loader_state.to_dict(),
        "model": trainer.model.config.to_dict(),
        "vocab_size": trainer.vocab_size,
        "tokenizer": trainer.tokenizer.hash,
        "torch": torch.__version__,
    }


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that decide the weights. The store is compared by content, so that it may move."""
    data = {key: value for key, value in config["data"].items() if key not in ("path", "workers")}
    deciding = {group: value for group, value in config.items() if group not in ("callbacks", "parallel")}
    return {**deciding, "data": data}
