import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import ConfigError, validate
from inlay.train.config import TrainConfig
from inlay.train.schedule import schedules
from inlay.train.schedules.constant import Constant
from inlay.train.schedules.cosine import Cosine
from inlay.train.schedules.wsd import WarmupStableDecay

EVERY = sorted(schedules.members())


@pytest.mark.parametrize("kind", EVERY)
@given(warmup=st.integers(0, 50), total=st.integers(1, 400))
def test_laws_of_every_schedule(kind: str, warmup: int, total: int) -> None:
    """Pure, within [0, 1], rising to the peak in warmup, never rising after it, never zero while training."""
    schedule = validate(schedules.get(kind), {"kind": kind, "warmup_steps": warmup})
    values = [schedule.multiplier(step, total) for step in range(total)]
    assert values == [schedule.multiplier(step, total) for step in range(total)]
    assert all(0.0 < value <= 1.0 for value in values)
    for step, value in enumerate(values[:warmup]):
        assert value == pytest.approx((step + 1) / warmup)
    after = values[warmup:]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(after))
    # Warmup does not depend on the total: a time budget is planned inside it.
    assert values[:warmup] == [schedule.multiplier(step, 1 << 40) for step in range(min(warmup, total))]


def test_wsd_at_named_points() -> None:
    schedule = WarmupStableDecay(warmup_steps=10, decay=0.5, floor=0.2)
    at = {step: schedule.multiplier(step, 110) for step in (0, 9, 10, 59, 60, 85, 109, 110)}
    assert at[0] == pytest.approx(0.1)
    assert at[9] == at[10] == at[59] == at[60] == 1.0
    assert at[85] == pytest.approx(0.6)  # half-way down
    assert at[109] == pytest.approx(0.2 + 0.8 / 50)
    assert at[110] == pytest.approx(0.2)
    root = WarmupStableDecay(warmup_steps=10, decay=0.5, shape="sqrt")
    assert root.multiplier(60 + 12, 110) == pytest.approx(1.0 - math.sqrt(12 / 50))
    assert root.multiplier(110, 110) == pytest.approx(0.0)
    assert WarmupStableDecay(warmup_steps=0, decay=0.0).multiplier(99, 100) == 1.0
    assert WarmupStableDecay(warmup_steps=0, decay=1.0).multiplier(25, 100) == pytest.approx(0.75)


def test_cosine_at_named_points() -> None:
    schedule = Cosine(warmup_steps=10, floor=0.1)
    assert schedule.multiplier(10, 110) == 1.0
    assert schedule.multiplier(60, 110) == pytest.approx(0.55)
    assert schedule.multiplier(35, 110) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert schedule.multiplier(110, 110) == pytest.approx(0.1)


def test_shapes_of_the_cooldown_at_named_points() -> None:
    """All start at the peak and end at the floor; half-way down they are where their formula says."""
    half = {"linear": 0.5, "sqrt": 1.0 - math.sqrt(0.5), "cosine": 0.5}
    quarter = {"linear": 0.75, "sqrt": 0.5, "cosine": 0.5 + 0.25 * math.sqrt(2.0)}
    for shape in ("linear", "sqrt", "cosine"):
        schedule = WarmupStableDecay(warmup_steps=0, decay=0.5, shape=shape, floor=0.1)
        values = [schedule.multiplier(step, 400) for step in (199, 200, 250, 300, 400)]
        expected = [1.0, 1.0, 0.1 + 0.9 * quarter[shape], 0.1 + 0.9 * half[shape], 0.1]
        assert values == pytest.approx(expected)


def test_constant_keeps_the_peak() -> None:
    assert [Constant(warmup_steps=2).multiplier(step, 5) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


@given(decay=st.floats(0.0, 1.0), floor=st.floats(0.0, 0.99), shape=st.sampled_from(["linear", "sqrt", "cosine"]))
def test_the_peak_lasts_as_long_as_the_schedule_says(decay: float, floor: float, shape: str) -> None:
    every = (
        WarmupStableDecay(decay=decay, floor=floor, shape=shape),  # type: ignore[arg-type]
        Cosine(floor=floor),
        Constant(),
    )
    for schedule in every:
        assert schedule.after_warmup(schedule.stable) == 1.0
        assert schedule.after_warmup(schedule.stable / 2.0) == 1.0
        if schedule.stable < 0.99:
            assert schedule.after_warmup(schedule.stable + 0.5 * (1.0 - schedule.stable)) < 1.0
        assert 0.0 <= schedule.after_warmup(1.0) <= 1.0
        assert schedule.fall
    assert WarmupStableDecay(floor=1.0).stable == Cosine(floor=1.0).stable == 1.0


def test_progress_goes_by_tokens() -> None:
    """Ten steps of one token, then ten of nine: half of the steps are a tenth of the tokens."""

    def done(step: int) -> int:
        return min(step, 10) + 9 * max(0, step - 10)

    schedule = WarmupStableDecay(warmup_steps=0, decay=1.0)
    assert schedule.multiplier(10, 20) == pytest.approx(0.5)
    assert schedule.multiplier(10, 20, done) == pytest.approx(0.9)
    assert schedule.multiplier(15, 20, done) == pytest.approx(0.45)
    # Where all steps have the same number of tokens it is the very same number, whatever that is.
    odd = WarmupStableDecay(warmup_steps=7, decay=0.6, shape="sqrt")
    for tokens in (3, 4096, 524_287):
        found = [odd.multiplier(step, 173, lambda step, tokens=tokens: step * tokens) for step in range(173)]
        assert found == [odd.multiplier(step, 173) for step in range(173)]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("wsd", {"decay": 1.5}),
        ("wsd", {"floor": -0.1}),
        ("wsd", {"shape": "cubic"}),
        ("wsd", {"warmup_steps": -1}),
        ("cosine", {"floor": 2.0}),
        ("cosine", {"decay": 0.5}),
        ("constant", {"floor": 0.5}),
    ],
)
def test_bad_values_are_refused_by_name(kind: str, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        validate(schedules.get(kind), {"kind": kind, **change})


@pytest.mark.parametrize(
    "budget", [{}, {"steps": 3, "tokens": 4}, {"tokens": 1, "minutes": 1.0}, {"steps": 1, "tokens": 1, "minutes": 1.0}]
)
def test_exactly_one_budget(budget: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="exactly one of steps, tokens and minutes") as caught:
        validate(TrainConfig, budget)
    for name in budget:
        assert name in str(caught.value)


def test_rows_must_divide_into_micro_batches() -> None:
    with pytest.raises(ConfigError, match="rows 8 is not a multiple of accumulation 3"):
        validate(TrainConfig, {"steps": 1, "accumulation": 3})
    assert validate(TrainConfig, {"steps": 1, "rows": 6, "sequence_length": 64}).tokens_per_step == 384
