"""What a comparison has in its rows: single runs, and runs of one recipe with several seeds as one.

Each entry has a letter, which stands for it on the whole page, in the order the runs were given. Names are made
distinct by the folders above them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inlay.evaluate.report_configs import SEED, but_for_seed
from inlay.evaluate.report_data import Point, RunData

_SEED = re.compile(r"[-_. ]*seed[-_=. ]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A run, or runs that differ only in their seed; `runs` is never empty."""

    letter: str
    name: str
    index: int
    runs: tuple[RunData, ...]

    @property
    def several(self) -> bool:
        """Whether it stands for more than one run."""
        return len(self.runs) > 1

    @property
    def complete(self) -> tuple[RunData, ...]:
        """The runs that its means are of: those that came as far as the furthest one."""
        furthest = max(((run.step or 0) for run in self.runs), default=0)
        return tuple(run for run in self.runs if (run.step or 0) == furthest)

    @property
    def left_out(self) -> tuple[RunData, ...]:
        """Runs that ended before the others."""
        return tuple(run for run in self.runs if run not in self.complete)

    def mean(self, of: Callable[[RunData], float | None]) -> float | None:
        """The mean over the runs that have it."""
        values = self.values(of)
        return sum(values) / len(values) if values else None

    def values(self, of: Callable[[RunData], float | None]) -> list[float]:
        """What its complete runs have, in order."""
        return [value for run in self.complete if (value := of(run)) is not None]


def entries_of(runs: Sequence[RunData]) -> list[Entry]:
    """Groups runs that differ only in their seed, in the order of each group's first run."""
    names = distinct_names([run.path for run in runs])
    groups: dict[Any, list[int]] = {}
    for at, run in enumerate(runs):
        key: Any = at if run.unreadable or not _seed(run) else but_for_seed(run.config)
        members = groups.setdefault(key, [])
        if _seed(run) in [_seed(runs[other]) for other in members]:
            groups[at] = [at]  # the same recipe and seed again: a copy, not another seed
        else:
            members.append(at)
    titles = [_group_name([names[at] for at in members]) for members in groups.values()]
    titles = [
        title if titles.count(title) == 1 else names[m[0]] for title, m in zip(titles, groups.values(), strict=True)
    ]
    return [
        Entry(letter(index), title, index, tuple(runs[at] for at in members))
        for index, (title, members) in enumerate(zip(titles, groups.values(), strict=True))
    ]


def letter(index: int) -> str:
    """A, B ... Z, AA, AB ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last folder of each path, with as many folders above it as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    names = []
    for mine in parts:
        count = 1
        while count < len(mine) and sum(other[-count:] == mine[-count:] for other in parts) > 1:
            count += 1
        names.append("/".join(mine[-count:]))
    return [name if names.count(name) == 1 else f"{name} ({at + 1})" for at, name in enumerate(names)]


def mean_curve(curves: Sequence[list[Point]]) -> tuple[list[Point], list[tuple[float, float, float]]]:
    """The mean line of several curves and the band from lowest to highest: (points, [(x, low, high)]).

    Over the range that all of them cover, at every x that one of them has, straight between points.
    """
    covered = [np.array(sorted(curve)) for curve in curves if curve]
    if not covered:
        return [], []
    if len(covered) == 1:
        return [(float(x), float(y)) for x, y in covered[0]], []
    first, last = max(curve[0, 0] for curve in covered), min(curve[-1, 0] for curve in covered)
    if first > last:
        return [], []
    places = np.unique(np.concatenate([*(curve[:, 0] for curve in covered), [first, last]]))
    places = places[(places >= first) & (places <= last)]
    values = np.stack([np.interp(places, curve[:, 0], curve[:, 1]) for curve in covered])
    columns = (places, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
    x, mean, low, high = (column.tolist() for column in columns)
    return list(zip(x, mean, strict=True)), list(zip(x, low, high, strict=True))


def value_at(curve: Sequence[Point], x: float) -> float:
    """The curve at `x`, straight between its points and level beyond its ends. `curve` ascends and is not empty."""
    return float(np.interp(x, [point[0] for point in curve], [point[1] for point in curve]))


def _seed(run: RunData) -> str:
    return str(run.config[SEED]) if SEED in run.config else ""


def _group_name(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    bare = {_SEED.sub("", name) for name in names}
    if len(bare) == 1 and (found := bare.pop().strip("-_. /")):
        return found
    same = next(
        (at for at, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )
    return names[0][:same].rstrip("-_. 0123456789/") or names[0]
