"""The whole configuration of a training run: what `config.yaml` of a run directory holds."""

import os

import torch
from pydantic import Field, field_validator, model_validator

from inlay.config import Config
from inlay.data.config import DataConfig
from inlay.fim.transform import FimConfig
from inlay.model.config import ModelConfig
from inlay.model.precision import Precision, multiplies_bfloat16
from inlay.train.callback import callbacks
from inlay.train.nonfinite import NonFinitePolicy
from inlay.train.optimizer import optimizers
from inlay.train.parallel import ParallelConfig
from inlay.train.schedule import schedules
from inlay.train.stage import StageConfig, check_stages


class TrainConfig(Config):
    """The loop. Give exactly one of steps, tokens and minutes."""

    steps: int | None = Field(None, ge=1, le=10**12)
    tokens: int | None = Field(None, ge=1, le=10**18)
    """Row slots to train on; rounded up to whole steps."""
    minutes: float | None = Field(None, gt=0.0, le=1e7)
    """Training time; turned into steps once, after warm-up, and recorded, so that such a run resumes exactly too."""
    sequence_length: int = Field(512, ge=32, le=1 << 24)
    """Slots of a row (T)."""
    rows: int = Field(8, ge=1, le=1 << 20)
    """Rows of a step, over all micro-batches."""
    accumulation: int = Field(1, ge=1, le=1 << 20)
    """Micro-batches of a step; `rows` is divided among them."""
    clip: float | None = Field(1.0, gt=0.0, le=1e9)
    """Largest global gradient norm; null does not clip."""
    nonfinite: NonFinitePolicy = "stop"
    """What happens when a gradient is not finite: `stop` ends the run, `skip` drops that step's update and goes on. The
    share of such steps is logged as train/nonfinite."""
    nonfinite_in_a_row: int = Field(8, ge=1, le=10**9)
    """Steps that `skip` drops one after the other; the next one ends the run."""
    precision: Precision = "auto"
    """Type of activations; `auto` is bfloat16 on a GPU and on a CPU with bf16 units, float32 on others, and reads as
    one of them from then on, so that a run goes on as it began. Master weights, norm statistics, softmax sums and the
    loss are fp32 in either case."""
    z_loss: float = Field(0.0, ge=0.0, le=1000.0)
    """Weight of the squared log-normaliser of each trained token, which keeps logits from drifting (2204.02311,
    section 5); 1e-4 there, 0 for none. Reported losses are without it."""
    compile: bool = True
    """Compile with torch.compile; without a C++ compiler the run goes on eagerly, with a line that says so."""
    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again in the backward pass: less memory, about a third
    slower, the same gradients."""

    @field_validator("precision")
    @classmethod
    def _fast_here(cls, value: Precision) -> Precision:
        if value != "auto":
            return value
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return "bfloat16" if multiplies_bfloat16(device) else "float32"

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are both given; set all but one to null" if given else "none is given"
            raise ValueError(f"give exactly one of steps, tokens and minutes: {what}")
        if self.rows % self.accumulation:
            raise ValueError(f"rows {self.rows} is not a multiple of accumulation {self.accumulation}")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Row slots of one optimizer step."""
        return self.rows * self.sequence_length


class TrainRun(Config):
    """One training run."""

    seed: int = Field(0, ge=0, le=(1 << 63) - 1)
    data: DataConfig
    fim: FimConfig
    model: ModelConfig
    optim: optimizers.union()  # type: ignore[valid-type]
    schedule: schedules.union()  # type: ignore[valid-type]
    train: TrainConfig
    stages: tuple[StageConfig, ...] = ()
    """What changes during the run, in order; empty for one stage as `train` and `model` say."""
    parallel: ParallelConfig = ParallelConfig()
    start_from: str | None = None
    """A run, a checkpoint or a Hugging Face folder whose weights, model and vocabulary this run begins with: `model` is
    replaced by its. null draws weights from the seed."""
    callbacks: dict[str, callbacks.union() | None]  # type: ignore[valid-type]
    """Callbacks by a name of your choice; null takes one of the defaults away."""

    def anchored(self) -> "TrainRun":
        """The same run with absolute paths, so that it can be started and gone on with from any folder."""
        data = self.data
        sources = {
            name: one.model_copy(update={"path": os.path.abspath(one.path)}) for name, one in data.sources.items()
        }
        path = None if data.path is None else os.path.abspath(data.path)
        start = None if self.start_from is None else os.path.abspath(self.start_from)
        data = data.model_copy(update={"path": path, "sources": sources})
        return self.model_copy(update={"data": data, "start_from": start})

    @model_validator(mode="after")
    def _has_middles(self) -> "TrainRun":
        if self.model.horizon is not None and self.fim.rate == 0.0:
            raise ValueError("model.horizon learns from middles, and with fim.rate 0 there are none: set one of them")
        check_stages(self)
        return self
