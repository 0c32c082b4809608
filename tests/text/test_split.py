"""Laws of the split: whole groups, both sides, a fair share, a pure function of seed and names."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.text.split import Entry, SplitConfig, choose, directory_groups, split

SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 10_000), min_size=2, max_size=30)


def entries_of(sizes: dict[str, int]) -> list[Entry]:
    return [Entry(repo, f"{repo}/{part}.py", size) for repo, size in sizes.items() for part in range(2)]


@given(SIZES, st.integers(0, 3), st.floats(0.01, 0.5))
def test_no_repository_is_parted_and_both_sides_have_one(sizes: dict[str, int], seed: int, fraction: float) -> None:
    entries = entries_of(sizes)
    result = split(entries, SplitConfig(validation_fraction=fraction), seed)
    sides = {
        side: {entry.repo for entry, held in zip(entries, result.validation, strict=True) if held == side}
        for side in (True, False)
    }
    assert sides[True]
    assert sides[False]
    assert not sides[True] & sides[False]
    assert result.split_by == "repo"
    assert result.groups == {"train": sorted(sides[False]), "validation": sorted(sides[True])}


@given(SIZES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(sizes: dict[str, int], seed: int, shuffler: random.Random) -> None:
    entries = entries_of(sizes)
    shuffled = shuffler.sample(entries, len(entries))
    assert split(entries, SplitConfig(), seed).groups == split(shuffled, SplitConfig(), seed).groups


@given(SIZES, st.integers(0, 3))
def test_a_repository_is_never_taken_that_makes_the_share_worse(sizes: dict[str, int], seed: int) -> None:
    target = 0.1 * sum(sizes.values())
    chosen = choose(sizes, target, seed)
    taken = sum(sizes[name] for name in chosen)
    assert taken <= 2.5 * target or (len(chosen) == 1 and taken == min(sizes.values()))
    assert len(chosen) == 1 or any(taken - sizes[name] < target for name in chosen)


def test_the_share_is_met_by_many_small_repositories_and_never_by_the_giant() -> None:
    sizes = {"giant": 10_000_000} | {f"repo{index}": 20_000 for index in range(200)}
    for seed in range(20):
        result = split([Entry(name, f"{name}.py", size) for name, size in sizes.items()], SplitConfig(), seed)
        held = result.groups["validation"]
        assert "giant" not in held
        assert sum(sizes[name] for name in held) == pytest.approx(700_000, abs=20_000)


def test_the_seed_changes_the_choice_and_a_limit_bounds_it() -> None:
    entries = [Entry(f"repo{index}", f"{index}.py", 1000) for index in range(100)]
    first, second = (split(entries, SplitConfig(), seed).groups["validation"] for seed in (0, 1))
    assert first != second
    assert len(first) == len(second) == 5
    assert len(split(entries, SplitConfig(validation_max_bytes=2000), 0).groups["validation"]) == 2


def test_named_repositories_are_held_out() -> None:
    entries = entries_of({"numpy": 5, "sympy": 7, "torch": 9})
    assert split(entries, SplitConfig(validation_repos=("sympy",)), 0).groups["validation"] == ["sympy"]
    with pytest.raises(BadInput, match="no repository 'simpy'; did you mean 'sympy'"):
        split(entries, SplitConfig(validation_repos=("simpy",)), 0)
    for names in ((), ("numpy", "sympy", "torch")):
        with pytest.raises(BadInput, match="at least one repository"):
            split(entries, SplitConfig(validation_repos=names), 0)


def test_one_repository_is_split_by_directory() -> None:
    entries = [Entry("app", f"src/app/part{index}/file{number}.py", 100) for index in range(10) for number in range(3)]
    entries.append(Entry("app", "setup.py", 50))
    result = split(entries, SplitConfig(), 0)
    assert result.split_by == "directory"
    assert any(group.startswith("src/app/part") for group in result.groups["validation"])
    assert sorted(result.groups["train"] + result.groups["validation"]) == [
        ".",
        *(f"src/app/part{index}" for index in range(10)),
    ]


def test_directories_are_cut_no_deeper_than_needed() -> None:
    entries = [Entry("app", f"part{index}/deep/er/file.py", 10) for index in range(8)]
    assert directory_groups(entries) == [f"part{index}" for index in range(8)]
    lopsided = [Entry("app", f"src/pkg/part{index}/f.py", 100) for index in range(8)]
    lopsided += [Entry("app", f"extra{index}/f.py", 1) for index in range(8)]
    assert set(directory_groups(lopsided)) > {f"src/pkg/part{index}" for index in range(8)}


def test_two_directories_are_enough_and_one_is_not() -> None:
    result = split([Entry("app", "src/a.py", 90), Entry("app", "tests/b.py", 10)], SplitConfig(), 0)
    assert (result.split_by, result.groups) == ("directory", {"train": ["src"], "validation": ["tests"]})
    for paths in (("a.py", "b.py"), ("src/a.py", "src/b.py")):
        with pytest.raises(BadInput, match="corpus too small to split: 2 documents in one directory"):
            split([Entry("app", path, 10) for path in paths], SplitConfig(), 0)


def packages(count: int) -> list[Entry]:
    """Packages of different sizes with ten folders each."""
    return [
        Entry(f"pack{number}", f"pack{number}/part{part}/{file}.py", 100 * (number + 1))
        for number in range(count)
        for part in range(10)
        for file in range(3)
    ]


@given(st.integers(2, 7), st.integers(0, 5), st.randoms(use_true_random=False))
def test_each_of_a_few_repositories_gives_some_of_its_folders(count: int, seed: int, shuffler: random.Random) -> None:
    """None is held out whole, so that validation is text of the same sort as training."""
    entries = packages(count)
    result = split(entries, SplitConfig(), seed)
    assert result.split_by == "directory"
    for name in {entry.repo for entry in entries}:
        held = [held for entry, held in zip(entries, result.validation, strict=True) if entry.repo == name]
        assert 0.05 <= sum(held) / len(held) <= 0.3
    folders = {
        side: {
            entry.path.rsplit("/", 1)[0] for entry, held in zip(entries, result.validation, strict=True) if held == side
        }
        for side in (True, False)
    }
    assert not folders[True] & folders[False], "no folder is parted"
    assert result.groups["validation"] == sorted(folders[True])
    shuffled = shuffler.sample(entries, len(entries))
    assert split(shuffled, SplitConfig(), seed).groups == result.groups


def test_many_repositories_and_ones_without_folders_are_held_out_whole() -> None:
    assert split(packages(8), SplitConfig(), 0).split_by == "repo"
    flat = [Entry(f"pack{number}", f"pack{number}/{file}.py", 100) for number in range(4) for file in range(5)]
    assert split(flat, SplitConfig(), 0).split_by == "repo"
    mixed = split([*packages(1), *flat[5:]], SplitConfig(), 0)
    assert mixed.split_by == "directory", "what has folders stands for all"
    assert all(group.startswith("pack0/") for group in mixed.groups["validation"])
    # A package of two halves would lose half of its text.
    halves = [Entry("pack0", f"pack0/{part}/a.py", 100) for part in ("one", "two")]
    assert all(
        "pack1/" in group for group in split([*halves, *packages(2)[30:]], SplitConfig(), 0).groups["validation"]
    )


def test_a_limit_is_shared_by_a_few_repositories() -> None:
    held = split(packages(4), SplitConfig(validation_max_bytes=600), 0)
    sizes = sum(entry.bytes for entry, held in zip(packages(4), held.validation, strict=True) if held)
    assert sizes <= sum(300 * (number + 1) for number in range(4)), "one folder of each is the least"
