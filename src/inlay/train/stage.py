"""What may change during a run: one entry of `stages` in the configuration."""

from pydantic import Field

from inlay.config import Config
from inlay.model.parts import RopeScaling


class StageConfig(Config):
    """A part of the run. What is null is as `train`, `data` and `model` say."""

    name: str
    share: float = Field(gt=0.0, le=1.0)
    """Of the run's tokens; the shares of all stages are 1 together."""
    sequence_length: int | None = Field(None, ge=32)
    rows: int | None = Field(None, ge=1)
    accumulation: int | None = Field(None, ge=1)
    rope_theta: float | None = Field(None, gt=0.0)
    """Of every layer that has a rotary embedding; the model keeps it when the run ends."""
    rope_scaling: RopeScaling | None = None
