"""Kinds: variants chosen by a `kind:` tag, each one file in its registry's package.

A registry imports every module of its package once, so adding a variant is adding a file:

    sources = Registry("source", "inlay.text.sources")

    @sources.register
    class FolderSource(Config):
        kind: Literal["folder"] = "folder"

The union of all members, discriminated by `kind`, is `sources.union()` and serves as a pydantic field type.
"""

import functools
import importlib
import operator
import pkgutil
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field

from inlay.config.base import Config, nearest
from inlay.config.errors import ConfigError

T = TypeVar("T", bound=type[Config])


class Registry:
    """The members of one sort of variant, found by importing every module of `package`."""

    def __init__(self, sort: str, package: str) -> None:
        self.sort = sort
        self.package = package
        self._members: dict[str, type[Config]] = {}
        self._discovered = False

    def register(self, cls: T) -> T:
        """Class decorator: adds a config class whose `kind` field is a one-value Literal."""
        (kind,) = get_args(cls.model_fields["kind"].annotation)
        other = self._members.get(kind)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise ConfigError(f"two {self.sort}s are called '{kind}': {other.__module__} and {cls.__module__}")
        self._members[kind] = cls
        return cls

    def members(self) -> dict[str, type[Config]]:
        """All members by kind, sorted by name."""
        if not self._discovered:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._discovered = True
        return dict(sorted(self._members.items()))

    def get(self, kind: str) -> type[Config]:
        """The member called `kind`. Raises ConfigError that names the nearest one."""
        members = self.members()
        if kind not in members:
            raise ConfigError(f"unknown {self.sort} '{kind}'{nearest(kind, members)}")
        return members[kind]

    def union(self) -> Any:
        """A pydantic field type that accepts any member, chosen by its `kind`."""
        members = tuple(self.members().values())
        if len(members) == 1:
            return members[0]
        together = functools.reduce(operator.or_, members)
        return Annotated[together, Field(discriminator="kind")]  # pyrefly: ignore (members are known at run time)
