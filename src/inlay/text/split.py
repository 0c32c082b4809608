"""Training and validation, split by repository and never by file: files of one project repeat each other, and a split
by file flatters every number.

The choice depends on (seed, repository names, sizes) alone. Where there is one repository only, its directories take
the part of repositories. It refuses a corpus that has nothing to tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash
from pydantic import Field

from inlay.config import BadInput, Config, nearest

_WANTED_GROUPS = 8


class SplitConfig(Config):
    """How much is held out for validation, or what."""

    validation_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of the bytes to hold out, met as closely as whole repositories allow."""
    validation_max_bytes: int | None = Field(4_000_000, ge=1)
    """Never aim for more than this; None for no limit."""
    validation_repos: tuple[str, ...] | None = None
    """Hold out exactly these repositories instead."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the split needs to know about a document."""

    repo: str
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Split:
    """`validation` bool per document; `split_by` is `repo` or `directory`; `groups` are the groups of each split,
    sorted.
    """

    validation: list[bool]
    split_by: str
    groups: dict[str, list[str]]


def split(entries: Sequence[Entry], config: SplitConfig, seed: int) -> Split:
    """Splits documents. Raises BadInput when there are fewer than two groups or an unknown repository is to be held
    out.
    """
    keys, split_by = [entry.repo for entry in entries], "repo"
    if len(set(keys)) < 2:
        keys, split_by = directory_groups(entries), "directory"
    sizes: dict[str, int] = {}
    for key, entry in zip(keys, entries, strict=True):
        sizes[key] = sizes.get(key, 0) + entry.bytes
    if len(sizes) < 2:
        raise BadInput(
            f"corpus too small to split: {len(entries)} documents in one directory; "
            "validation needs a second repository or directory, so give a folder with more code"
        )
    if config.validation_repos is not None:
        held_out = _named(sizes, config.validation_repos)
    else:
        target = config.validation_fraction * sum(sizes.values())
        if config.validation_max_bytes is not None:
            target = min(target, config.validation_max_bytes)
        held_out = choose(sizes, target, seed)
    groups = {"train": sorted(set(sizes) - held_out), "validation": sorted(held_out)}
    return Split([key in held_out for key in keys], split_by, groups)


def choose(sizes: dict[str, int], target: float, seed: int) -> set[str]:
    """Groups to hold out: at least one and not all, together about `target` bytes, in an order keyed by (seed, name).

    Groups of up to half the target are taken first, so that one large repository does not stand for all; larger ones
    only where those leave the share under half, and the smallest group when nothing else fits.
    """
    order = sorted(sizes, key=lambda name: (xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()), name))
    chosen: list[str] = []
    taken = 0
    for largest, enough in ((target / 2, target), (2 * target, target / 2)):
        if taken >= enough:
            continue
        for name in order:
            # By ratio: for a small project twice the share is a better validation set than a third of it.
            closer = taken == 0 or max((taken + sizes[name]) / target, 1.0) < target / taken
            if name not in chosen and sizes[name] <= largest and closer and len(chosen) < len(sizes) - 1:
                chosen.append(name)
                taken += sizes[name]
    return set(chosen) or {min(order, key=lambda name: sizes[name])}


def directory_groups(entries: Sequence[Entry]) -> list[str]:
    """A group for each document of a single repository: its directory, cut to a depth.

    The depth is the shallowest at which there are at least eight groups and none holds more than half of the bytes
    (deeper cuts part related files), else the one whose largest group is smallest.
    """
    directories = [entry.path.split("/")[:-1] for entry in entries]
    deepest = max(map(len, directories), default=0)
    total = sum(entry.bytes for entry in entries)
    candidates = []
    for depth in range(1, deepest + 1):
        keys = ["/".join(parts[:depth]) or "." for parts in directories]
        sizes: dict[str, int] = {}
        for key, entry in zip(keys, entries, strict=True):
            sizes[key] = sizes.get(key, 0) + entry.bytes
        largest = max(sizes.values())
        if len(sizes) >= _WANTED_GROUPS and largest <= total / 2:
            return keys
        candidates.append((largest, -len(sizes), depth, keys))
    return min(candidates)[-1] if candidates else ["."] * len(entries)


def _named(sizes: dict[str, int], names: tuple[str, ...]) -> set[str]:
    for name in names:
        if name not in sizes:
            raise BadInput(f"'split.validation_repos': the corpus has no repository '{name}'{nearest(name, sizes)}")
    if not names or len(set(names)) == len(sizes):
        raise BadInput("'split.validation_repos' must name at least one repository and leave at least one for training")
    return set(names)
