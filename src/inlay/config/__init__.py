"""Typed configuration: a strict base, kinds by tag, composition from YAML, and the run directory."""

from inlay.config.base import Beta, Config, Count, Seed, Share, nearest, validate
from inlay.config.errors import BadInput, ConfigError, InlayError
from inlay.config.kinds import Registry

__all__ = [
    "BadInput",
    "Beta",
    "Config",
    "ConfigError",
    "Count",
    "InlayError",
    "Registry",
    "Seed",
    "Share",
    "nearest",
    "validate",
]
