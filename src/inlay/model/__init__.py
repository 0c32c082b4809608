"""The decoder: layout (pattern to layers), blocks, mixers, masks, caches and presets."""

from inlay.model.config import ModelConfig
from inlay.model.transformer import Transformer, build

__all__ = ["ModelConfig", "Transformer", "build"]
