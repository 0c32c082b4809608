"""Rows: what the model reads and predicts in each slot, and that nothing crosses a document."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.stores import LENGTH, rows_of, write_store

from inlay.data.loader import LoaderState, Rows, stack
from inlay.data.rows import Placed, Row, assemble, relative_horizon
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import LossWeights
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer

WEIGHTS = {"text": 1.0, "prefix": 0.25, "suffix": 0.5, "middle": 2.0, "sentinel": 0.0, "terminator": 5.0}


@pytest.fixture(scope="module")
def rows(store: TokenStore) -> Rows:
    return rows_of(store, loss=LossWeights(**WEIGHTS))


@pytest.fixture(scope="module")
def made(rows: Rows) -> list[tuple[list[Placed], Row]]:
    plan = rows.plan(0)
    return [(rows.maker.examples(plan, 0, row), rows.row(0, row)) for row in range(plan.row_count)]


def test_shapes_and_types(made: list[tuple[list[Placed], Row]]) -> None:
    types = {
        "tokens": "i4",
        "targets": "i4",
        "positions": "i4",
        "weights": "f4",
        "kinds": "u1",
        "regions": "u1",
        "remaining": "i4",
    }
    for _, row in made:
        for name, kind in types.items():
            array = getattr(row, name)
            assert array.shape == (LENGTH,)
            assert array.dtype == np.dtype(kind), name


def test_every_example_is_in_its_slots_and_no_slot_looks_beyond(
    rows: Rows, made: list[tuple[list[Placed], Row]]
) -> None:
    form = rows.maker.transform.format
    for examples, row in made:
        slot = 0
        for placed in examples:
            part = placed.example.row
            size = len(part.tokens) - 1
            assert placed.slot == slot
            slots = slice(slot, slot + size)
            assert row.tokens[slots].tolist() == part.tokens[:-1].tolist()
            assert row.targets[slots].tolist() == part.tokens[1:].tolist()
            assert row.positions[slots].tolist() == list(range(size))
            assert row.regions[slots].tolist() == part.regions[1:].tolist()
            assert set(row.kinds[slots].tolist()) == {part.kind}
            assert row.targets[slot + size - 1] == form.eot
            assert form.eot not in row.tokens[slots]
            slot += size
        tail = slice(slot, LENGTH)
        assert (row.tokens[tail] == form.pad).all()
        assert (row.targets[tail] == form.pad).all()
        assert (row.regions[tail] == Region.PADDING).all()
        assert (row.kinds[tail] == Kind.PADDING).all()
        assert (row.weights[tail] == 0.0).all()
        assert row.positions[tail].tolist() == list(range(LENGTH - slot))


def test_documents_are_found_again_from_positions_alone(
    store: TokenStore, rows: Rows, made: list[tuple[list[Placed], Row]]
) -> None:
    # The witness knows tokens, targets and positions, as a model does, and reads the texts of the store back.
    form, split = rows.maker.transform.format, store.split("train")
    found: list[bytes] = []
    for _, row in made:
        borders = [*np.flatnonzero(row.positions == 0).tolist(), LENGTH]
        for begin, end in pairwise(borders):
            if row.tokens[begin] == form.pad:
                assert begin == borders[-2]
                continue
            found.append(form.restore([*row.tokens[begin:end], row.targets[end - 1]]))
    plan = rows.plan(0)
    pieces = zip(plan.document.tolist(), plan.start.tolist(), plan.stop.tolist(), strict=True)
    texts = [store.tokenizer.decode_bytes(split.tokens(*piece).tolist()) for piece in pieces]
    trimmed = sum(placed.example.trimmed > 0 for examples, _ in made for placed in examples)
    same = sum(one == two for one, two in zip(found, texts, strict=True))
    assert same == len(texts) - trimmed
    assert trimmed < 0.05 * len(texts)


def test_weights_are_those_of_the_region(made: list[tuple[list[Placed], Row]]) -> None:
    seen = set()
    for _, row in made:
        for region, weight in zip(row.regions.tolist(), row.weights.tolist(), strict=True):
            expected = WEIGHTS.get(Region(region).name.lower(), 0.0)
            assert weight == expected
            seen.add(Region(region))
    assert seen == set(Region) - {Region.HINT, Region.HEADER}


def test_a_row_does_not_depend_on_what_was_made_before(store: TokenStore, rows: Rows) -> None:
    last = rows.plan(2).row_count - 1
    order = [(2, last), (0, 5), (1, 0), (0, 5), (2, last)]
    fresh = rows_of(store, loss=LossWeights(**WEIGHTS))
    for epoch, number in order:
        one, two = fresh.row(epoch, number), rows.row(epoch, number)
        assert one.tokens.tolist() == two.tokens.tolist()
        assert one.targets.tolist() == two.targets.tolist()
    assert rows.row(0, 0).tokens.tolist() != rows.row(1, 0).tokens.tolist()
    assert rows_of(store, seed=1).row(0, 0).tokens.tolist() != rows.row(0, 0).tokens.tolist()


def test_the_same_piece_is_cut_anew_in_another_epoch(code_store: TokenStore) -> None:
    # Rows as long as the longest document: every piece is a whole document, in every epoch.
    length = int(code_store.split("train").lengths.max()) + 100
    rows = rows_of(code_store, length=length, rate=1.0)

    def spans(epoch: int) -> dict[int, Any]:
        plan = rows.plan(epoch)
        return {
            placed.document: placed.example.span
            for row in range(plan.row_count)
            for placed in rows.maker.examples(plan, epoch, row)
        }

    one, two = spans(0), spans(1)
    assert set(one) == set(two) == set(range(len(code_store.split("train"))))
    assert all(one[document] != two[document] for document in one)


def test_cuts_that_make_text_longer_trim_the_outer_context_and_never_the_row(tmp_path: Path) -> None:
    # One token for a long word, many for its parts: a cut inside adds more than the plan keeps for it.
    word = "qwertyuiopasdfghjklzxcvbnmpoiuytrewq"
    tokenizer = Tokenizer.train([f"{word} {word}\n" * 50], 400)
    assert len(tokenizer.encode(word)) == 1
    store = write_store(tmp_path / "store", tokenizer, [f"{word} " * 600])
    rows = rows_of(store, length=64, rate=1.0)
    trimmed = 0
    for epoch in range(4):
        plan = rows.plan(epoch)
        for number in range(plan.row_count):
            examples = rows.maker.examples(plan, epoch, number)
            row = rows.row(epoch, number)
            assert row.tokens.shape == (64,)
            for placed in examples:
                part = placed.example.row
                assert part.tokens[-1] == rows.maker.transform.format.eot
                assert (part.regions == Region.MIDDLE).any() or placed.example.span is None
            if len(examples) == 1 and examples[0].example.trimmed:
                trimmed += 1
                # All characters are of one byte: what is trimmed makes room to the last slot.
                assert (row.regions != Region.PADDING).all()
    assert trimmed > 3


def test_assemble_refuses_what_does_not_fit(form: FimFormat, rows: Rows) -> None:
    examples = [placed.example for placed in rows.maker.examples(rows.plan(0), 0, 0)]
    slots = sum(len(example.row.tokens) - 1 for example in examples)
    table = LossWeights().table()
    exact = assemble(examples, slots, form, table)
    assert (exact.regions != Region.PADDING).all()
    with pytest.raises(ValueError, match=f"{slots} slots, the row has {slots - 1}"):
        assemble(examples, slots - 1, form, table)


def test_a_row_of_nothing_is_padding(form: FimFormat) -> None:
    row = assemble([], 7, form, LossWeights().table())
    assert row.tokens.tolist() == [form.pad] * 7
    assert row.weights.tolist() == [0.0] * 7
    assert row.positions.tolist() == list(range(7))


def test_stack(rows: Rows) -> None:
    made = [rows.row(0, number) for number in range(3)]
    after = LoaderState(epoch=0, row=3, store="x")
    batch = stack(made, after)
    for name in ("tokens", "targets", "positions", "weights", "kinds", "regions", "remaining"):
        stacked = getattr(batch, name)
        assert stacked.shape == (3, LENGTH)
        assert stacked.dtype == getattr(made[0], name).dtype
        for number, row in enumerate(made):
            assert np.array_equal(stacked[number], getattr(row, name))
    assert batch.after == after


def test_what_remains_of_a_middle(made: list[tuple[list[Placed], Row]]) -> None:
    # Witness: count, slot by slot, from the example's own regions.
    seen = set()
    for examples, row in made:
        expected = [-1] * LENGTH
        for placed in examples:
            part = placed.example.row
            regions = part.regions.tolist()
            middle = [index for index, region in enumerate(regions) if region == Region.MIDDLE]
            if part.kind == Kind.L2R:
                continue
            for place, index in enumerate(middle):
                expected[placed.slot + index - 1] = len(middle) - place
            expected[placed.slot + len(regions) - 2] = 0
            seen.add(len(middle))
        assert row.remaining.tolist() == expected
    assert len(seen) > 8


def naive_horizon(remaining: list[int]) -> list[float | None]:
    horizon: list[float | None] = []
    total = None
    for place, left in enumerate(remaining):
        if left < 0:
            total = None
        elif total is None or left != remaining[place - 1] - 1:
            total = left
        horizon.append(left / total if total else None)
    return horizon


def test_relative_horizon(made: list[tuple[list[Placed], Row]]) -> None:
    cases = [row.remaining.tolist() for _, row in made]
    cases += [
        [3, 2, 1, 0, 2, 1, 0, 0, 0, 1, 0, -1],  # examples side by side, empty middles between them
        [-1, -1, 0, -1],
        [0, 1, 0],
        [-1, 1],
        [],
    ]
    for case in cases:
        remaining = np.array(case, dtype=np.int32)
        found = relative_horizon(remaining)
        assert found.dtype == np.float32
        expected = naive_horizon(case)
        assert np.isnan(found).tolist() == [value is None for value in expected]
        assert found[~np.isnan(found)].tolist() == pytest.approx([value for value in expected if value is not None])
    stacked = relative_horizon(np.stack([np.array(case, dtype=np.int32) for case in cases[:5]]))
    alone = np.stack([relative_horizon(np.array(case, dtype=np.int32)) for case in cases[:5]])
    np.testing.assert_array_equal(stacked, alone)


def test_an_empty_middle_has_no_horizon(store: TokenStore) -> None:
    rows = rows_of(store, rate=1.0, spans={"empty": {"kind": "empty"}})
    row = rows.row(0, 0)
    assert set(row.remaining.tolist()) <= {-1, 0}
    assert (row.remaining == 0).any()
    assert np.isnan(relative_horizon(row.remaining)).all()
