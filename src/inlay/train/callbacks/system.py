"""What the machine makes of a run: tokens a second, MFU, peak memory, and how long steps wait for rows."""

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from inlay.train.callback import Callback, CallbackConfig, callbacks
from inlay.train.flops import TrainingFlops, peak_flops

if TYPE_CHECKING:
    from inlay.data.loader import Batch
    from inlay.train.trainer import Trainer


@callbacks.register
class SystemConfig(CallbackConfig):
    """Logs `system/...` beside every line of training losses. Costs a few microseconds a step."""

    kind: Literal["system"] = "system"

    def build(self) -> "System":
        return System()


class System(Callback):
    """The callback of SystemConfig.

    `system/mfu` is a share of the data sheet's dense bfloat16 peak of the GPUs that take part; on a CPU, and on a GPU
    that no table knows, of the fastest matrix product measured at the start (`system/peak_is_measured` is 1 then).
    """

    def __init__(self) -> None:
        self._flops: TrainingFlops | None = None
        self._peak = 0.0
        self._per_token = 0.0
        self._training: dict[str, Any] | None = None
        self._counted: Any = None

    def start(self, trainer: "Trainer") -> None:
        peak, measured = peak_flops(trainer.device, trainer.model.compute_dtype)
        self._peak = peak * trainer.parallel.world
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        trainer.log({"system/peak_flops_per_second": self._peak, "system/peak_is_measured": int(measured)})

    def update(self, trainer: "Trainer", batch: "Batch") -> None:
        # Rows differ little in the lengths of their documents: one batch for each time that it is asked for.
        if self._per_token and trainer.model.config is self._counted:
            return
        if self._counted is not trainer.model.config:  # the first step, or another stage
            self._flops = TrainingFlops(trainer.model.config, trainer.vocab_size)
            self._counted = trainer.model.config
        if self._flops is not None:
            self._per_token = self._flops.per_token(batch.positions)

    def record(self, trainer: "Trainer", values: dict[str, Any]) -> None:
        if "tokens_per_second" in values:
            self._training = values

    def step(self, trainer: "Trainer") -> None:
        if self._training is None:
            return
        training, self._training = self._training, None
        speed = float(training["tokens_per_second"])
        values = {"system/tokens_per_second": speed, "system/flops_per_token": self._per_token}
        values["system/mfu"] = speed * self._per_token / self._peak
        memory = peak_memory(trainer.device)
        if memory is not None:
            everyone = np.zeros(trainer.parallel.world)
            everyone[trainer.parallel.rank] = memory
            values["system/peak_memory_bytes"] = float(trainer.parallel.sum(everyone).max())
        if "loader_share" in training:
            values["system/loader_share"] = training["loader_share"]
            values["system/loader_ms"] = 1e3 * training["loader_share"] * trainer.stage.tokens_per_step / speed
        self._per_token = 0.0  # measured on another batch next time
        trainer.log(values)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held so far: those of tensors on a GPU, the process's on a CPU; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
