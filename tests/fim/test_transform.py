"""The transform: what it keeps whole, what it trims first, how often it cuts, and what it refuses."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.trees import syntax_of, texts_with_forests
from tests.fim.witness import assert_share, texts

from inlay.config import BadInput, validate
from inlay.fim.draws import Draws
from inlay.fim.families.inlay import InlayFamily
from inlay.fim.format import KIND_OF_ORDER, FimFormat, Kind, Region
from inlay.fim.span import strategies
from inlay.fim.transform import Example, FimConfig, LossWeights, Transform, fit

EVERY_SPAN = {kind: {"kind": kind} for kind in strategies.members()}
EVERY_ORDER = {"psm": 1.0, "spm": 1.0, "spm_v2": 1.0}
CODE = "def add(first, second):\n    return first + second  # größer 🙂\n\n\nclass Table:\n    rows: list[int]\n"


def config(**options: Any) -> FimConfig:
    return validate(FimConfig, {"rate": 1.0, "orders": EVERY_ORDER, "spans": EVERY_SPAN, **options})


def piece(form: FimFormat, text: str) -> np.ndarray:
    return np.array(form.tokenizer.encode(text), dtype=np.uint16)


def part(form: FimFormat, example: Example, region: Region) -> bytes:
    return form.tokenizer.decode_bytes(example.row.tokens[example.row.regions == region].tolist())


def check(form: FimFormat, example: Example, text: str, capacity: int) -> None:
    """What every example promises, whatever its capacity."""
    data = text.encode()
    row = example.row
    assert len(row.tokens) <= capacity
    assert row.tokens[-1] == form.eot
    assert row.regions[-1] == Region.TERMINATOR
    assert (row.tokens == form.eot).sum() == 1
    restored = form.restore(row.tokens)
    restored.decode()
    if example.span is None:
        assert row.kind == Kind.L2R
        assert example.strategy is None
        assert data.startswith(restored)
        assert (restored == data) == (example.trimmed == 0)
        return
    start, end = example.span
    assert example.strategy in strategies.members()
    assert part(form, example, Region.MIDDLE) == data[start:end]
    assert data[:start].endswith(part(form, example, Region.PREFIX))
    assert data[end:].startswith(part(form, example, Region.SUFFIX))
    assert restored == part(form, example, Region.PREFIX) + data[start:end] + part(form, example, Region.SUFFIX)
    encode = form.tokenizer.encode
    whole = [encode(side.decode()) for side in (data[:start], data[start:end], data[end:])]
    assert example.trimmed == sum(map(len, whole)) + FimFormat.OVERHEAD - len(row.tokens)
    if example.trimmed == 0:
        assert restored == data
        # The slow witness of "as if alone": each part's bytes, encoded from scratch, are its ids.
        for region, ids in zip((Region.PREFIX, Region.MIDDLE, Region.SUFFIX), whole, strict=True):
            assert row.tokens[row.regions == region].tolist() == ids
    else:
        # Nothing goes that need not: less than one character more than what did not fit.
        assert capacity - len(row.tokens) < 4
        if part(form, example, Region.PREFIX):
            assert part(form, example, Region.SUFFIX) == data[end:]


@given(text=texts(), capacity=st.integers(1, 120), key=st.integers(0, 10**9))
def test_at_any_capacity(form: FimFormat, text: str, capacity: int, key: int) -> None:
    transform = Transform(config(), form)
    check(form, transform(piece(form, text), capacity, Draws(key)), text, capacity)


@pytest.mark.parametrize("key", range(6))
def test_at_every_capacity(form: FimFormat, key: int) -> None:
    transform = Transform(config(), form)
    ids = piece(form, CODE)
    kinds: list[Kind] = []
    for capacity in range(1, len(ids) + 20):
        example = transform(ids, capacity, Draws("capacity", key))
        check(form, example, CODE, capacity)
        kinds.append(example.row.kind)
    # One cut for one key: plain while the middle does not fit, from there on the same example, less and less trimmed.
    first = next(index for index, kind in enumerate(kinds) if kind != Kind.L2R)
    assert set(kinds[:first]) <= {Kind.L2R}
    assert len(set(kinds[first:])) == 1
    assert kinds[first] != Kind.L2R
    assert transform(ids, len(ids) + 20, Draws("capacity", key)).trimmed == 0


def test_the_same_key_gives_the_same_example(form: FimFormat) -> None:
    transform, ids = Transform(config(), form), piece(form, CODE)
    for key in range(30):
        one, two = (transform(ids, 200, Draws(key)) for _ in range(2))
        assert one.row.tokens.tolist() == two.row.tokens.tolist()
        assert (one.span, one.strategy, one.trimmed) == (two.span, two.strategy, two.trimmed)
    assert len({transform(ids, 200, Draws(key)).row.tokens.tobytes() for key in range(30)}) > 25


def test_the_rate_does_not_move_the_cut(form: FimFormat) -> None:
    ids = piece(form, CODE)
    often, seldom = (Transform(config(rate=rate), form) for rate in (1.0, 0.3))
    for key in range(100):
        example = seldom(ids, 200, Draws(key))
        if example.span is not None:
            assert example.span == often(ids, 200, Draws(key)).span


@given(prefix=texts(), suffix=texts(), room=st.integers(-3, 60))
def test_fit_against_a_slow_search(form: FimFormat, prefix: str, suffix: str, room: int) -> None:
    tokenizer = form.tokenizer
    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    found = fit(before, after, room, form.starts_character)
    if room < 0:
        assert found is None
        return

    def whole(ids: list[int]) -> bool:
        try:
            tokenizer.decode_bytes(ids).decode()
        except UnicodeDecodeError:
            return False
        return True

    # The longest whole tail of the prefix with all of the suffix, or else no prefix and the longest head of the suffix.
    heads = [(before[cut:], after) for cut in range(len(before))]
    tails = [([], after[:keep]) for keep in range(len(after), -1, -1)]
    best = next(pair for pair in [*heads, *tails] if len(pair[0]) + len(pair[1]) <= room and all(map(whole, pair)))
    assert found == (*best, len(before) + len(after) - len(best[0]) - len(best[1]))


@given(made=texts_with_forests(texts()), parsed=st.booleans(), capacity=st.integers(1, 200), key=st.integers(0, 10**9))
def test_a_middle_never_takes_a_whole_piece(
    form: FimFormat, made: tuple[str, list], parsed: bool, capacity: int, key: int
) -> None:
    text, forest = made
    syntax = syntax_of(forest) if parsed else None
    for kind in sorted(strategies.members()):
        for hints in (0.0, 1.0):
            spans = {"only": {"kind": kind}}
            transform = Transform(config(spans=spans, hints={"rate": hints}, orders={"spm": 1.0, "psm": 1.0}), form)
            example = transform(piece(form, text), capacity, Draws(key), syntax=syntax)
            if example.span is None:
                continue
            assert example.span != (0, len(text.encode()))
            start, end = example.span
            assert start == end or part(form, example, Region.PREFIX) or part(form, example, Region.SUFFIX)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_is_met(form: FimFormat, rate: float) -> None:
    transform, ids = Transform(config(rate=rate), form), piece(form, CODE)
    examples = [transform(ids, 200, Draws("rate", key)) for key in range(1_500)]
    assert_share(sum(example.row.kind != Kind.L2R for example in examples), len(examples), rate)


def test_rate_zero_and_one(form: FimFormat) -> None:
    ids = piece(form, CODE)
    never, always = (Transform(config(rate=rate), form) for rate in (0.0, 1.0))
    for key in range(300):
        plain = never(ids, 200, Draws(key))
        assert plain.row.kind == Kind.L2R
        assert plain.row.tokens.tolist() == [*ids.tolist(), form.eot]
        assert always(ids, 200, Draws(key)).row.kind != Kind.L2R


def test_orders_and_strategies_have_their_shares(form: FimFormat) -> None:
    fim = config(
        orders={"psm": 1.0, "spm": 3.0, "spm_v2": 0.0},
        spans={
            "cuts": {"kind": "random", "weight": 1.0},
            "sizes": {"kind": "sized", "weight": 4.0},
            "off": {"kind": "empty", "weight": 0.0},
        },
    )
    transform, ids = Transform(fim, form), piece(form, CODE)
    examples = [transform(ids, 200, Draws("shares", key)) for key in range(1_500)]
    kinds = Counter(example.row.kind for example in examples)
    names = Counter(example.strategy for example in examples)
    assert set(kinds) == {Kind.PSM, Kind.SPM}
    assert set(names) == {"cuts", "sizes"}
    assert_share(kinds[Kind.SPM], 1_500, 0.75)
    assert_share(names["sizes"], 1_500, 0.8)
    both = sum(example.row.kind == Kind.SPM and example.strategy == "sizes" for example in examples)
    assert_share(both, 1_500, 0.75 * 0.8)


@pytest.mark.parametrize("order", ["psm", "spm", "spm_v2"])
def test_each_order_alone(form: FimFormat, order: Any) -> None:
    transform, ids = Transform(config(orders={order: 1.0}), form), piece(form, CODE)
    for key in range(20):
        example = transform(ids, 200, Draws(key))
        assert example.row.kind == KIND_OF_ORDER[order]
        check(form, example, CODE, 200)


def test_another_strategy_stands_in_where_one_finds_no_span(form: FimFormat) -> None:
    text = "  (((\n\n)))  \n"  # no word in it
    spans = {"words": {"kind": "words", "weight": 9.0}, "empty": {"kind": "empty", "weight": 1.0}}
    for key in range(50):
        assert Transform(config(spans=spans), form)(piece(form, text), 100, Draws(key)).strategy == "empty"
    alone = Transform(config(spans={"words": {"kind": "words"}}), form)(piece(form, text), 100, Draws(0))
    assert alone.row.kind == Kind.L2R
    check(form, alone, text, 100)


@pytest.mark.parametrize("text", ["", "x", "🙂", "\n"], ids=repr)
def test_tiny_pieces(form: FimFormat, text: str) -> None:
    transform = Transform(config(), form)
    for key in range(60):
        check(form, transform(piece(form, text), 30, Draws(key)), text, 30)


def test_no_room_for_a_terminator_is_refused(form: FimFormat) -> None:
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="terminator"):
            Transform(config(), form)(piece(form, CODE), capacity, Draws(0))


def test_an_order_that_the_family_lacks_is_refused_before_any_row(form: FimFormat) -> None:
    narrow = FimFormat(InlayFamily(orders=("psm",)), form.tokenizer)
    with pytest.raises(BadInput, match="has no order 'spm'"):
        Transform(config(orders={"psm": 0.9, "spm": 0.1}), narrow)
    Transform(config(orders={"psm": 1.0, "spm": 0.0}), narrow)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rate": 1.5}, "'rate' = 1.5"),
        ({"rate": -0.1}, "'rate'"),
        ({"rate": "0.5"}, "'rate'"),
        ({"orders": {}}, "orders"),
        ({"orders": {"psm": 0.0}}, "orders"),
        ({"orders": {"psm": 2.0, "spm": -1.0}}, "orders"),
        ({"orders": {"msp": 1.0}}, "msp"),
        ({"spans": {}}, "spans"),
        ({"spans": {"a": {"kind": "sized", "weight": 0.0}}}, "spans"),
        ({"spans": {"a": {"kind": "seized"}}}, "did you mean 'sized'"),
        (
            {"spans": {"a": {"kind": "sized", "length": {"kind": "uniform", "low": 9, "high": 2}}}},
            "low 9 is above high 2",
        ),
        ({"loss": {"middle": -1.0}}, "loss.middle"),
        ({"loss": {"midle": 1.0}}, "did you mean 'middle'"),
        ({"famly": "inlay"}, "did you mean 'family'"),
    ],
)
def test_bad_options(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        config(**options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loss_table_has_a_place_for_every_region() -> None:
    weights = LossWeights(text=1.0, prefix=2.0, suffix=3.0, middle=4.0, sentinel=5.0, terminator=6.0)
    by_name = {region.name.lower(): float(weights.table()[region]) for region in Region}
    assert by_name == {**weights.to_dict(), "padding": 0.0}
