"""Training and validation, split by repository and never by file: files of one project repeat each other, and a split
by file flatters every number.

The choice depends on (seed, names of repositories and directories, sizes) alone. Where there are only a few
repositories, one of them held out whole would be other text than the rest: each gives some of its directories instead.
It refuses a corpus that has nothing to tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash
from pydantic import Field

from inlay.config import BadInput, Config, nearest

_WANTED_GROUPS = 8
FEW_REPOSITORIES = 8
"""Under so many repositories, directories are held out across them."""
_MOST_OF_ONE = 0.3
"""Share of a repository that its held-out directories may take; one that has none small enough is trained on whole."""


class SplitConfig(Config):
    """How much is held out for validation, or what."""

    validation_fraction: float = Field(0.05, gt=0, lt=1)
    """Share of the bytes to hold out, met as closely as whole repositories allow."""
    validation_max_bytes: int | None = Field(4_000_000, ge=1, le=1 << 40)
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
    if config.validation_repos is None:
        parted = _across_repositories(entries, config, seed)
        if parted is not None:
            return parted
    keys, split_by = [entry.repo for entry in entries], "repo"
    if len(set(keys)) < 2:
        keys, split_by = directory_groups(entries), "directory"
    sizes = _sizes(keys, entries)
    if len(sizes) < 2:
        raise BadInput(
            f"corpus too small to split: {len(entries)} documents in one directory; "
            "validation needs a second repository or directory, so give a folder with more code"
        )
    if config.validation_repos is not None:
        held_out = _named(sizes, config.validation_repos)
    else:
        held_out = choose(sizes, _target(config, sum(sizes.values())), seed)
    groups = {"train": sorted(set(sizes) - held_out), "validation": sorted(held_out)}
    return Split([key in held_out for key in keys], split_by, groups)


def _across_repositories(entries: Sequence[Entry], config: SplitConfig, seed: int) -> Split | None:
    """Directories of each of a few repositories, in proportion to their sizes; None where there are many or one, or
    where no repository has directories that may be held out."""
    members: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        members.setdefault(entry.repo, []).append(index)
    if not 2 <= len(members) < FEW_REPOSITORIES:
        return None
    total = sum(entry.bytes for entry in entries)
    share = _target(config, total) / max(1, total)
    keys = [""] * len(entries)
    held_out: set[str] = set()
    for repo, indices in members.items():
        own = [entries[index] for index in indices]
        groups = [_group_name(repo, group) for group in directory_groups(own)]
        sizes = _sizes(groups, own)
        for index, group in zip(indices, groups, strict=True):
            keys[index] = group
        if len(sizes) > 1:
            whole = sum(sizes.values())
            chosen = choose(sizes, share * whole, seed)
            if sum(sizes[group] for group in chosen) <= _MOST_OF_ONE * whole:
                held_out |= chosen
    if not held_out:
        return None
    groups = {"train": sorted(set(keys) - held_out), "validation": sorted(held_out)}
    return Split([key in held_out for key in keys], "directory", groups)


def _group_name(repo: str, directory: str) -> str:
    """The directory's path, behind its repository's name where it does not begin with it."""
    return directory if directory == repo or directory.startswith(f"{repo}/") else f"{repo}/{directory}"


def _sizes(keys: Sequence[str], entries: Sequence[Entry]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for key, entry in zip(keys, entries, strict=True):
        sizes[key] = sizes.get(key, 0) + entry.bytes
    return sizes


def _target(config: SplitConfig, total: int) -> float:
    """Bytes to hold out of `total`."""
    target = config.validation_fraction * total
    return target if config.validation_max_bytes is None else min(target, config.validation_max_bytes)


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
