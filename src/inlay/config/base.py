"""The strict typed base of every configuration object, and its one-line errors.

Configurations are frozen pydantic models. They are validated as JSON (strict JSON accepts lists for tuples and strings
for paths, and still rejects "10" for an integer). A wrong key is answered with its full path and the nearest right one.
"""

import difflib
import json
import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inlay.config.errors import ConfigError

Count = typing.Annotated[int, Field(ge=0, le=10_000_000)]
"""How many of something; every number of a configuration has an upper bound (tests/test_contracts.py)."""
Share = typing.Annotated[float, Field(ge=0.0, le=1e9)]
"""A part of a whole, before the parts are divided by their sum."""
Beta = typing.Annotated[float, Field(ge=0.0, lt=1.0)]
"""How much of a running mean each step keeps."""
Seed = typing.Annotated[int, Field(ge=0, le=(1 << 63) - 1)]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all options: frozen, strict, no unknown keys, no infinities; attribute docstrings are the help texts."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types, every default filled in."""
        return json.loads(self.model_dump_json())


class Composed(dict[str, Any]):
    """Plain data of a command line, and by dotted key in `texts` what the user wrote where a number, true, false or
    null was read."""

    def __init__(self, data: dict[str, Any], texts: dict[str, str]) -> None:
        super().__init__(data)
        self.texts = texts


def validate(cls: type[C], data: dict[str, Any], where: str = "") -> C:
    """Validates plain data to a frozen `cls`.

    `where` names the origin (a file or "command line") in the message. Where text is wanted and `data` is Composed, a
    name that reads as a number is what the user wrote. Raises ConfigError with one line: the full
    dotted path, the value, what is allowed, and the nearest right name for an unknown key.
    """
    try:
        return cls.model_validate_json(json.dumps(data))
    except ValidationError as error:
        named = _as_written(cls, data, error)
        if named is None:
            raise ConfigError(_explain(cls, data, error, where)) from None
    return validate(cls, named, where)


def _as_written(cls: type[BaseModel], data: dict[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """`data` with text in the places that want it, None when there is no such place."""
    texts = data.texts if isinstance(data, Composed) else {}
    wrong = [_resolve(cls, detail["loc"])[0] for detail in error.errors() if detail["type"] == "string_type"]
    paths = [path for path in wrong if ".".join(map(str, path)) in texts]
    if not paths:
        return None
    named = json.loads(json.dumps(data))
    for path in paths:
        holder: Any = named
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = texts[".".join(map(str, path))]
    return named


def nearest(name: str, allowed: typing.Iterable[str]) -> str:
    """A ', did you mean X?' ending for an error about `name`, or the list of what is allowed when nothing is near."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed: {', '.join(names)}" if names else ""


def _explain(cls: type[BaseModel], data: dict[str, Any], error: ValidationError, where: str) -> str:
    """The one line for a pydantic error: the first unknown key when there is one, else the first error."""
    details = error.errors(include_url=False)
    # A misspelt required key gives two errors, "unknown" and "missing": the unknown one names the mistake.
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    path, model, members = _resolve(cls, first["loc"])
    at = f" ({where})" if where else ""
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    dotted = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        return f"unknown key '{dotted}'{at}{nearest(str(path[-1]), model.model_fields if model else ())}{more}"
    if first["type"] == "missing":
        return f"missing key '{dotted}'{at}{more}"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = sorted(kind for member in members for kind in _kinds(member))
        key = f"{dotted}.kind" if dotted else "kind"
        if first["type"] == "union_tag_not_found":
            return f"missing key '{key}'{at}: one of {', '.join(kinds)}{more}"
        tag = str(first.get("ctx", {}).get("tag", ""))
        return f"unknown kind '{tag}' at '{key}'{at}{nearest(tag, kinds)}{more}"
    message = " ".join(first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    message = message[:1].lower() + message[1:]
    value = first.get("input")
    shown = "" if isinstance(value, dict | list) else f" = {_shortened(repr(value))}"
    subject = f"'{dotted}'{shown}" if dotted else "the configuration"
    return f"{subject}{at}: {message}{more}"


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _resolve(
    cls: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[int | str], type[BaseModel] | None, list[type[BaseModel]]]:
    """Reads a pydantic error location: the user's path, the model that holds its last key, the models allowed there.

    pydantic inserts the tag of a union (`adamw` in `optim.adamw.lr`) into the location, and the data has no such key:
    the walk follows the annotations, and drops one entry wherever a union of several members stands.
    """
    path: list[int | str] = []
    holder: type[BaseModel] | None = None
    current: Any = cls
    for key in location:
        members = _members(current)
        if len(members) > 1:
            current = next((member for member in members if _has_tag(member, key)), None)
            continue
        inner = members[0] if members else None
        if key == "[key]":
            continue
        path.append(key)
        if _is_model(inner):
            holder = inner
            field = inner.model_fields.get(str(key))
            current = field.annotation if field else None
        else:
            arguments = [argument for argument in typing.get_args(inner) if argument is not Ellipsis]
            # A mapping's value is its last argument; a fixed tuple has one argument for each place.
            placed = isinstance(key, int) and key < len(arguments) and typing.get_origin(inner) is tuple
            current = arguments[int(key) if placed else -1] if arguments else None
    return path, holder, [member for member in _members(current) if _is_model(member)]


def _members(annotation: Any) -> list[Any]:
    """The members of a union without None, through Annotated and nesting; a list of one for anything else."""
    if annotation is None or annotation is types.NoneType:
        return []
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return [member for argument in typing.get_args(annotation) for member in _members(argument)]
    return [annotation]


def _has_tag(member: Any, tag: int | str) -> bool:
    """Whether pydantic names this union member `tag`: its kind, or without a discriminator its name."""
    return (_is_model(member) and tag in _kinds(member)) or getattr(member, "__name__", None) == tag


def _kinds(member: type[BaseModel]) -> tuple[str, ...]:
    field = member.model_fields.get("kind")
    return typing.get_args(field.annotation) if field else ()


def _is_model(annotation: Any) -> "typing.TypeGuard[type[BaseModel]]":
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
