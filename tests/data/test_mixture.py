"""Mixtures: shares by tokens met without a draw, one stream on any number of ranks and workers, and what is refused."""

import json
import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.stores import write_store

from inlay.config import BadInput, ConfigError, validate
from inlay.config.compose import compose
from inlay.data.config import DataConfig, check_supply
from inlay.data.loader import Batch, Loader, LoaderState, Rows, SourceState
from inlay.data.mixture import MixedRows, text_tokens
from inlay.fim.format import Kind
from inlay.fim.transform import FimConfig
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer

LENGTH = 96
PER_BATCH = 4
FIM = FimConfig(rate=0.8)
WORDS = (
    "the",
    "loader",
    "reads",
    "each",
    "source",
    "in",
    "its",
    "own",
    "order",
    "and",
    "never",
    "draws",
    "a",
    "number",
)


def prose(number: int) -> str:
    """A page of made-up sentences."""
    order = [WORDS[(number * 7 + word * word) % len(WORDS)] for word in range(60 + 17 * (number % 9))]
    return f"# Page {number}\n\n" + " ".join(order).capitalize() + ".\n"


def code(number: int) -> str:
    """A short module."""
    body = "".join(f"    total_{number} += {number} * {step}\n" for step in range(3 + number % 11))
    return f"def function_{number}(total_{number}):\n{body}    return total_{number}\n"


@pytest.fixture(scope="module")
def stores(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenStore]:
    folder = tmp_path_factory.mktemp("mixture")
    return {
        "code": write_store(folder / "code", tokenizer, [code(n) for n in range(90)]),
        "english": write_store(folder / "english", tokenizer, [prose(n) for n in range(30)]),
        "docs": write_store(folder / "docs", tokenizer, [prose(n) for n in range(100, 108)]),
    }


def mixture(stores: dict[str, TokenStore], **options: dict[str, Any]) -> DataConfig:
    """A mixture of code, English and what `options` name."""
    sources: dict[str, Any] = {"code": {"max_epochs": None}, "english": {"content": "english", "max_epochs": None}}
    for name, changes in options.items():
        sources[name] = {**sources.get(name, {}), **changes}
    data = {name: {"path": str(stores[name].path), **source} for name, source in sources.items()}
    return validate(DataConfig, {"sources": data, "shortest_piece": 8})


def open_mixed(data: DataConfig, length: int = LENGTH, shares: dict[str, float] | None = None) -> MixedRows:
    rows = data.open("train", FIM, length, 0, shares)
    assert isinstance(rows, MixedRows)
    return rows


@pytest.fixture(scope="module")
def mixed(stores: dict[str, TokenStore]) -> MixedRows:
    return open_mixed(mixture(stores))


def tokens_by_source(batches: list[Batch], sources: int) -> np.ndarray:
    """Tokens of text, [sources]."""
    counts = np.zeros(sources)
    for batch in batches:
        np.add.at(counts, batch.sources, text_tokens(batch))
    return counts


def take(rows: Rows | MixedRows, count: int, state: LoaderState | None = None, **options: int) -> list[Batch]:
    with Loader(rows, PER_BATCH, state, **options) as loader:
        return list(islice(loader, count))


def content(batch: Batch) -> bytes:
    return b"".join(getattr(batch, name).tobytes() for name in vars(batch) if name != "after")


def saved(state: LoaderState) -> LoaderState:
    """A state as a checkpoint's record gives it back."""
    return LoaderState(**json.loads(json.dumps(state.to_dict())))


# --- the stream ---


def test_tokens_of_text_have_the_shares_asked(mixed: MixedRows) -> None:
    counts = tokens_by_source(take(mixed, 75), 2)  # 300 rows
    assert counts[1] / counts.sum() == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("share", [0.03, 0.35, 0.8])
def test_other_shares(stores: dict[str, TokenStore], share: float) -> None:
    counts = tokens_by_source(take(open_mixed(mixture(stores, english={"share": share})), 150), 2)
    assert counts[1] / counts.sum() == pytest.approx(share, abs=0.005)


def test_rows_that_hold_less_text_come_more_often(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    """Short pieces of code, whole rows of English: half the tokens are not half the rows."""
    data = mixture(stores, english={"share": 0.5})
    rows = open_mixed(data)
    assert rows.density("english") > 1.05 * rows.density("code")
    batches = take(rows, 150)
    counts = tokens_by_source(batches, 2)
    assert counts[1] / counts.sum() == pytest.approx(0.5, abs=0.005)
    assert np.mean([batch.sources.mean() for batch in batches]) < 0.49


def test_each_source_gives_its_rows_in_its_own_order(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    rows, after = mixed.advance(LoaderState(), 2000)
    for number, name in enumerate(mixed.source_names):
        alone = mixture(stores).open_source(name, "train", FIM, LENGTH, 0)
        mine = [(epoch, row) for epoch, row, source in rows if source == number]
        assert mine == alone.advance(LoaderState(), len(mine))[0]
        assert after.sources[name].epoch > 0, "several epochs should have been read"
    assert after.row == 2000


def test_the_main_source_has_the_rows_it_has_alone(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    alone = Rows(str(stores["code"].path), "train", FIM, LENGTH, 0, 8)
    for epoch, row in ((0, 0), (1, 5)):
        assert mixed.row(epoch, row, 0).tokens.tobytes() == alone.row(epoch, row).tokens.tobytes()
    assert mixture(stores).main == str(stores["code"].path)


def test_two_sources_are_not_cut_alike(stores: dict[str, TokenStore], tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The same text under another hash: with one seed for both every row would be there twice."""
    copy = write_store(tmp_path / "copy", tokenizer, [*[code(n) for n in range(90)], "x = 1\n"])
    data = mixture({**stores, "copy": copy}, copy={"max_epochs": None})
    one, two = (data.open_source(name, "train", FIM, LENGTH, 0) for name in ("code", "copy"))
    same = [one.row(0, row).tokens.tobytes() == two.row(0, row).tokens.tobytes() for row in range(20)]
    assert not any(same)


def test_english_is_trained_left_to_right_in_long_pieces(stores: dict[str, TokenStore]) -> None:
    data = mixture(stores)
    for batch in take(open_mixed(data), 50):
        for row, source in enumerate(batch.sources.tolist()):
            kinds = set(np.unique(batch.kinds[row]).tolist()) - {Kind.PADDING}
            if source:
                assert kinds == {Kind.L2R}
    english = data.open_source("english", "train", data.fim_of("english", FIM), LENGTH, 0)
    assert np.median(english.plan(0).cost) > 0.9 * LENGTH
    code = data.open_source("code", "train", FIM, LENGTH, 0)
    assert np.median(code.plan(0).cost) < 0.6 * LENGTH
    cut = mixture(stores, english={"fim_rate": 1.0})
    assert cut.fim_of("english", FIM).rate == 1.0
    assert cut.fim_of("code", FIM) is FIM
    found = Counter(kind for batch in take(open_mixed(cut), 50) for kind in batch.kinds[batch.sources == 1].ravel())
    assert found[Kind.PSM]
    assert found[Kind.SPM]


def test_row_by_row_the_stream_is_one_whatever_reads_it(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    straight = take(mixed, 40)
    state = saved(straight[12].after)
    assert [content(batch) for batch in take(open_mixed(mixture(stores)), 27, state)] == [
        content(batch) for batch in straight[13:]
    ]
    ranks = [take(open_mixed(mixture(stores)), 5, state, rank=rank, world=2) for rank in range(2)]
    for number, parts in enumerate(zip(*ranks, strict=True)):
        whole = straight[13 + number]
        for rank, part in enumerate(parts):
            assert part.tokens.tobytes() == whole.tokens[rank::2].tobytes()
            assert part.sources.tolist() == whole.sources[rank::2].tolist()
            assert part.after == whole.after


def test_workers_change_nothing(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    straight = take(mixed, 6)
    found = take(open_mixed(mixture(stores)), 6, workers=1)
    assert [content(batch) for batch in found] == [content(batch) for batch in straight]
    assert [batch.after for batch in found] == [batch.after for batch in straight]
    assert any(batch.sources.any() for batch in found)


def test_it_travels_to_another_process(mixed: MixedRows) -> None:
    copy = pickle.loads(pickle.dumps(mixed))
    assert copy.store_hash == mixed.store_hash
    assert copy.source_names == ("code", "english")
    assert copy.advance(LoaderState(), 30) == mixed.advance(LoaderState(), 30)


def test_mixing_makes_no_row_and_no_plan_twice(stores: dict[str, TokenStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """What mixing costs, in work: as many rows as are read, and each epoch of each source planned once."""
    rows = open_mixed(mixture(stores))
    made: Counter[tuple[int, ...]] = Counter()
    planned: Counter[tuple[int, int]] = Counter()
    for number, source in enumerate(rows._rows):

        def row(plan: Any, epoch: int, row: int, *, n: int = number, make: Any = source.maker.row) -> Any:
            made[n, epoch, row] += 1
            return make(plan, epoch, row)

        def plan(epoch: int, *, n: int = number, make: Any = source.maker.plan) -> Any:
            planned[n, epoch] += 1
            return make(epoch)

        monkeypatch.setattr(source.maker, "row", row)
        monkeypatch.setattr(source.maker, "plan", plan)
    batches = take(rows, 60)
    assert made.total() == 60 * PER_BATCH
    assert set(made.values()) == {1}
    assert set(planned.values()) == {1}
    assert len(planned) <= sum(state.epoch + 1 for state in batches[-1].after.sources.values())


# --- stages ---


def test_other_shares_from_a_stage_on(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    """Every source goes on where it stood: no row of an epoch twice, none left out."""
    first, state = mixed.advance(LoaderState(), 151)
    later = open_mixed(mixture(stores), shares={"code": 0.4, "english": 0.6})
    begun = later.begin_stage(saved(state))
    assert later.begin_stage(begun) == begun  # a run that is killed right there begins the stage again
    second, after = later.advance(begun, 100)
    assert sum(source for *_, source in second) == pytest.approx(60 - 4, abs=5)
    for number in range(2):
        mine = [row for row in (*first, *second) if row[2] == number]
        assert len(set(mine)) == len(mine)
        assert mine == sorted(mine)
        for epoch in range(mine[-1][0]):
            assert sum(row[0] == epoch for row in mine) == mixed._rows[number].plan(epoch).row_count
    third = open_mixed(mixture(stores), shares={"code": 1.0})
    only, end = third.advance(third.begin_stage(after), 40)
    assert {source for *_, source in only} == {0}
    place = after.sources["english"]
    assert end.sources["english"] == SourceState(epoch=place.epoch, row=place.row, quota=0)


def test_rows_of_another_length_begin_with_the_next_epoch(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    state = mixed.advance(LoaderState(), 30)[1]
    longer = open_mixed(mixture(stores), length=160)
    begun = longer.begin_stage(state)
    assert {(place.epoch, place.row) for place in begun.sources.values()} == {(1, 0)}
    assert begun.length == 160
    assert longer.begin_stage(begun) == begun
    batches = take(longer, 60, begun)
    counts = tokens_by_source(batches, 2)
    assert counts[1] / counts.sum() == pytest.approx(0.1, abs=0.006)
    assert longer.begin_stage(LoaderState(store=longer.store_hash)).sources["code"].epoch == 0


def test_one_store_goes_on_in_rows_of_one_length(stores: dict[str, TokenStore]) -> None:
    data = DataConfig(path=str(stores["code"].path))
    rows, longer = data.open("train", FIM, LENGTH, 0), data.open("train", FIM, 160, 0)
    state = rows.advance(LoaderState(), 5)[1]
    assert rows.begin_stage(state) == state
    begun = longer.begin_stage(state)
    assert (begun.epoch, begun.row, begun.length) == (1, 0, 160)
    assert longer.begin_stage(begun) == begun
    before_lengths_were_kept = LoaderState(epoch=2, row=3, store=rows.store_hash)
    assert rows.begin_stage(before_lengths_were_kept).epoch == 3


# --- the supply ---


def test_supply_of_a_run(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    """Epochs as foretold are those that the stream reads."""
    data, steps = mixture(stores), 150
    uses = {use.source: use for use in check_supply(data, [(steps * PER_BATCH * LENGTH, None)], mixed)}
    batches = take(mixed, steps)
    counts = tokens_by_source(batches, 2)
    for number, name in enumerate(mixed.source_names):
        place = batches[-1].after.sources[name]
        read = place.epoch + place.row / mixed._rows[number].plan(place.epoch).row_count
        assert uses[name].epochs == pytest.approx(read, rel=0.02, abs=0.1)
        assert uses[name].tokens == pytest.approx(counts[number], rel=0.03)
    assert uses["english"].share == pytest.approx(0.1)


def test_a_run_that_repeats_a_source_too_often(stores: dict[str, TokenStore]) -> None:
    data = mixture(stores, english={"max_epochs": 2.0})
    tokens = stores["english"].split("train").token_count
    check_supply(data, [(10 * tokens, None), (5 * tokens, {"code": 1.0})])
    with pytest.raises(
        BadInput, match=r"source 'english' 3 times, and its max_epochs is 2; .* english 0\.04"
    ) as caught:
        check_supply(data, [(10 * tokens, None), (40 * tokens, {"code": 0.95, "english": 0.05})])
    assert "\n" not in str(caught.value)
    alone = check_supply(DataConfig(path=str(stores["english"].path)), [(3 * tokens, None)])
    assert [(use.source, use.epochs, use.max_epochs) for use in alone] == [("all", 3.0, None)]


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"code": {"share": 0.7}, "english": {"share": 0.2}}, "the shares sum to 0.9, not 1"),
        ({"code": {"share": 1.0}}, "the shares sum to 1, which leaves nothing for english"),
        ({"code": {"share": 0.0}}, "'sources.code.share' = 0"),
        ({"english": {"share": -0.1}}, "'sources.english.share' = -0.1"),
        ({"english": {"max_epochs": 0.0}}, "'sources.english.max_epochs' = 0"),
        ({"english": {"shares": 0.1}}, "unknown key 'sources.english.shares'; did you mean 'share'?"),
        ({"english": {"content": "prose"}}, "'sources.english.content' = 'prose'"),
        ({"Dot.ted": {"path": "x"}}, "the name 'Dot.ted': use lower-case letters"),
        ({"l2r": {"path": "x"}}, "the name 'l2r' is that of a kind of rows"),
        ({f"s{n}": {"path": "x"} for n in range(254)}, "256 sources; at most 255"),
    ],
)
def test_mixtures_that_make_no_sense(changes: dict[str, Any], named: str) -> None:
    sources: dict[str, Any] = {"code": {"path": "c"}, "english": {"path": "e"}}
    for name, change in changes.items():
        sources[name] = {**sources.get(name, {}), **change}
    with pytest.raises(ConfigError) as caught:
        validate(DataConfig, {"sources": sources})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "give path=STORE, or sources with data=mixture"),
        ({"path": "x", "sources": {"code": {"path": "x"}}}, "not both"),
    ],
)
def test_one_way_of_the_two(data: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        validate(DataConfig, data)


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({"code": 0.5, "englisch": 0.5}, "unknown source 'englisch'; did you mean 'english'?"),
        ({"code": 0.5, "english": 0.4}, "the shares sum to 0.9, not 1"),
        ({"code": 1.0, "english": 0.0}, "the share of 'english' is 0; leave a source out"),
        ({"code": 1.0 - 1e-7, "english": 1e-7}, "'english' is less than one row in 16,384"),
    ],
)
def test_shares_of_a_stage_that_cannot_be(stores: dict[str, TokenStore], shares: dict[str, float], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_mixed(mixture(stores), shares=shares).advance(LoaderState(), 1)
    assert named in str(caught.value)
    with pytest.raises(BadInput, match=r"data\.path is one store"):
        DataConfig(path=str(stores["code"].path)).open("train", FIM, LENGTH, 0, shares)


def test_stores_that_do_not_mix(stores: dict[str, TokenStore], tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match="'code' and 'docs' are one store: name it once"):
        open_mixed(mixture({**stores, "docs": stores["code"]}, docs={}))
    other = write_store(tmp_path / "other", Tokenizer.train([prose(1)], 300), [prose(1)])
    with pytest.raises(BadInput, match=r"different tokenizers: prepare 'docs' again with tokenizer=file") as caught:
        open_mixed(mixture({**stores, "docs": other}, docs={}))
    assert str(caught.value).endswith(f"tokenizer.path={stores['code'].path}/tokenizer")
    empty = write_store(tmp_path / "empty", tokenizer, [""])
    with pytest.raises(BadInput, match=r"train split of .*empty is empty"):
        open_mixed(mixture({**stores, "docs": empty}, docs={}))
    with pytest.raises(BadInput, match="no such folder"):
        mixture({**stores, "docs": TokenStore(tmp_path / "none", {})}, docs={}).open("train", FIM, LENGTH, 0)


def test_another_mixture_does_not_go_on(stores: dict[str, TokenStore], mixed: MixedRows) -> None:
    state = take(mixed, 1)[0].after
    for others in (mixture(stores, docs={}), mixture({**stores, "english": stores["docs"]})):
        with pytest.raises(BadInput, match=r"give the original data\.sources"):
            Loader(open_mixed(others), PER_BATCH, state)
    one = DataConfig(path=str(stores["code"].path)).open("train", FIM, LENGTH, 0)
    with pytest.raises(BadInput, match=r"give the original data\.path"):
        Loader(one, PER_BATCH, state)


def test_the_preset() -> None:
    given = ["data.sources.code.path=a", "data.sources.english.path=b", "train.steps=1"]
    data = validate(DataConfig, compose("train", ["data=mixture", *given, "data.sources.english.share=0.2"])["data"])
    assert (data.main, data.paths) == ("a", ("a", "b"))
    assert data.sources["code"].max_epochs is None
    assert (data.sources["english"].share, data.sources["english"].max_epochs) == (0.2, 4.0)
    third = validate(DataConfig, compose("train", ["data=mixture", *given, "+data.sources.docs.path=c"])["data"])
    assert third.paths == ("a", "b", "c")
    with pytest.raises(ConfigError, match=r"'data\.sources\.english\.path' has no default"):
        compose("train", ["data=mixture", given[0], "train.steps=1"])


def test_the_most_sources_fit_a_byte() -> None:
    data = validate(DataConfig, {"sources": {f"s{n}": {"path": "x"} for n in range(255)}})
    assert data.main_source == "s0"
