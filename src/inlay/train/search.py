"""Searches: which points of a space of options a sweep trains. One file a kind in `inlay.train.searches`.

A search is asked again whenever a trial has ended, and answers with all trials that it wants so far, those that have
ended among them. The answer depends on nothing but the outcomes on the disk (and, where a kind keeps one, its journal
in the sweep's folder), so that a killed sweep goes on as if it had not been. The list only ever grows at its end.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inlay.config import Config, Registry
from inlay.config.compose import quoted

searches = Registry("search", "inlay.train.searches")

Scalar = bool | int | float | str | None
Values = Mapping[str, Scalar]
"""A point of the space: a value for each option that is searched."""
Curve = tuple[tuple[float, float], ...]
"""(tokens, value of the metric), ascending in tokens."""


@dataclass(frozen=True)
class Trial:
    """A point to train with one seed. `name` is that of a folder, the same for all seeds of a point."""

    name: str
    values: Values
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.seed


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `value` is the metric at the end, infinite for one that diverged or failed."""

    state: Literal["complete", "diverged", "pruned", "failed"]
    """`failed`: for a reason that is not the point's fault (a full disk); it is tried again when the sweep goes on."""
    value: float
    curve: Curve = ()


Outcomes = Mapping[tuple[str, int], Outcome]
"""By name and seed of the trial."""


class Search(Config):
    """What all searches answer. Smaller values of the metric are better."""

    kind: str

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """The options that it sets, as overrides name them."""

    @property
    def adaptive(self) -> bool:
        """Whether later trials depend on the metric of earlier ones."""
        return True

    @abstractmethod
    def corners(self) -> list[Values]:
        """The outermost points it may try: whether a configuration can be made of them is checked before anything
        runs."""

    @abstractmethod
    def first(self, seeds: Sequence[int]) -> list[Trial]:
        """The trials that are known before any has run."""

    @abstractmethod
    def wanted(self, seeds: Sequence[int], outcomes: Outcomes, slots: int, folder: Path) -> list[Trial]:
        """All trials wanted so far. `slots`: how many may run at a time, 0 to ask for no new one; `folder` is the
        search's own, for a kind that keeps a journal."""

    @abstractmethod
    def most(self, seeds: Sequence[int]) -> int:
        """The most trials that it will want."""

    @abstractmethod
    def outline(self, seeds: Sequence[int]) -> list[str]:
        """What it will try, a line each, for people."""

    def hopeless(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """Whether to stop a run whose metric has gone like `curve` so far, after complete ones like `others`."""
        return False


def values_of(name: str, seeds: Sequence[int], outcomes: Outcomes) -> list[float] | None:
    """The values of a point under all of `seeds`; None while one is missing."""
    found = [outcomes.get((name, seed)) for seed in seeds]
    return None if None in found else [outcome.value for outcome in found if outcome is not None]


def mean_of(name: str, seeds: Sequence[int], outcomes: Outcomes) -> float | None:
    """The mean over all of `seeds`, infinite when one is; None while one is missing."""
    values = values_of(name, seeds, outcomes)
    return None if values is None else sum(values) / len(values)


def point_name(values: Values) -> str:
    """A folder's name for a point, from its values: `lr-0.002-layers-4`."""
    keys = list(values)
    last = [key.rsplit(".", 1)[-1] for key in keys]
    titles = [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]
    return "-".join(f"{title}-{_shown(value)}" for title, value in zip(titles, values.values(), strict=True))


def override(key: str, value: Scalar) -> str:
    """The override that sets `key` to `value`."""
    if value is None:
        return f"{key}=null"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    if isinstance(value, str) and not all(letter.isalnum() or letter in "._-/" for letter in value):
        return f"{key}={quoted(value)}"
    return f"{key}={value}"


def point_overrides(values: Values) -> list[str]:
    """The overrides of a point."""
    return [override(key, value) for key, value in values.items()]


def rounded(value: float, digits: int = 3) -> float:
    """`value` to so many significant digits: what stands in a name is what is trained."""
    return float(f"{value:.{digits - 1}e}") if math.isfinite(value) and value else value


def _shown(value: Scalar) -> str:
    text = f"{value:g}" if isinstance(value, float) else override("", value)[1:]
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
