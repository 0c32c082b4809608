"""Reads a Hugging Face `config.json` key by key; every complaint names the file, the key and what inlay has.

It decides how rotary scaling is written: `rope_parameters` (transformers 5), or `rope_theta` with `rope_scaling`
(before), in which the kind is `rope_type` or `type`. It refuses what would silently compute something else: a scaling
that inlay does not have, rotary embedding of a part of a head or of its own for each kind of layer.
"""

from collections.abc import Mapping
from typing import Any

from inlay.config import BadInput, validate
from inlay.model.parts import RopeScaling

_CLASS = object()


class HFKeys:
    """The keys of one `config.json`. `where` names the file in messages."""

    def __init__(self, data: dict[str, Any], where: str, defaults: Mapping[str, Any] | None = None) -> None:
        """`defaults`: what its class has for a key that the file does not have."""
        self.data = data
        self.where = where
        self.defaults = {} if defaults is None else defaults

    def integer(self, key: str, default: Any = _CLASS) -> int:
        """A whole number; null counts as absent. Raises BadInput for anything else, or when it has no default (of its
        class, where none is given)."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, "where a whole number belongs")
        return value

    def number(self, key: str, default: Any = _CLASS) -> float:
        """As `integer`, for a number."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, "where a number belongs")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key, _CLASS)
        if not isinstance(value, bool):
            raise self.error(key, "where true or false belongs")
        return value

    def only(self, key: str, *allowed: Any) -> None:
        """Raises BadInput unless the key has one of the values that inlay's model has."""
        if self._get(key, _CLASS) not in allowed:
            raise self.error(key, f"and inlay has only {' or '.join(map(repr, allowed))} there")

    def names(self, key: str, length: int) -> list[str] | None:
        """A list of one text for each of `length` layers, None when absent."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"where a list of {length} names belongs, one a layer")
        return value

    def rope(self) -> tuple[float, RopeScaling | None]:
        """Theta and scaling of the rotary embedding."""
        key = "rope_scaling" if self.data.get("rope_scaling") else "rope_parameters"
        given = self.data.get(key) or {}
        if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
            raise self.error(key, "where one set of numbers for all layers belongs")
        outer = {name: self.data[name] for name in ("rope_theta", "partial_rotary_factor") if name in self.data}
        inner = HFKeys({**outer, **given}, self.where, {"partial_rotary_factor": 1.0, **self.defaults})
        inner.only("partial_rotary_factor", 1.0)
        found, kind = inner.number("rope_theta"), given.get("rope_type", given.get("type", "default"))
        if kind == "default":
            return found, None
        if kind not in ("linear", "llama3"):
            raise BadInput(
                f"{self.where}: {key}.rope_type = {kind!r}, a scaling that inlay does not have; it has default, linear"
                " and llama3: take a checkpoint without it"
            )
        options: dict[str, Any] = {"kind": kind, "factor": inner.number("factor")}
        if kind == "llama3":
            options |= {
                "low_factor": inner.number("low_freq_factor"),
                "high_factor": inner.number("high_freq_factor"),
                "original_context": inner.integer(
                    "original_max_position_embeddings", self._get("max_position_embeddings", _CLASS)
                ),
            }
        return found, validate(RopeScaling, options, where=f"{self.where}: {key}")

    def error(self, key: str, reason: str) -> BadInput:
        """The error for the value of `key`."""
        return BadInput(f"{self.where}: {key} = {self.data.get(key)!r}, {reason}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.data.get(key)
        if value is None:
            value = self.defaults.get(key) if default is _CLASS else default
        if value is None:
            raise BadInput(f"{self.where}: the key {key} is missing, without which the model cannot be built")
        return value


def rope_keys(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The keys of a rotary embedding, in the new form and in the one that transformers 4 and other readers know."""
    if scaling is None:
        return {
            "rope_theta": theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        }
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        values |= {
            "low_freq_factor": scaling.low_factor,
            "high_freq_factor": scaling.high_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return {"rope_theta": theta, "rope_scaling": values, "rope_parameters": {**values, "rope_theta": theta}}
