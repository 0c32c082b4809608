"""What every member of every registry and every shipped YAML file is held to, found by walking the package.

A new kind or a new YAML file is under these rules at once, without a line here.
"""

import importlib
import pkgutil
import re
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
import yaml

import inlay
from inlay.config import Config, ConfigError, Count, Registry, validate
from inlay.config.compose import compose, compose_choice, list_groups, places
from inlay.config.yaml_file import load_yaml

CONF = Path(inlay.__file__).parent / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
ROOTS = [name for name in FILES if "/" not in name]
CHOICES = [tuple(name.rsplit("/", 1)) for name in FILES if "/" in name]
# A run needs one of steps, tokens and minutes; no default would suit everyone.
NEEDED = {"train": ["train.steps=1"]}


@cache
def modules() -> tuple[Any, ...]:
    """Every module of the package."""
    names = [module.name for module in pkgutil.walk_packages(inlay.__path__, "inlay.")]
    return tuple(importlib.import_module(name) for name in names if not name.endswith("__main__"))


@cache
def registries() -> dict[str, Registry]:
    """Every registry of the package, by its sort."""
    found = {id(value): value for module in modules() for value in vars(module).values() if isinstance(value, Registry)}
    sorts = [registry.sort for registry in found.values()]
    assert len(sorts) == len(set(sorts)), f"two registries of one sort: {sorted(sorts)}"
    return {registry.sort: registry for registry in found.values()}


@cache
def schemas() -> tuple[type[Config], ...]:
    """Every configuration class of the package, those that a module's `schema()` makes when asked included."""
    made = [vars(module)["schema"]() for module in modules() if callable(vars(module).get("schema"))]
    assert all(issubclass(cls, Config) for cls in made)
    found: list[type[Config]] = []
    waiting = list(Config.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if cls.__module__.startswith("inlay."):
            found.append(cls)
    return tuple(found)


def composed(name: str, *overrides: str) -> dict[str, Any]:
    """The configuration `name`; a mandatory value gets its own name."""
    given = [*NEEDED.get(name, []), *overrides]
    while True:
        try:
            return compose(name, given)
        except ConfigError as error:
            missing = re.match(r"'(.+)' has no default", str(error))
            if missing is None:
                raise
            given.append(f"{missing[1]}=given")


def schema_of(data: dict[str, Any], name: str) -> type[Config]:
    """The one configuration class whose fields are the keys of `data`."""
    matching = [cls for cls in schemas() if set(cls.model_fields) == set(data)]
    if "kind" in data:
        matching = [cls for cls in matching if data["kind"] in get_args(cls.model_fields["kind"].annotation)]
    if not matching:
        closest = max(
            schemas(), key=lambda cls: len(set(cls.model_fields) & set(data)) / len(set(cls.model_fields) | set(data))
        )
        apart = sorted(set(closest.model_fields) ^ set(data))
        pytest.fail(f"conf/{name}.yaml has the keys of no configuration class; {closest.__name__} differs in {apart}")
    assert len(matching) == 1, f"conf/{name}.yaml has the keys of several classes: {matching}"
    return matching[0]


def missing_keys(written: Any, full: Any, path: str = "") -> Iterator[str]:
    """Fields of the schema that the YAML leaves out: they could not be overridden without a plus sign."""
    if isinstance(written, dict) and isinstance(full, dict):
        for key, value in full.items():
            if key not in written:
                yield f"{path}{key}"
            else:
                yield from missing_keys(written[key], value, f"{path}{key}.")


def check(cls: type[Config], data: dict[str, Any], name: str) -> None:
    """`data` is a `cls`, and names each of its fields."""
    full = validate(cls, data, where=f"conf/{name}.yaml").to_dict()
    assert list(missing_keys(data, full)) == [], f"conf/{name}.yaml leaves out fields of {cls.__name__}"


def test_there_is_something_to_check() -> None:
    assert ROOTS
    assert CHOICES
    assert registries()


@pytest.mark.parametrize("name", FILES)
def test_yaml_file(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.match(r"# \S.*\S", text), f"conf/{name}.yaml does not open with a comment that says what it is"
    defaults = (yaml.safe_load(text) or {}).get("defaults")
    # First, `_self_` would let a group's value silently beat the file's own.
    assert defaults is None or defaults[-1] == "_self_", f"conf/{name}.yaml: `_self_` must stand last"
    load_yaml(CONF / f"{name}.yaml")


@pytest.mark.parametrize("name", ROOTS)
def test_root_composes_and_validates(name: str) -> None:
    data = composed(name)
    check(schema_of(data, name), data, name)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_choice_composes_and_validates(group: str, choice: str) -> None:
    name = f"{group}/{choice}"
    assert choice in list_groups()[group]
    # Where it stands deeper (`tokenizer@prepare.tokenizer`), the file around it may set keys of one kind.
    users = [root for root in ROOTS if places(root).get(group.replace("/", ".")) == group]
    for root in users:
        data = composed(root, f"{group}={choice}")
        check(schema_of(data, root), data, name)
    if not users:
        data = compose_choice(group, choice)
        check(schema_of(data, name), data, name)


def test_each_registry_keeps_its_members_to_the_contract() -> None:
    for sort, registry in registries().items():
        members = registry.members()
        assert members, f"no {sort} is registered"
        for kind, cls in members.items():
            where = f"{cls.__module__}.{cls.__name__}"
            assert issubclass(cls, Config), where
            assert get_args(cls.model_fields["kind"].annotation) == (kind,), where
            assert cls.model_fields["kind"].default == kind, f"{where}: kind has no default"
            assert re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", kind), f"{where}: a kind is lower case"
            assert cls.__module__.startswith(f"{registry.package}."), f"{where} is not in {registry.package}"
            assert cls.__doc__, f"{where} has no docstring"
            assert importlib.import_module(cls.__module__).__doc__, f"{cls.__module__} has no opening paragraph"
        modules_with_member = {cls.__module__ for cls in members.values()}
        package = importlib.import_module(registry.package)
        for module in pkgutil.iter_modules(package.__path__, f"{registry.package}."):
            assert module.name in modules_with_member, f"{module.name} registers no {sort}"


UNBOUNDED = {
    # A run's own record: a number of the file, not of a person.
    ("inlay.data.inspect", "LengthOptions"), ("inlay.data.inspect", "PieceOptions"),
    ("inlay.data.inspect", "RowOptions"),
    # Values for the keys of other configurations, which are bounded there.
    ("inlay.train.searches.grid", "Grid"), ("inlay.train.searches.optuna", "OptunaSearch"),
    ("inlay.model.sharing", "ExplicitSharing"),
}  # fmt: skip
"""Classes whose numbers have no bounds, and why."""


def unbounded(annotation: Any, metadata: tuple[Any, ...]) -> bool:
    """Whether an annotation lets in an int or float without an upper or a lower bound."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        flat = [part for one in more for part in (getattr(one, "metadata", None) or [one])]
        return unbounded(inner, (*metadata, *flat))
    if annotation in (int, float):
        upper = any(isinstance(part, annotated_types.Le | annotated_types.Lt) for part in metadata)
        lower = any(isinstance(part, annotated_types.Ge | annotated_types.Gt) for part in metadata)
        return not (upper and lower)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return False
    if origin in (Union, types.UnionType):
        return any(unbounded(one, metadata) for one in arguments)
    return any(unbounded(one, ()) for one in arguments)


def test_every_number_of_a_configuration_has_bounds() -> None:
    """A number that is too large by a slip of a key must be an error, not an hour of silence or all memory."""
    found = {
        f"{cls.__module__}.{cls.__name__}.{name}"
        for cls in schemas()
        for name, field in cls.model_fields.items()
        if unbounded(field.annotation, tuple(field.metadata)) and (cls.__module__, cls.__name__) not in UNBOUNDED
    }
    assert sorted(found) == []
    assert unbounded(int, ())
    assert unbounded(dict[str, tuple[float, ...]], ())
    assert not unbounded(Count, ())


def test_a_group_of_kinds_offers_every_kind() -> None:
    for group in list_groups():
        kinds = {choice: load_yaml(CONF / group / f"{choice}.yaml").get("kind") for choice in list_groups()[group]}
        if None in kinds.values():
            continue
        registry = min(
            (registry for registry in registries().values() if set(kinds.values()) <= set(registry.members())),
            key=lambda registry: len(registry.members()),
            default=None,
        )
        assert registry is not None, f"conf/{group}: the kinds {sorted(kinds.values())} are in no registry"
        absent = sorted(set(registry.members()) - set(kinds.values()))
        assert absent == [], f"conf/{group} has no file for the {registry.sort} {absent}"
