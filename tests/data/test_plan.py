"""The plan: every token once an epoch, no row too full, rows well filled, cuts between characters."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.stores import LENGTH, MemorySplit, rows_of

from inlay.data.plan import Plan, best_fit, plan_epoch
from inlay.fim.format import FimFormat
from inlay.fim.transform import Transform
from inlay.text.store import StoreSplit, TokenStore
from inlay.text.tokenizer import Tokenizer


def check(plan: Plan, split: StoreSplit, length: int) -> None:
    """What every plan promises: documents tiled by their pieces, rows never over their slots."""
    pieces: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for document, start, stop in zip(plan.document.tolist(), plan.start.tolist(), plan.stop.tolist(), strict=True):
        assert stop > start
        pieces[document].append((start, stop))
    lengths = split.lengths.tolist()
    assert sorted(pieces) == [index for index, size in enumerate(lengths) if size]
    for document, found in pieces.items():
        borders = [0, *(stop for _, stop in sorted(found))]
        assert sorted(found) == list(pairwise(borders))
        assert borders[-1] == lengths[document]
    assert plan.token_count == sum(lengths)
    cost = plan.stop - plan.start + Transform.RESERVE
    assert plan.rows[0] == 0
    assert plan.rows[-1] == len(cost)
    assert len(plan.rows) == plan.row_count + 1
    for first, last in pairwise(plan.rows.tolist()):
        assert 0 < cost[first:last].sum() <= length


def is_text(tokenizer: Tokenizer, split: StoreSplit, plan: Plan) -> bool:
    for document, start, stop in zip(plan.document.tolist(), plan.start.tolist(), plan.stop.tolist(), strict=True):
        try:
            tokenizer.decode_bytes(split.tokens(document, start, stop).tolist()).decode()
        except UnicodeDecodeError:
            return False
    return True


@pytest.mark.parametrize("piece", [None, 8, 40])
@pytest.mark.parametrize("length", [32, LENGTH, 4096])
def test_every_token_once(store: TokenStore, form: FimFormat, length: int, piece: int | None) -> None:
    split = store.split("train")
    shortest = None if piece is None else min(piece, length - Transform.RESERVE)
    for seed in range(3):
        plan = plan_epoch(split, form, length, seed, 0, shortest)
        check(plan, split, length)
        assert is_text(store.tokenizer, split, plan)


TEXTS = st.lists(
    st.one_of(
        st.builds(
            lambda unit, count: unit * count,
            st.sampled_from(["🙂", "é", "日", " ", "-", "ab ", "5", "\r\n"]),
            st.integers(0, 90),
        ),
        st.text(max_size=40),
    ),
    min_size=1,
    max_size=6,
).filter(any)


@settings(max_examples=60)
@given(texts=TEXTS, length=st.integers(32, 80), seed=st.integers(0, 10**6), shortest=st.none() | st.integers(1, 24))
def test_any_texts(
    tokenizer: Tokenizer, form: FimFormat, texts: list[str], length: int, seed: int, shortest: int | None
) -> None:
    split = MemorySplit(tokenizer.encode_with_starts(texts), tokenizer.token_lengths)
    plan = plan_epoch(split, form, length, seed, 1, shortest)
    check(plan, split, length)
    assert is_text(tokenizer, split, plan)


@pytest.mark.parametrize("unit", ["🙂", "日", "é", " ", "a"])
def test_a_pretoken_longer_than_a_row_is_cut_between_characters(
    tokenizer: Tokenizer, form: FimFormat, unit: str
) -> None:
    split = MemorySplit(tokenizer.encode_with_starts([unit * 2_000]), tokenizer.token_lengths)
    # Every phase: the first border may be wanted inside the first character.
    for seed in range(150):
        plan = plan_epoch(split, form, 40, seed, 0)
        check(plan, split, 40)
        assert is_text(tokenizer, split, plan)


def test_cuts_are_at_pretokens_where_they_can_be(code_store: TokenStore, form: FimFormat) -> None:
    split = code_store.split("train")
    plan = plan_epoch(split, form, 512, 0, 0)
    starts = [split.pretoken_starts(index) for index in range(len(split))]
    assert all(starts[document][start] for document, start in zip(plan.document, plan.start, strict=True))
    assert len(plan.document) > 2 * len(split)


def test_epochs_and_seeds_cut_and_order_anew(code_store: TokenStore, form: FimFormat) -> None:
    split = code_store.split("train")

    def made(seed: int, epoch: int) -> Plan:
        return plan_epoch(split, form, 512, seed, epoch)

    def pieces(plan: Plan) -> set[tuple[int, int, int]]:
        return set(zip(plan.document.tolist(), plan.start.tolist(), plan.stop.tolist(), strict=True))

    one, again, later, other = made(0, 0), made(0, 0), made(0, 1), made(1, 0)
    for name in ("document", "start", "stop", "rows"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    for different in (later, other):
        assert len(pieces(one) & pieces(different)) < len(pieces(one)) / 4
    # Where a long document is first cut is spread over a whole row.
    phases = [min(stop for document, _, stop in pieces(made(0, epoch)) if document == 0) for epoch in range(40)]
    assert len(set(phases)) > 20
    assert max(phases) - min(phases) > 300


def test_rows_are_shuffled(store: TokenStore, form: FimFormat) -> None:
    plan = plan_epoch(store.split("train"), form, LENGTH, 0, 0)
    # Best fit makes full rows first; in a shuffled order the emptier half is not all at the end.
    cost = plan.stop - plan.start + Transform.RESERVE
    fill = np.add.reduceat(cost, plan.rows[:-1])
    half = plan.row_count // 2
    assert abs(fill[:half].mean() - fill[half:].mean()) < 0.1 * LENGTH
    # Pieces of one document do not stand side by side more than chance has it.
    alike = sum(one == two for one, two in pairwise(plan.document.tolist()))
    shares = np.array(list(Counter(plan.document.tolist()).values())) / len(plan.document)
    assert alike < 2 * (shares**2).sum() * len(plan.document) + 10


def test_documents_of_one_row_come_from_everywhere(form: FimFormat) -> None:
    # All alike in size, so that best fit itself would put neighbours together, and more than one window of them.
    plain = int(np.flatnonzero(form.starts_character)[40])
    split = MemorySplit([(np.full(20, plain, np.uint16), np.ones(20, bool))] * 12_000, form.tokenizer.token_lengths)
    plan = plan_epoch(split, form, 140, 0, 0)
    spread = [np.ptp(plan.document[first:last]) for first, last in pairwise(plan.rows.tolist()) if last - first == 5]
    assert len(spread) >= plan.row_count - 2
    # Five numbers drawn from 0 to n are spread over 4/6 of it on average; neighbours would be spread over nothing.
    assert 0.63 < np.mean(spread) / 12_000 < 0.70


def test_a_realistic_store_fills_its_rows(code_store: TokenStore) -> None:
    rows = rows_of(code_store, length=512)
    plan = rows.plan(0)
    used = [
        sum(len(placed.example.row.tokens) - 1 for placed in rows.maker.examples(plan, 0, row))
        for row in range(plan.row_count)
    ]
    assert sum(used) / (512 * plan.row_count) > 0.93
    trimmed = [placed.example.trimmed for row in range(plan.row_count) for placed in rows.maker.examples(plan, 0, row)]
    assert sum(trimmed) < 0.001 * plan.token_count


def test_a_realistic_length_distribution_fills_rows(form: FimFormat) -> None:
    # Source files are close to log-normal in length; the median of the reference corpus is some 800 tokens.
    sizes = np.random.default_rng(0).lognormal(np.log(800), 1.2, 3_000).astype(int) + 1
    plain = int(np.flatnonzero(form.starts_character)[40])
    split = MemorySplit(
        [(np.full(size, plain, np.uint16), np.ones(size, bool)) for size in sizes.tolist()],
        form.tokenizer.token_lengths,
    )
    for length in (512, 2_048):
        plan = plan_epoch(split, form, length, 0, 0)
        assert plan.token_count / (plan.row_count * length) > 0.93
        cost = plan.stop - plan.start + Transform.RESERVE
        assert cost.sum() / (plan.row_count * length) > 0.97


def naive_best_fit(cost: list[int], capacity: int) -> list[int]:
    """Free slots of each row, found by looking at all of them for each piece."""
    free: list[int] = []
    for need in sorted(cost, reverse=True):
        fitting = [row for row, left in enumerate(free) if left >= need]
        if not fitting:
            free.append(capacity)
            fitting = [len(free) - 1]
        free[min(fitting, key=lambda row: free[row])] -= need
    return free


@given(data=st.data(), capacity=st.integers(1, 200))
def test_best_fit_against_a_naive_one(data: st.DataObject, capacity: int) -> None:
    cost = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    row_of, count = best_fit(np.array(cost, dtype=np.int64), capacity)
    assert len(row_of) == len(cost)
    assert set(row_of.tolist()) == set(range(count))
    left = [
        capacity - sum(need for need, row in zip(cost, row_of, strict=True) if row == number) for number in range(count)
    ]
    assert min(left, default=0) >= 0
    # Rows that are equally full may be chosen differently; how full rows become may not.
    assert sorted(left) == sorted(naive_best_fit(cost, capacity))


def test_best_fit_refuses_a_piece_above_a_row() -> None:
    with pytest.raises(ValueError, match="11 slots"):
        best_fit(np.array([3, 11]), 10)


@pytest.mark.parametrize("shortest", [0, 25])
def test_shortest_piece_out_of_range(store: TokenStore, form: FimFormat, shortest: int) -> None:
    with pytest.raises(ValueError, match="shortest"):
        plan_epoch(store.split("train"), form, 32, 0, 0, shortest)


def test_shortest_piece_makes_log_uniform_pieces(code_store: TokenStore, form: FimFormat) -> None:
    split = code_store.split("train")
    plan = plan_epoch(split, form, 512, 0, 0, 16)
    check(plan, split, 512)
    sizes = plan.stop - plan.start
    # A pre-token start is at most a few tokens before the drawn border.
    middle = np.median(sizes)
    assert 60 < middle < 120, middle  # the geometric mean of 16 and 504 is 90
    assert sizes.max() <= 512 - Transform.RESERVE


@pytest.mark.parametrize("level", ["context", "document", "repository"])
@pytest.mark.parametrize("length", [64, 300])
def test_bytes_and_borders_of_pieces(store: TokenStore, level: str, length: int) -> None:
    rows, split = rows_of(store, length=length, piece=20, level=level), store.split("train")
    plan = rows.plan(1)
    cut_inside = 0
    for number in range(len(plan.document)):
        document, start, stop = int(plan.document[number]), int(plan.start[number]), int(plan.stop[number])
        text = split.text(document).encode()
        if level == "document":
            assert (plan.byte_start[number], plan.byte_stop[number]) == (0, len(text))
            assert plan.whole[number]
            continue
        piece = store.tokenizer.decode_bytes(split.tokens(document, start, stop).tolist())
        assert text[plan.byte_start[number] : plan.byte_stop[number]] == piece
        ends = (start, stop) if stop < split.lengths[document] else (start,)
        expected = all(split.pretoken_starts(document, end, end + 1)[0] for end in ends)
        assert plan.whole[number] == expected
        cut_inside += not expected
    assert (cut_inside > 0) == (level != "document")


@pytest.mark.parametrize("level", ["context", "document", "repository"])
def test_the_transform_is_given_the_syntax_of_its_piece(
    store: TokenStore, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = store.split("train")

    def nodes(_: StoreSplit, document: int) -> np.ndarray:
        """A node for each line of a document that has some; the others were not parsed."""
        text, begin, found = split.text(document).encode(), 0, []
        for line in text.split(b"\n"):
            found.append((begin, begin + len(line), 0))
            begin += len(line) + 1
        return np.array(found if len(found) > 2 else [], dtype=np.int32).reshape(-1, 3)

    monkeypatch.setattr(StoreSplit, "spans", nodes)
    rows = rows_of(store, length=128, piece=40, level=level)
    real, seen = rows.maker.level.transform, []

    class Watched:
        config, format, needs_syntax = real.config, real.format, True

        def __call__(self, tokens: np.ndarray, *arguments: Any, **options: Any) -> Any:
            seen.append((store.tokenizer.decode_bytes(tokens.tolist()), options["syntax"]()))
            return real(tokens, *arguments, **{**options, "syntax": None})

    monkeypatch.setattr(rows.maker.level, "transform", Watched())
    for row in range(rows.plan(0).row_count):
        rows.maker.examples(rows.plan(0), 0, row)
    inside = 0
    for text, syntax in seen:
        if syntax is not None:
            lines = text.split(b"\n")
            found = [text[start:end] for start, end, _ in syntax.nodes.tolist()]
            assert all(line in lines for line in found)
            inside += len(found) >= 1
    assert inside > 20
    assert any(syntax is None for _, syntax in seen)


def test_syntax_is_read_only_where_a_cut_looks_at_it(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(split: StoreSplit, index: int) -> np.ndarray:
        raise AssertionError(f"the nodes of document {index} of {split} were read")

    monkeypatch.setattr(StoreSplit, "spans", refuse)
    characters = rows_of(store, length=128, piece=40, spans={"any": {"kind": "sized"}}, rate=1.0)
    plain = rows_of(store, length=128, piece=40, spans={"any": {"kind": "ast_node"}}, rate=0.0)
    for rows in (characters, plain):
        assert rows.maker.examples(rows.plan(0), 0, 0)
    looking = rows_of(store, length=128, piece=40, spans={"any": {"kind": "ast_node"}}, rate=1.0)
    with pytest.raises(AssertionError, match="were read"):
        looking.maker.examples(looking.plan(0), 0, 0)
