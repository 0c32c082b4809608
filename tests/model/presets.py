"""The presets of the group `model`, each composed once a process: composing takes longer than most tests."""

from functools import cache
from pathlib import Path

import inlay.conf
from inlay.config import validate
from inlay.config.compose import compose_choice
from inlay.model import ModelConfig

PRESETS = tuple(sorted(file.stem for file in (Path(inlay.conf.__path__[0]) / "model").glob("*.yaml")))


@cache
def preset(name: str) -> ModelConfig:
    return validate(ModelConfig, compose_choice("model", name), where=name)
