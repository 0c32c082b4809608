"""Configurations side by side: where runs differ, and which runs differ in nothing but their seed.

A key is the dotted path to a value; lists of plain values are one value, lists of mappings are walked by number. A key
that a configuration does not have is ABSENT, which is not the same as null.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

ABSENT = "\N{EN DASH}"
SEED = "seed"


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Values as text by dotted path, in the order of the configuration."""
    found: dict[str, str] = {}
    _walk("", config, found)
    return found


def _walk(path: str, value: Any, found: dict[str, str]) -> None:
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inner = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        inner = [(str(number), item) for number, item in enumerate(value)]
    if not inner:
        found[path or "."] = as_text(value)
    for key, item in inner:
        _walk(f"{path}.{key}" if path else key, item, found)


def as_text(value: Any) -> str:
    """A value as YAML readers know it, on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def split_keys(configs: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """(keys that differ, with a text for each configuration), (keys that all share, with their text)."""
    flat = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    # A group that one configuration leaves empty is said by its keys, not by its own.
    grouped = {key[:at] for key in keys for at, letter in enumerate(key) if letter == "."}
    differing: list[tuple[str, list[str]]] = []
    shared: list[tuple[str, str]] = []
    for key in keys:
        texts = [one.get(key, ABSENT) for one in flat]
        if len(set(texts)) == 1:
            shared.append((key, texts[0]))
        elif key not in grouped or len({text for text in texts if text != ABSENT}) > 1:
            differing.append((key, texts))
    return differing, shared


def but_for_seed(config: Mapping[str, Any]) -> str:
    """What runs of one recipe have in common: equal for configurations that differ in nothing but their seed."""
    return json.dumps({key: value for key, value in config.items() if key != SEED}, sort_keys=True, default=str)


def validation_rows(config: Mapping[str, Any]) -> str:
    """What decides which held-out rows are validated on, beside the store: equal for runs that used the same.

    Validation is always cut from pieces, at rate 1 and with seed 0: rate, level and seed of training play no part.
    """

    def group(name: str) -> Mapping[str, Any]:
        found = config.get(name)
        return found if isinstance(found, Mapping) else {}

    fim = {key: value for key, value in group("fim").items() if key not in ("rate", "orders", "level", "loss")}
    rows = [one.get("rows") for one in group("callbacks").values() if isinstance(one, Mapping) and _validates(one)]
    data = {key: value for key, value in group("data").items() if key not in ("path", "workers")}
    return json.dumps([fim, rows, data, group("train").get("sequence_length")], sort_keys=True, default=str)


def _validates(callback: Mapping[str, Any]) -> bool:
    return callback.get("kind") == "validation"
