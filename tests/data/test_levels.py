"""Every level: the middle and its terminator whole in one window, every document shown, the same rows each time."""

import json
from collections import defaultdict
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.stores import AWKWARD, MemorySplit, rows_of, write_files
from tests.fim.witness import assert_share

from inlay.config import BadInput, validate
from inlay.data.inspect import describe, parts_of
from inlay.data.level import Placed
from inlay.data.levels.document import SLACK, DocumentLevel
from inlay.data.levels.repository import SERVED_NAMES
from inlay.data.loader import Batch, Loader, LoaderState, Rows
from inlay.data.rows import RowMaker
from inlay.data.stats import is_effective
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import FimConfig, Transform
from inlay.text.store import StoreSplit, TokenStore
from inlay.text.tokenizer import Tokenizer

LEVELS = ("context", "document", "repository")
SPANS: dict[str, Any] = {"sized": {"kind": "sized"}, "random": {"kind": "random"}, "empty": {"kind": "empty"}}


def options(level: str, rate: float = 0.8, **more: Any) -> FimConfig:
    # Spans of every length: some middles are longer than a row.
    return validate(
        FimConfig,
        {"level": level, "rate": rate, "orders": {"psm": 1, "spm": 1, "spm_v2": 1}, "spans": SPANS, **more},
    )


def made(maker: RowMaker, epoch: int = 0) -> list[list[Placed]]:
    plan = maker.plan(epoch)
    return [maker.examples(plan, epoch, row) for row in range(plan.row_count)]


def check(maker: RowMaker, split: StoreSplit, tokenizer: Tokenizer, epoch: int) -> None:
    """What all levels promise of an epoch, read from the examples themselves."""
    form, plan = maker.transform.format, maker.plan(epoch)
    windows: dict[int, list[Placed]] = defaultdict(list)
    for number in range(plan.row_count):
        examples = maker.examples(plan, epoch, number)
        assert sum(len(placed.example.row.tokens) - 1 for placed in examples) <= maker.length
        row = maker.row(plan, epoch, number)
        assert row.tokens.shape == (maker.length,)
        for placed in examples:
            part = placed.example.row
            assert placed.slot + len(part.tokens) - 1 <= maker.length
            assert part.kind == Kind.L2R or placed.example.span is not None
            # A window's targets are whole characters; the first token of all is nobody's target.
            tokenizer.decode_bytes(part.tokens[placed.part > 0 :].tolist()).decode()
            if placed.parts > 1:
                windows[placed.document].append(placed)
                continue
            text = tokenizer.decode_bytes(split.tokens(placed.document).tolist())
            restored = form.restore(part)
            assert restored in text
            assert len(restored) == placed.size or placed.example.trimmed
            assert part.tokens[-1] == form.eot
            whole_middle(placed, form, split, 0 if maker.transform.config.level == "document" else placed.start)
    for document, found in windows.items():
        found.sort(key=lambda placed: placed.part)
        # The first window may have come out empty; the others are all there.
        assert [placed.part for placed in found] == list(range(found[0].part, found[0].parts))
        assert found[0].part <= 1
        stream = np.concatenate([found[0].example.row.tokens, *(placed.example.row.tokens[1:] for placed in found[1:])])
        for one, two in pairwise(found):
            assert one.example.row.tokens[-1] == two.example.row.tokens[0]
        restored = form.restore(stream)
        text = tokenizer.decode_bytes(split.tokens(document).tolist())
        trimmed = sum(placed.example.trimmed for placed in found)
        assert restored == text or (trimmed and restored in text)
        assert trimmed <= Transform.RESERVE + 16
        last = found[-1].example.row
        assert len(last.tokens) - 1 >= maker.length - 2 * SLACK
        if last.kind != Kind.L2R:
            assert all(Region.MIDDLE not in placed.example.row.regions for placed in found[:-1])
            whole_middle(found[-1], form, split, 0)


def whole_middle(placed: Placed, form: FimFormat, split: StoreSplit, start: int) -> None:
    """The middle in the example is the one that was cut, and its terminator is behind it."""
    row, span = placed.example.row, placed.example.span
    if row.kind == Kind.L2R or span is None:
        return
    stop = (
        None if placed.parts > 1 or (start == 0 and placed.size == split.byte_lengths[placed.document]) else placed.stop
    )
    piece = form.tokenizer.decode_bytes(split.tokens(placed.document, start, stop).tolist())
    middle = row.tokens[row.regions == Region.MIDDLE].tolist()
    assert middle == form.tokenizer.encode(piece[span[0] : span[1]].decode())
    assert row.tokens[-1] == form.eot
    if middle:
        assert row.tokens[-1 - len(middle) : -1].tolist() == middle
    if row.kind != Kind.SPM_V2 and len(row.tokens) > len(middle) + 1:
        assert row.tokens[-2 - len(middle)] == form.middle


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(AWKWARD),
        st.builds(
            lambda unit, count: unit * count,
            st.sampled_from(["🙂", "é", "日本", " ", "word ", "x = [1]\n", "\r\n", "👩‍👩‍👧"]),
            st.integers(0, 400),
        ),
        st.text(max_size=60),
    ),
    min_size=1,
    max_size=9,
).filter(any)


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=25)
@given(
    texts=TEXTS,
    length=st.integers(6, 15).flatmap(lambda n: st.integers(2**n, min(2 ** (n + 1), 32_768))),
    data=st.data(),
)
def test_no_middle_is_ever_cut(
    tokenizer: Tokenizer, form: FimFormat, level: str, texts: list[str], length: int, data: st.DataObject
) -> None:
    split = MemorySplit(tokenizer.encode_with_starts(texts), tokenizer.token_lengths)
    shortest = data.draw(st.sampled_from([None, 8, 24]))
    maker = RowMaker(split, Transform(options(level), form), length, data.draw(st.integers(0, 99)), shortest)
    check(maker, split, tokenizer, data.draw(st.integers(0, 3)))


@pytest.mark.parametrize("length", [64, 65, 67, 96, 130])
@pytest.mark.parametrize("level", LEVELS)
def test_no_middle_is_ever_cut_in_real_code(
    tokenizer: Tokenizer, form: FimFormat, library: list[str], level: str, length: int
) -> None:
    texts = [*AWKWARD, *(text[:6_000] for text in library)]
    split = MemorySplit(tokenizer.encode_with_starts(texts), tokenizer.token_lengths)
    check(RowMaker(split, Transform(options(level), form), length, 3, 24), split, tokenizer, 1)


# ---- document level --------------------------------------------------------------------------------------------------


def document_maker(
    tokenizer: Tokenizer, form: FimFormat, texts: list[str], length: int, **fim: Any
) -> tuple[RowMaker, MemorySplit]:
    split = MemorySplit(tokenizer.encode_with_starts(texts), tokenizer.token_lengths)
    return RowMaker(split, Transform(options("document", **fim), form), length, 0), split


def test_a_document_of_one_window_is_what_the_context_level_makes(tokenizer: Tokenizer, form: FimFormat) -> None:
    texts = [f"value_{number} = {number}\n" * 6 for number in range(30)]
    split = MemorySplit(tokenizer.encode_with_starts(texts), tokenizer.token_lengths)
    one, two = (RowMaker(split, Transform(options(level), form), 2_048, 0) for level in ("context", "document"))
    found, expected = (
        [placed.example.row.tokens.tolist() for row in made(maker) for placed in row] for maker in (one, two)
    )
    assert found == expected


def test_the_parts_of_a_long_document_are_where_the_stream_has_them(
    tokenizer: Tokenizer, form: FimFormat, library: list[str]
) -> None:
    text = max(library, key=len)
    maker, split = document_maker(tokenizer, form, [text], 128, rate=1.0, spans={"sized": SPANS["sized"]})
    for epoch in range(6):
        found = sorted((placed for row in made(maker, epoch) for placed in row), key=lambda placed: placed.part)
        # Witness: the transform of the whole document, without windows.
        example = maker.level._cut(0, epoch, int(split.lengths[0]) + 100)  # type: ignore[attr-defined]
        joined = np.concatenate([placed.example.row.tokens[1:] for placed in found])
        assert joined.tolist() == example.row.tokens[1:].tolist()
        assert len(found) == found[0].parts > 20
        assert not any(is_effective(placed, form) for placed in found)
        assert (found[-1].example.row.regions == Region.MIDDLE).sum() == (example.row.regions == Region.MIDDLE).sum()


def test_a_middle_longer_than_a_window_leaves_plain_text(tokenizer: Tokenizer, form: FimFormat) -> None:
    texts = ["value = compute(value)\n" * 200] * 40
    maker, _ = document_maker(tokenizer, form, texts, 128, rate=1.0, spans={"random": SPANS["random"]})
    kinds: dict[int, set[int]] = defaultdict(set)
    for placed in (placed for row in made(maker) for placed in row):
        kinds[placed.document].add(int(placed.example.row.kind))
        assert (placed.example.span is None) == (placed.example.row.kind == Kind.L2R)
    assert all(len(found) == 1 for found in kinds.values())
    plain = sum(found == {Kind.L2R} for found in kinds.values())
    assert 30 <= plain < 40  # two random cuts in 2,000 tokens are rarely less than 128 apart


def test_a_long_document_is_cut_once_an_epoch(
    tokenizer: Tokenizer, form: FimFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    cut = DocumentLevel._cut

    def counted(level: DocumentLevel, document: int, epoch: int, capacity: int) -> Any:
        calls.append((epoch, document))
        return cut(level, document, epoch, capacity)

    monkeypatch.setattr(DocumentLevel, "_cut", counted)
    maker, _ = document_maker(tokenizer, form, ["x = 1; " * 30_000, "y\n" * 4_000], 64)
    assert sum(len(row) for row in made(maker)) > 500
    assert sorted(calls) == [(0, 0), (0, 1)]
    monkeypatch.setattr("inlay.data.levels.document.CACHED_TOKENS", 10)
    again, _ = document_maker(tokenizer, form, ["x = 1; " * 300, "y\n" * 400], 64)
    kept, _ = document_maker(tokenizer, form, ["x = 1; " * 300, "y\n" * 400], 64)
    monkeypatch.setattr("inlay.data.levels.document.CACHED_TOKENS", 10**6)
    one, two = ([p.example.row.tokens.tolist() for row in made(maker, 1) for p in row] for maker in (again, kept))
    assert one == two


# ---- repository level ------------------------------------------------------------------------------------------------

FILES = [
    *(
        ("acme/one", f"src/pkg/{name}.py", f"from lib.far import {name}\nimport os\n{name} = 1\n" * 3)
        for name in "abcde"
    ),
    *(("acme/one", f"lib/{name}.py", f"def {name}():\n    return 1\n" * 4) for name in ("far", "near", "big" * 9)),
    ("acme/one", "pkg/far/a.py", "A = 1\n" * 9),
    *(("acme/two", f"main{number}.py", f"print({number})\n" * 200) for number in range(6)),
    ("acme/alone", "only.py", "alone = True\n" * 5),
    ("acme/empty", "empty.py", ""),
    ("acme/" + "long" * 60, "x.py", "short names = too long\n"),
    ("acme/ends", "line\nend.py", "a path with a line end\n" * 3),
    ("acme/ends", "fine.py", "beside it\n" * 3),
]


@pytest.fixture(scope="module")
def files(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return write_files(tmp_path_factory.mktemp("repositories") / "store", tokenizer, FILES)


@pytest.fixture(scope="module", params=[None, 24])
def repository(files: TokenStore, request: pytest.FixtureRequest) -> Rows:
    return rows_of(files, length=512, piece=request.param, level="repository")


def test_every_document_is_shown_about_once(files: TokenStore, repository: Rows) -> None:
    split, plan = files.split("train"), repository.plan(0)
    targets: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for document, start, stop in zip(plan.document.tolist(), plan.start.tolist(), plan.stop.tolist(), strict=True):
        targets[document].append((start, stop))
    assert plan.context is not None
    context = list(zip(plan.context.document.tolist(), plan.context.stop.tolist(), strict=True))
    whole = [document for document, stop in context if stop == split.lengths[document]]
    cut = [document for document, stop in context if stop < split.lengths[document]]
    assert len({*whole, *cut}) == len(context), "a document is context once"
    assert not set(whole) & set(targets)
    assert set(cut) <= set(targets), "what is cut as context is a target as well"
    assert {*whole, *targets} == set(np.flatnonzero(split.lengths).tolist())
    for document, pieces in targets.items():
        borders = [0, *(stop for _, stop in sorted(pieces))]
        assert sorted(pieces) == list(pairwise(borders))
        assert borders[-1] == split.lengths[document]
    assert len(whole) > 3


def test_context_comes_in_the_stated_order(files: TokenStore, repository: Rows) -> None:
    split, seen = files.split("train"), set()
    for epoch in range(60):
        for row in made(repository.maker, epoch):
            for placed in row:
                target, others = split.document(placed.document), [split.document(other) for other in placed.context]
                assert all(other.repo == target.repo for other in others)
                folder = target.path.rpartition("/")[0]
                # Each file of src/pkg imports lib.far.
                imports = "src/pkg" in target.path
                ranks = [
                    0 if other.path.rpartition("/")[0] == folder else 1 if imports and other.path == "lib/far.py" else 2
                    for other in others
                ]
                assert ranks == sorted(ranks), (target.path, others)
                seen |= {rank for rank in ranks if imports}
    assert seen == {0, 1, 2}


def test_headers_say_whose_text_it_is(files: TokenStore, repository: Rows) -> None:
    split, form = files.split("train"), repository.maker.transform.format
    texts = {split.document(index).path: split.text(index) for index in range(len(split))}
    served = total = 0
    for epoch in range(10):
        for row in made(repository.maker, epoch):
            for placed in row:
                info, told = split.document(placed.document), form.restore_repository(placed.example.row)
                assert [path for path, _ in told.files] == [split.document(other).path for other in placed.context]
                assert all(texts[path].startswith(data.decode()) for path, data in told.files)
                assert told.data.decode() in texts[info.path]
                if "acme/long" in info.repo or "\n" in info.path:
                    assert (told.name, told.path) == SERVED_NAMES
                    continue
                assert (told.name, told.path) in ((info.repo, info.path), SERVED_NAMES)
                served += (told.name, told.path) == SERVED_NAMES
                total += 1
                assert not any("\n" in path for path, _ in told.files)
    assert_share(served, total, 0.1)


def test_context_gives_way_before_the_target(tmp_path: Path) -> None:
    # One token for a long word, many for its parts: a cut inside adds more than the plan keeps for it.
    word = "qwertyuiopasdfghjklzxcvbnmpoiuytrewq"
    tokenizer = Tokenizer.train([f"{word} {word}\n" * 50], 400)
    files = [("r", f"{number}.py", f"{word} " * 100) for number in range(40)]
    store = write_files(tmp_path / "store", tokenizer, files)
    # Rows without a slot to spare.
    length = int(rows_of(store, length=256, level="repository").plan(0).cost.max())
    rows = rows_of(store, length=length, rate=1.0, level="repository")
    fewer = 0
    for epoch, number in rows.advance(LoaderState(), 6 * rows.plan(0).row_count)[0]:
        plan = rows.plan(epoch)
        assert plan.context is not None
        (placed,) = rows.maker.examples(plan, epoch, number)
        first, last = plan.context.first[number : number + 2]
        planned = int(plan.context.stop[first:last].sum())
        assert placed.context_text <= planned
        if placed.context:
            assert placed.example.trimmed == 0
            assert len(rows.maker.transform.format.restore_repository(placed.example.row).data) == placed.size
        fewer += placed.context_text < planned
    assert fewer > 3


def test_a_family_without_a_repository_form_is_refused_when_rows_are_made(
    tokenizer: Tokenizer, form: FimFormat
) -> None:
    bare = FimFormat(form.family.model_copy(update={"repository": None}), tokenizer)
    split = MemorySplit(tokenizer.encode_with_starts(["x"]), tokenizer.token_lengths)
    with pytest.raises(BadInput, match="repository-level form") as caught:
        RowMaker(split, Transform(options("repository"), bare), 512, 0)
    assert "\n" not in str(caught.value)


def test_rows_too_short_for_names_are_refused(files: TokenStore) -> None:
    with pytest.raises(
        BadInput, match=r"fim\.level=repository: rows of 32 tokens are too short; use at least"
    ) as caught:
        rows_of(files, length=32, level="repository")
    assert "\n" not in str(caught.value)


# ---- the stream ------------------------------------------------------------------------------------------------------


def content(batch: Batch) -> bytes:
    return b"".join(getattr(batch, name).tobytes() for name in vars(batch) if name != "after")


@pytest.mark.parametrize("level", ["document", "repository"])
def test_resumed_shared_and_made_ahead_the_rows_are_the_same(store: TokenStore, level: str) -> None:
    def take(
        count: int, state: LoaderState | None = None, rank: int = 0, world: int = 1, workers: int = 0
    ) -> list[Batch]:
        with Loader(rows_of(store, level=level), 4, state, rank, world, workers) as loader:
            return list(islice(loader, count))

    # Past the end of the first epoch.
    count = rows_of(store, level=level).plan(0).row_count // 4 + 4
    straight = take(count)
    assert straight[-1].after.epoch == 1
    half = validate(LoaderState, json.loads(json.dumps(straight[count // 2].after.to_dict())))
    rest = take(count - count // 2 - 1, half, workers=2)
    assert [content(batch) for batch in rest] == [content(batch) for batch in straight[count // 2 + 1 :]]
    ranks = [take(count, rank=rank, world=2) for rank in range(2)]
    for whole, *parts in zip(straight, *ranks, strict=True):
        for name in ("tokens", "targets", "positions", "weights", "kinds", "regions", "remaining"):
            joined = np.stack([getattr(parts[row % 2], name)[row // 2] for row in range(4)])
            assert joined.tobytes() == getattr(whole, name).tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_seeds_and_epochs_differ(code_store: TokenStore, level: str) -> None:
    def texts(seed: int, epoch: int) -> set[str]:
        rows = rows_of(code_store, length=512, seed=seed, level=level, rate=1.0)
        plan = rows.plan(epoch)
        return {str(describe(rows, 0, placed)["middle"]) for placed in rows.maker.examples(plan, epoch, 0)} | {
            rows.row(epoch, number).tokens.tobytes().hex() for number in range(4)
        }

    assert texts(0, 0) == texts(0, 0)
    assert len(texts(0, 0) & texts(0, 1)) <= 2
    assert len(texts(0, 0) & texts(1, 0)) <= 2


def test_the_level_decides_the_effective_rate(code_store: TokenStore) -> None:
    rates = {}
    for level in LEVELS:
        rows = rows_of(code_store, length=512, level=level, rate=1.0, orders={"psm": 1.0})
        found = [placed for row in made(rows.maker) for placed in row]
        rates[level] = sum(is_effective(placed, rows.maker.transform.format) for placed in found) / len(found)
    assert rates["context"] > 0.97
    assert rates["repository"] > 0.97
    assert rates["document"] < 0.2  # most modules are longer than a row


@pytest.mark.parametrize("level", LEVELS)
def test_parts_are_the_documents_text(store: TokenStore, level: str) -> None:
    rows = rows_of(store, level=level, length=128)
    form, split = rows.maker.transform.format, rows.split
    for row in made(rows.maker):
        for placed in row:
            prefix, middle, suffix = parts_of(placed, form)
            text = split.text(placed.document).encode()
            for part in (prefix, middle, suffix):
                assert part in text
                part.decode()
            if placed.parts == 1:
                assert prefix + middle + suffix in text
