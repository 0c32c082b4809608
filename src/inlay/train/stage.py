"""What may change during a run: one entry of `stages` in the configuration.

A value that an entry leaves null is that of the run (`train`, `fim`, `data`, `model`), never that of the stage before:
each entry can be read alone, and moving one changes no other. Weights are the same throughout, so of the model only
the rotary embedding can change.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from inlay.config import Config, Share
from inlay.model.config import ModelConfig
from inlay.model.parts import RopeScaling

if TYPE_CHECKING:
    from inlay.train.config import TrainRun

SHARES_MAY_MISS = 1e-6
"""How far from 1 the shares of all stages may add up, for thirds."""


class StageConfig(Config):
    """A part of the run. What is null is as `train`, `fim`, `data` and `model` say."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^\S(.*\S)?$")
    share: float = Field(gt=0.0, le=1.0)
    """Of the run's tokens; the shares of all stages are 1 together."""
    sequence_length: int | None = Field(None, ge=32, le=1 << 24)
    rows: int | None = Field(None, ge=1, le=1 << 20)
    accumulation: int | None = Field(None, ge=1, le=1 << 20)
    rope_theta: float | None = Field(None, gt=0.0, le=1e12)
    """Of every layer that has a rotary embedding; the model keeps it when the run ends in this stage."""
    rope_scaling: RopeScaling | None = None
    """Likewise; attention has it, mla has not."""
    shares: dict[str, Share] | None = None
    """The mixture: shares of the tokens of text by the names of `data.sources`, 1 together."""
    fim_rate: float | None = Field(None, ge=0.0, le=1.0)
    lr: float = Field(1.0, gt=0.0, le=1.0)
    """Factor of all learning rates, on top of the schedule."""
    rewarm_steps: int = Field(0, ge=0, le=10**12)
    """Steps in which the rates rise linearly from 0 to what they are without it, from the stage's first step on."""


def check_stages(run: "TrainRun") -> None:
    """Raises ValueError, in one line, for stages that do not fit together or not to the run."""
    stages = run.stages
    if not stages:
        return
    names = [stage.name for stage in stages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two stages are called '{twice}': give each its own name")
    total = math.fsum(stage.share for stage in stages)
    if abs(total - 1.0) > SHARES_MAY_MISS:
        shares = ", ".join(f"{stage.name} {stage.share:g}" for stage in stages)
        raise ValueError(f"the shares of the stages add up to {total:g} ({shares}): they have to be 1 together")
    if run.train.steps is not None and run.train.steps < len(stages):
        raise ValueError(
            f"train.steps = {run.train.steps} is too few for {len(stages)} stages: each takes at least one step"
        )
    for stage in stages:
        _check(stage, run)


def _check(stage: StageConfig, run: "TrainRun") -> None:
    rows, accumulation = stage.rows or run.train.rows, stage.accumulation or run.train.accumulation
    if rows % accumulation:
        origin = "" if stage.accumulation is not None else ", which is train.accumulation: give the stage its own"
        raise ValueError(f"stage '{stage.name}': rows {rows} is not a multiple of accumulation {accumulation}{origin}")
    if run.model.horizon is not None and stage.fim_rate == 0.0:
        raise ValueError(f"stage '{stage.name}': model.horizon learns from middles, and with fim_rate 0 there are none")
    try:
        if stage.shares is not None:
            run.data.check_shares(stage.shares)
        with_rotary(run.model, stage.rope_theta, stage.rope_scaling)
    except ValueError as error:
        raise ValueError(f"stage '{stage.name}': {error}") from None


def with_rotary(model: ModelConfig, theta: float | None, scaling: RopeScaling | None) -> ModelConfig:
    """`model` with another rotary embedding in every block that has one; null keeps what is there.

    Raises ValueError when no block of the pattern has what is to change.
    """
    change = {name: value for name, value in (("rope_theta", theta), ("rope_scaling", scaling)) if value is not None}
    if not change:
        return model
    for name in model.pattern:
        mixer = model.blocks[name].mixer
        missing = [key for key in change if key not in type(mixer).model_fields]
        if mixer.rotation is not None and missing:
            raise ValueError(
                f"{' and '.join(missing)} cannot change: block '{name}' is {mixer.kind}, which has no such option"
            )
    if all(model.blocks[name].mixer.rotation is None for name in model.pattern):
        raise ValueError(f"{' and '.join(change)} cannot change: no block of the model has a rotary embedding")
    blocks = {}
    for name, block in model.blocks.items():
        mixer = block.mixer
        own = {key: value for key, value in change.items() if key in type(mixer).model_fields}
        blocks[name] = block.model_copy(update={"mixer": mixer.model_copy(update=own)})
    return model.model_copy(update={"blocks": blocks})


def rotary_label(model: ModelConfig) -> str:
    """The rotary embeddings of a model in a few characters, `10,000` or `10,000, linear x4`; empty without one."""
    found = []
    for name in model.pattern:
        rotation = model.blocks[name].mixer.rotation
        if rotation is None:
            continue
        theta, _, key = rotation
        label = f"{theta:,.0f}" if theta >= 1.0 and theta == int(theta) else f"{theta:g}"
        if key is not None:
            factor, *bounds = key
            label += f", linear x{factor:g}" if not bounds else f", llama3 x{factor:g} of {bounds[-1]:g}"
        found.append(label)
    return "; ".join(dict.fromkeys(found))
