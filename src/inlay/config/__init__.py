"""Typed configuration: a strict base, kinds by tag, composition from YAML, and the run directory."""

from inlay.config.base import Config, nearest, validate
from inlay.config.errors import BadInput, ConfigError, InlayError
from inlay.config.kinds import Registry

__all__ = ["BadInput", "Config", "ConfigError", "InlayError", "Registry", "nearest", "validate"]
