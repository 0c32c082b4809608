"""The loader: two counters are its whole state, and nothing but them decides what comes next."""

import json
import os
import pickle
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.stores import AWKWARD, rows_of, write_store

from inlay.config import BadInput, InlayError, validate
from inlay.data.loader import Batch, Loader, LoaderState, Rows
from inlay.data.rows import Row
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer

PER_BATCH = 4
BATCHES = 50
NAMES = ("tokens", "targets", "positions", "weights", "kinds", "regions", "remaining")


@pytest.fixture(scope="module")
def rows(store: TokenStore) -> Rows:
    return rows_of(store)


@pytest.fixture(scope="module")
def stream(store: TokenStore) -> list[tuple[int, int, Row]]:
    """The endless sequence of rows that every loader has to follow, made without one: epoch, row number, row."""
    source = rows_of(store)
    found = []
    for epoch in range(4):
        found += [(epoch, row, source.row(epoch, row)) for row in range(source.plan(epoch).row_count)]
    return found


def at(stream: list[tuple[int, int, Row]], state: LoaderState) -> int:
    return next(index for index, (epoch, row, _) in enumerate(stream) if (epoch, row) == (state.epoch, state.row))


def assert_follow(batches: list[Batch], stream: list[tuple[int, int, Row]], begin: int, count: int = BATCHES) -> None:
    """Whether `batches` are the rows of the stream from `begin` on, bit for bit, with the right state after each."""
    assert len(batches) == count
    for number, batch in enumerate(batches):
        first = begin + number * PER_BATCH
        for name in NAMES:
            expected = np.stack([getattr(row, name) for _, _, row in stream[first : first + PER_BATCH]])
            found = getattr(batch, name)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes(), (number, name)
        assert (batch.after.epoch, batch.after.row) == stream[first + PER_BATCH][:2]


def take(loader: Loader, count: int = BATCHES) -> list[Batch]:
    with loader:
        return list(islice(loader, count))


def saved(state: LoaderState) -> LoaderState:
    """A state as it comes back from a checkpoint."""
    return validate(LoaderState, json.loads(json.dumps(state.to_dict())))


def test_the_stream_is_long_enough_for_what_follows(stream: list[tuple[int, int, Row]]) -> None:
    first = sum(epoch == 0 for epoch, _, _ in stream)
    assert 2 * BATCHES < first < len(stream) - 2 * BATCHES * PER_BATCH
    assert first % PER_BATCH, "a batch should span a border"


def test_from_the_start(rows: Rows, stream: list[tuple[int, int, Row]]) -> None:
    batches = take(Loader(rows, PER_BATCH))
    assert_follow(batches, stream, 0)
    assert set(LoaderState.model_fields) == {"epoch", "row", "store", "length", "sources"}
    assert batches[0].after.store == rows.store_hash


def test_resumed_in_the_middle_of_an_epoch_twice(store: TokenStore, stream: list[tuple[int, int, Row]]) -> None:
    straight = take(Loader(rows_of(store), PER_BATCH), 10)
    once = take(Loader(rows_of(store), PER_BATCH, saved(straight[6].after)))
    assert_follow(once, stream, 7 * PER_BATCH)
    again = take(Loader(rows_of(store), PER_BATCH, saved(once[4].after)))
    assert_follow(again, stream, 12 * PER_BATCH)
    third = take(Loader(rows_of(store), PER_BATCH, saved(again[-1].after)), 3)
    assert_follow(third, stream, (12 + BATCHES) * PER_BATCH, 3)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_resumed_at_the_end_of_an_epoch(store: TokenStore, stream: list[tuple[int, int, Row]], before: int) -> None:
    border = sum(epoch == 0 for epoch, _, _ in stream)
    epoch, row, _ = stream[border - before]
    state = LoaderState(epoch=epoch, row=row, store=store.hash)
    assert_follow(take(Loader(rows_of(store), PER_BATCH, saved(state))), stream, border - before)


def test_a_state_behind_the_last_row_is_the_next_epoch(rows: Rows, stream: list[tuple[int, int, Row]]) -> None:
    border = sum(epoch == 0 for epoch, _, _ in stream)
    batches = take(Loader(rows, PER_BATCH, LoaderState(epoch=0, row=border)), 2)
    assert_follow(batches, stream, border, 2)


def test_worker_counts_change_nothing(store: TokenStore, stream: list[tuple[int, int, Row]]) -> None:
    # Resumed each time with another number, over the border of an epoch.
    begin = sum(epoch == 0 for epoch, _, _ in stream) - 2 * BATCHES
    epoch, row, _ = stream[begin]
    state = LoaderState(epoch=epoch, row=row, store=store.hash)
    for workers in (1, 2, 0):
        batches = take(Loader(rows_of(store), PER_BATCH, saved(state), workers=workers))
        assert_follow(batches, stream, begin)
        # What workers made ahead of time and nobody took is not skipped.
        state = batches[-1].after
        begin += BATCHES * PER_BATCH


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_one_stream(store: TokenStore, stream: list[tuple[int, int, Row]], world: int) -> None:
    begin = 3 * PER_BATCH
    state = LoaderState(epoch=0, row=begin, store=store.hash)
    ranks = [take(Loader(rows_of(store), PER_BATCH, state, rank, world)) for rank in range(world)]
    joined = []
    for parts in zip(*ranks, strict=True):
        # Row i of the global batch is row i // world of rank i % world.
        assert len({(part.after.epoch, part.after.row) for part in parts}) == 1
        arrays = {
            name: np.stack([getattr(parts[row % world], name)[row // world] for row in range(PER_BATCH)])
            for name in NAMES
        }
        assert all(len(part.tokens) == PER_BATCH // world for part in parts)
        joined.append(Batch(**arrays, after=parts[0].after, sources=np.zeros(PER_BATCH, np.uint8)))
    assert_follow(joined, stream, begin)


def test_ranks_and_workers_change_on_resume(store: TokenStore, stream: list[tuple[int, int, Row]]) -> None:
    first = take(Loader(rows_of(store), PER_BATCH, None, 1, 2), 5)
    second = take(Loader(rows_of(store), PER_BATCH, saved(first[-1].after), workers=1), 5)
    assert_follow(second, stream, 5 * PER_BATCH, 5)


@given(epoch=st.integers(0, 2), row=st.integers(0, 30), count=st.integers(1, 600))
def test_advance_adds_up(rows: Rows, epoch: int, row: int, count: int) -> None:
    start = LoaderState(epoch=epoch, row=row)
    pairs, after = rows.advance(start, count)
    assert len(pairs) == count
    half, middle = rows.advance(start, count // 2 or 1)
    rest, end = rows.advance(middle, count - len(half)) if count > len(half) else ([], middle)
    assert half + rest == pairs
    assert end == after
    assert pairs[0] == (epoch, row)
    assert all(number < rows.plan(at_epoch).row_count for at_epoch, number in pairs)


def test_rows_travel_to_another_process(rows: Rows) -> None:
    copy = pickle.loads(pickle.dumps(rows))
    assert copy.row(1, 2).tokens.tolist() == rows.row(1, 2).tokens.tolist()
    assert copy.store_hash == rows.store_hash


def test_shortest_piece_reaches_the_plan_and_the_workers(store: TokenStore, rows: Rows) -> None:
    short = rows_of(store, piece=8)
    assert len(short.plan(0).document) > 1.5 * len(rows.plan(0).document)
    assert np.array_equal(pickle.loads(pickle.dumps(short)).plan(0).stop, short.plan(0).stop)


def test_another_store_is_refused(tokenizer: Tokenizer, rows: Rows, tmp_path: Path) -> None:
    other = rows_of(write_store(tmp_path / "other", tokenizer, ["x = 1\n"]))
    state = take(Loader(rows, PER_BATCH), 1)[0].after
    with pytest.raises(BadInput, match=r"data\.path") as caught:
        Loader(other, PER_BATCH, state)
    assert "\n" not in str(caught.value)


def test_the_same_store_made_again_elsewhere_is_taken(tokenizer: Tokenizer, tmp_path: Path) -> None:
    one, two = (rows_of(write_store(tmp_path / name, tokenizer, ["x = 1\n", *AWKWARD])) for name in ("one", "two"))
    state = take(Loader(one, 2), 3)[-1].after
    found, expected = (take(Loader(rows, 2, state), 3)[-1] for rows in (two, one))
    assert found.tokens.tolist() == expected.tokens.tolist()


@pytest.mark.parametrize(("per_batch", "world"), [(4, 3), (1, 2), (0, 1)])
def test_rows_that_ranks_cannot_share(rows: Rows, per_batch: int, world: int) -> None:
    with pytest.raises(BadInput, match=f"{per_batch} rows a batch cannot be shared by {world} ranks"):
        Loader(rows, per_batch, world=world)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_outside_the_world(rows: Rows, rank: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        Loader(rows, PER_BATCH, rank=rank, world=2)


@pytest.mark.parametrize("text", ["x", "🙂", "x = 1\n"])
def test_a_store_of_less_than_one_row_repeats_it(tokenizer: Tokenizer, tmp_path: Path, text: str) -> None:
    rows = rows_of(write_store(tmp_path / "store", tokenizer, [text, ""]))
    assert rows.plan(0).row_count == 1
    batches = take(Loader(rows, PER_BATCH), 3)
    assert [batch.after.epoch for batch in batches] == [4, 8, 12]
    assert all((batch.weights.sum(axis=1) > 0).all() for batch in batches)


def test_an_empty_split_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", tokenizer, ["", ""])
    with pytest.raises(BadInput, match=r"train split of .* is empty") as caught:
        rows_of(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"length": 31}, "at least 32"),
        ({"length": 5, "piece": 8}, "at least 32"),
        ({"piece": 89}, "'data.shortest_piece' = 89: rows of 96 tokens take pieces of 1 to 88"),
        ({"piece": 0}, "'data.shortest_piece' = 0"),
    ],
)
def test_lengths_that_make_no_rows(store: TokenStore, options: dict[str, int], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        rows_of(store, **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_split_and_family(store: TokenStore) -> None:
    with pytest.raises(BadInput, match="it has train, validation"):
        Rows(str(store.path), "test", rows_of(store).maker.transform.config, 96, 0)
    with pytest.raises(BadInput, match="unknown format family"):
        rows_of(store, family="qwern")


@pytest.fixture
def working(rows: Rows) -> Iterator[Loader]:
    with Loader(rows, PER_BATCH, workers=1) as loader:
        next(loader)
        yield loader


def test_a_killed_worker_is_one_line(working: Loader) -> None:
    assert working._pool is not None
    for process in list(working._pool._processes.values()):
        os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises(InlayError, match=r"data worker process died") as caught:
        take(working)
    assert "\n" not in str(caught.value)
