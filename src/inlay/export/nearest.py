"""The nearest preset that a target can express, for the message that refuses a model.

Nearness counts options, layer by layer: the preset of the same size (the ending of its name) with the fewest that
differ from the model's. Presets are those of the group `model`.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import inlay
from inlay.config import ConfigError, validate
from inlay.config.yaml_file import load_yaml
from inlay.model import ModelConfig

_SIZE = re.compile(r"-(nano|\d+(?:\.\d+)?[bm])$")


def nearest_preset(config: ModelConfig, accepts: Callable[[ModelConfig], bool]) -> str | None:
    """The name of the nearest preset that `accepts` takes, by name where several are as near; None without any."""
    presets = all_presets()
    if not presets:
        return None
    wanted = leaves(config)
    distances = {name: _distance(wanted, leaves(preset)) for name, preset in presets.items()}
    # A run does not know its preset: the one it resembles most gives the size.
    size = _size(min(distances, key=lambda name: (distances[name], name)))
    taken = [name for name, preset in presets.items() if accepts(preset)]
    same = [name for name in taken if size is not None and _size(name) == size]
    return min(same or taken, key=lambda name: (distances[name], name), default=None)


def suggestion(config: ModelConfig, accepts: Callable[[ModelConfig], bool]) -> str:
    """The ending of a refusal: "; the nearest preset that can: model=NAME", or nothing when there is none."""
    name = nearest_preset(config, accepts)
    return "" if name is None else f"; the nearest preset that it can express: model={name}"


@cache
def all_presets() -> dict[str, ModelConfig]:
    """Every preset by its name; a file that is no model of this version is left out."""
    folder = Path(inlay.__file__).parent / "conf" / "model"
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            found[file.stem] = validate(ModelConfig, _read(file), where=f"model={file.stem}")
        except ConfigError:
            continue
    return found


def _read(file: Path) -> dict[str, Any]:
    """A preset's file over those that its defaults name, as Hydra composes them; Hydra takes a tenth of a second a
    file, and there are dozens."""
    data = load_yaml(file)
    whole: dict[str, Any] = {}
    for name in data.pop("defaults", []):
        if name != "_self_":
            whole = _merged(whole, _read(file.with_name(f"{name}.yaml")))
    return _merged(whole, data)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(old[key], value) for key, value in new.items() if _is_mapping(old.get(key), value)}
    return {**old, **new, **both}


def _is_mapping(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def leaves(config: ModelConfig) -> dict[str, Any]:
    """Every option by its path, those of a layer's block under the layer's number: the names of blocks say nothing."""
    data = config.to_dict()
    blocks, _ = data.pop("blocks"), data.pop("pattern")
    found = dict(_leaves(data))
    for index, name in enumerate(config.names):
        found.update(_leaves(blocks[name], f"{index}."))
    return found


def _leaves(data: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in data.items():
        found += _leaves(value, f"{path}{key}.") if isinstance(value, dict) else [(f"{path}{key}", value)]
    return found


def _distance(one: dict[str, Any], other: dict[str, Any]) -> int:
    absent = object()
    return sum(one.get(key, absent) != other.get(key, absent) for key in one.keys() | other.keys())


def _size(name: str) -> str | None:
    match = _SIZE.search(name)
    return match[1] if match else None
