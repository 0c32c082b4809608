"""Composes YAML groups and command-line overrides to a plain dictionary; Hydra does it and is not seen past this file.

It decides what an override may name and refuses every other one before Hydra sees it, so that each mistake is one line
with the full path and the nearest right name. It validates no values: that is `inlay.config.validate`'s work.

An override is Hydra's: `group=choice`, `key.path=value`, `+key=value` (adds), `~key` (removes). A plain value that
Hydra's grammar cannot read (`~/code`, `/home/josé`, `a=b`) is taken as text, and a leading `~/` as the home directory.
A mapping given whole replaces what is there (`fim.orders={psm: 1}`: no other order).
A group is named by itself or by where it stands (`model=micro` or `run.model=micro`), and where its files are named by
their kind, `source.kind=folder` is `source=folder`: a kind is swapped whole or not at all.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from inlay.config.base import Composed, nearest
from inlay.config.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

CONF_MODULE = "inlay.conf"


def compose(config_name: str, overrides: Sequence[str] = (), *, module: str = CONF_MODULE) -> dict[str, Any]:
    """The configuration `config_name` of `module`'s YAML groups with `overrides` applied: resolved plain data.

    Raises ConfigError with one line for an override that cannot be read, an unknown group, choice or key, a mandatory
    value (`???`) that nothing gave, and an interpolation that leads nowhere.
    """
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    parsed = [(text, *_parse(text)) for text in overrides]
    # Without the context manager's restore a second compose in one process would find Hydra initialised.
    with initialize_config_module(module, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = _groups(module)
        at = _places(loader, config_name)
        parsed = [(text, *_as_choice(readable, override, groups, at)) for text, readable, override in parsed]
        choices = [item for item in parsed if _is_choice(item[2], groups)]
        for text, _, override in choices:
            _check_choice(text, override, groups)
        # Hydra chooses the files; values are set here, so that one means the same as in `apply_overrides`.
        data = _hydra_compose(config_name, [readable for _, readable, _ in choices])
        for text, _, override in parsed:
            if not _is_choice(override, groups):
                _check_key(data, text, override, groups)
                _set(data, text, override)
    overridden = [(text, override) for text, _, override in parsed]
    return Composed(_resolved(config_name, data), _texts(overridden))


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], *, module: str = CONF_MODULE) -> dict[str, Any]:
    """A copy of `data` (such as a run's `config.yaml`) with `overrides` applied in order.

    A group's name swaps the whole group for one of its files, as in `compose`. Raises ConfigError as `compose` does.
    """
    from hydra import initialize_config_module

    result = _copy(data)
    if not overrides:
        return result
    overridden: list[tuple[str, Override]] = []
    with initialize_config_module(module, version_base="1.3"):
        # Only what stands in this file can be swapped, and is worth naming.
        groups = {group: choices for group, choices in _groups(module).items() if group.split("/")[0] in result}
        for text in overrides:
            at = {group.replace("/", "."): group for group in groups}
            _, override = _as_choice(*_parse(text), groups, at)
            if "${" in text:
                raise ConfigError(
                    f"'{text}' refers to another key, which a configuration file does not do: give the value"
                )
            if not _is_choice(override, groups) or override.is_delete():
                _check_key(result, text, override, groups)
                _set(result, text, override)
                overridden.append((text, override))
                continue
            _check_choice(text, override, groups)
            group, choice = override.key_or_group, override.value()
            own_place = override.package in (None, group.replace("/", "."))
            if not isinstance(choice, str) or not own_place or group.split("/")[0] not in result:
                raise ConfigError(f"'{text}' cannot be chosen on top of a configuration file; give its keys one by one")
            result = {**result, **_resolved(f"{group}/{choice}", _hydra_compose(f"{group}/{choice}", []))}
    return Composed(result, _texts(overridden))


def compose_choice(group: str, choice: str, *, module: str = CONF_MODULE) -> dict[str, Any]:
    """The one file `choice` of a group as resolved plain data. Raises ConfigError that names the nearest choice."""
    from hydra import initialize_config_module

    with initialize_config_module(module, version_base="1.3"):
        choices = _groups(module).get(group, [])
        if choice not in choices:
            raise ConfigError(f"unknown choice '{choice}' for '{group}'{nearest(choice, choices)}")
        data = _resolved(f"{group}/{choice}", _hydra_compose(f"{group}/{choice}", []))
    for part in group.split("/"):
        data = data[part]
    return data


def places(config_name: str, *, module: str = CONF_MODULE) -> dict[str, str]:
    """Where the configuration `config_name` has a group's file: dotted path to group (`run.model` to `model`)."""
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_module(module, version_base="1.3"):
        return _places(GlobalHydra.instance().config_loader(), config_name)


def quoted(value: str) -> str:
    """`value` as text in an override, whatever it holds: `f"data.path={quoted(path)}"`."""
    # There a backslash is literal, except in a run right before a quote, where each stands doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"


def list_groups(module: str = CONF_MODULE) -> dict[str, list[str]]:
    """The choices of every YAML group of `module`, by group name (`model`, or `data/source` for a nested one)."""
    return _groups(module)


# --- reading overrides ---


def _parse(text: str) -> tuple[str, "Override"]:
    """The override in the form Hydra reads, and parsed. Plain values outside Hydra's grammar are quoted."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = text.partition("=")
    if (not equals and not text.startswith("~")) or not key.strip("+~"):
        raise ConfigError(f"cannot read '{text}': an override is key=value or group=choice")
    if value.startswith("~/"):
        value = quoted(os.path.expanduser(value))
    parser = OverridesParser.create()
    readable = key + equals + value
    try:
        override = parser.parse_override(readable)
    except HydraException:
        # Lists, mappings, interpolations and quoted text are Hydra's grammar: a mistake in one is reported, not quoted.
        if not value or value[0] in "[{'\"$" or "${" in value:
            raise ConfigError(
                f"cannot read the value of '{text}': check its brackets and quotes, or quote it whole: {key}=\"'...'\""
            ) from None
        try:
            readable = key + equals + quoted(value)
            override = parser.parse_override(readable)
        except HydraException:
            raise ConfigError(
                f"cannot read '{text}': '{key}' is no configuration key; an override is key=value or group=choice"
            ) from None
    if override.is_sweep_override():
        raise ConfigError(
            f"'{text}' lists several values: write {key}=[a,b] for a list, {key}=\"'a,b'\" for text with a comma"
        )
    return readable, override


def _texts(overrides: Sequence[tuple[str, "Override"]]) -> dict[str, str]:
    """By dotted key, what was written where something else than text was read of it: a folder may be called 2024."""
    texts: dict[str, str] = {}
    for text, override in overrides:
        key, value = override.key_or_group, None if override.is_delete() else override.value()
        texts.pop(key, None)
        if not override.is_delete() and (value is None or isinstance(value, int | float)):
            texts[key] = text.partition("=")[2]
    return texts


def _places(loader: Any, config_name: str) -> dict[str, str]:
    """Dotted path to group, for every group file in the defaults of `config_name`."""
    from hydra.errors import HydraException
    from hydra.types import RunMode

    try:
        defaults = loader.compute_defaults_list(config_name=config_name, overrides=[], run_mode=RunMode.RUN)
    except HydraException as error:
        raise ConfigError(f"cannot compose '{config_name}': {_one_line(error)}") from None
    pairs = (key.partition("@") for key in defaults.overrides.known_choices if not key.startswith("hydra/"))
    return {package or group.replace("/", "."): group for group, _, package in pairs}


def _as_choice(
    readable: str, override: "Override", groups: Mapping[str, list[str]], at: Mapping[str, str]
) -> tuple[str, "Override"]:
    """The override with its group written as Hydra wants it, `group@package=choice`; others as they are."""
    key, value = override.key_or_group, None if override.is_delete() else override.value()
    if override.package is not None or override.is_add() or override.is_force_add() or isinstance(value, dict):
        return readable, override
    dotted = key.replace("/", ".")
    above, _, last = dotted.rpartition(".")
    if dotted in at:
        package = dotted
    elif last == "kind" and value in groups.get(at.get(above, ""), []):
        package = above
    else:
        elsewhere = [package for package, group in at.items() if group == key]
        if len(elsewhere) > 1:
            raise ConfigError(f"'{readable}' could mean {' or '.join(f'{package}={value}' for package in elsewhere)}")
        if not elsewhere:
            return readable, override
        package = elsewhere[0]
    group = at[package]
    name = group if group.replace("/", ".") == package else f"{group}@{package}"
    _, equals, text = readable.partition("=")
    return _parse(f"{'~' if override.is_delete() else ''}{name}{equals}{text}")


def _groups(module: str) -> dict[str, list[str]]:
    """Every group's choices; the top level (whole configurations) is left out. Read from the folders themselves:
    Hydra's own listing takes a quarter of a second."""
    found: dict[str, list[str]] = {}
    waiting = [("", resources.files(module))]
    while waiting:
        group, folder = waiting.pop()
        files = list(folder.iterdir())
        if group:
            # Sorted without their ending: "a.yaml" comes after "a-b.yaml", but "a" before "a-b".
            found[group] = sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
        waiting += [(f"{group}/{file.name}".lstrip("/"), file) for file in files if file.is_dir()]
    return {group: choices for group, choices in sorted(found.items()) if choices}


def _is_choice(override: "Override", groups: Mapping[str, list[str]]) -> bool:
    return override.key_or_group in groups


def _check_choice(text: str, override: "Override", groups: Mapping[str, list[str]]) -> None:
    """Raises ConfigError when a group override names a file that the group does not have."""
    group, value = override.key_or_group, override.value()
    if value is None and not override.is_delete():
        raise ConfigError(f"'{text}': a group takes one of {', '.join(groups[group])}; leave it out with ~{group}")
    for choice in value if isinstance(value, list) else [value]:
        if choice is not None and choice not in groups[group]:
            raise ConfigError(f"unknown choice '{choice}' for '{group}' ({text}){nearest(str(choice), groups[group])}")


# --- applying them to a plain dictionary ---


def _check_key(data: Mapping[str, Any], text: str, override: "Override", groups: Mapping[str, list[str]]) -> None:
    """Raises ConfigError when the override's key is not in `data` and the override does not add it."""
    path = override.key_or_group.split(".")
    current: Any = data
    for depth, key in enumerate(path):
        inside = (isinstance(current, Mapping) and key in current) or (
            isinstance(current, list) and key.isdecimal() and int(key) < len(current)
        )
        if inside:
            current = current[key] if isinstance(current, Mapping) else current[int(key)]
            continue
        if override.is_add() or override.is_force_add():
            return
        above = ".".join(path[:depth])
        if isinstance(current, Mapping) and not current and above:
            raise ConfigError(f"'{above}' has no entry '{key}' ({text}): write +{text} to add it")
        if not isinstance(current, Mapping | list) and above:
            raise ConfigError(
                f"'{above}' = {current!r} has no keys inside, so '{override.key_or_group}' cannot be set ({text})"
            )
        raise ConfigError(f"unknown key '{override.key_or_group}' ({text}){_suggest(data, path, depth, groups)}")


def _suggest(data: Mapping[str, Any], path: list[str], depth: int, groups: Mapping[str, list[str]]) -> str:
    """The nearest right name: a sibling, the same last name elsewhere, any path; else what is allowed here."""
    siblings: Any = data
    for key in path[:depth]:
        siblings = siblings[int(key)] if isinstance(siblings, list) else siblings[key]
    if isinstance(siblings, list):
        return f"; allowed here: {', '.join(map(str, range(len(siblings))))}" if siblings else "; the list is empty"
    names = list(siblings)
    if len(path) == 1:
        names += [group for group in groups if group not in names]
    close = difflib.get_close_matches(path[depth], names, n=1, cutoff=0.6)
    every = list(_paths(data))
    if close:
        candidate = ".".join([*path[:depth], close[0], *path[depth + 1 :]])
        if candidate in every or candidate in groups:
            return f"; did you mean '{candidate}'?"
        return f"; did you mean '{'.'.join([*path[:depth], close[0]])}'?"
    dotted = ".".join(path)
    same_name = [name for name in every if name.rsplit(".", 1)[-1] == path[-1]]
    if same_name:
        return f"; did you mean '{max(same_name, key=lambda name: _likeness(name, dotted))}'?"
    elsewhere = [name for name in every if not dotted.startswith(f"{name}.")]
    close = difflib.get_close_matches(dotted, elsewhere, n=1, cutoff=0.7)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed here: {', '.join(sorted(map(str, names)))}" if names else ""


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _paths(data: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted path of a nested dictionary."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield f"{prefix}{key}"
            yield from _paths(value, f"{prefix}{key}.")


def _set(data: dict[str, Any], text: str, override: "Override") -> None:
    """Sets, adds or deletes the override's key in `data`."""
    path = override.key_or_group.split(".")
    current: Any = data
    for key in path[:-1]:
        if isinstance(current, list):
            current = current[int(key)]
        elif isinstance(current, dict):
            if current.get(key) is None:
                current[key] = {}
            current = current[key]
    last: str | int = path[-1]
    if isinstance(current, list):
        if not path[-1].isdecimal() or int(path[-1]) >= len(current):
            raise ConfigError(f"'{'.'.join(path[:-1])}' is a list of {len(current)} ({text}): give the whole list")
        last = int(path[-1])
    elif not isinstance(current, dict):
        raise ConfigError(f"'{'.'.join(path[:-1])}' = {current!r} has no keys inside ({text})")
    value = override.value()
    if isinstance(current, list):
        old = current[int(last)]
    else:
        old = current.get(last)
    if override.is_delete():
        # `~key=value` removes it only if that is its value.
        if value not in (None, "", old):
            raise ConfigError(f"'{override.key_or_group}' is {old!r} ({text}): write ~{override.key_or_group}")
        del current[last]
        return
    joins = isinstance(old, dict) and isinstance(value, dict)
    if override.is_add() and not joins and old is not None:
        raise ConfigError(f"'{override.key_or_group}' is there already ({text}): leave out the +")
    added = override.is_add() or override.is_force_add()
    current[last] = _merged(old, value) if joins and added else _copy(value)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with the entries of `new`, mapping by mapping, as Hydra merges a mapping given for a key."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        result[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


# --- Hydra ---


def _hydra_compose(config_name: str, choices: list[str]) -> dict[str, Any]:
    """The files that make up `config_name`, merged; interpolations and missing values are still in it."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        data = OmegaConf.to_container(hydra_compose(config_name, overrides=choices), resolve=False)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"cannot compose '{config_name}': {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"cannot compose '{config_name}': it is not a mapping")
    return {str(key): value for key, value in data.items()}


def _resolved(config_name: str, data: dict[str, Any]) -> dict[str, Any]:
    """`data` with its interpolations replaced by what they refer to, and no mandatory value missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        plain = OmegaConf.to_container(OmegaConf.create(data), resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or _one_line(error)
        raise ConfigError(f"'{key}' has no default: give it as {key}=...") from None
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"cannot compose '{config_name}': {_one_line(error)}") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _one_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line.rstrip(".;") for line in lines if line and not line.startswith(("See http", "object_type=")))
