"""Reading a learning-rate curve, and the rules that carry its rate to another model."""

import math

import numpy as np
import pytest

from inlay.config import BadInput, validate
from inlay.train.curve import Reading, read_curve
from inlay.train.optimizer import OptimizerConfig, optimizers
from inlay.train.transfer import Setup, Transfer, overrides, tokens_per_step, transfer

RATES = (0.005, 0.01, 0.02, 0.04, 0.08)


def parabola(rates: tuple[float, ...], centre: float, a: float = 0.1, floor: float = 3.0) -> list[float]:
    return [floor + a * math.log2(rate / centre) ** 2 for rate in rates]


def read(rates: tuple[float, ...], losses: list[float], seed: int = 0) -> Reading:
    return read_curve((rate, seed, loss) for rate, loss in zip(rates, losses, strict=True))


@pytest.mark.parametrize("centre", [0.012, 0.02, 0.03])
def test_a_parabola_is_read_exactly(centre: float) -> None:
    found = read(RATES, parabola(RATES, centre))
    assert found.vertex == pytest.approx(centre, rel=1e-9)
    assert found.low < found.best < found.high
    assert found.chosen == pytest.approx(math.sqrt(found.low * found.high))
    assert abs(math.log2(found.chosen / centre)) < 0.35, "the middle of the flat part is far from the bottom"
    assert found.sigma is None
    assert any("no rate has two seeds" in line for line in found.warnings)


def test_the_flat_part_is_where_the_broken_line_crosses_the_tolerance() -> None:
    found = read((1.0, 2.0, 4.0), [4.1, 4.0, 4.4])
    level = 0.0025 * 4.0
    assert found.tolerance == pytest.approx(level)
    assert math.log2(found.low) == pytest.approx(1.0 - level / 0.1)
    assert math.log2(found.high) == pytest.approx(1.0 + level / 0.4)
    # Through three points there is one parabola: its vertex by hand.
    a, b = (4.1 + 4.4 - 2 * 4.0) / 2, (4.4 - 4.1) / 2
    assert math.log2(found.vertex or 0.0) == pytest.approx(1.0 - b / (2 * a))


def test_seeds_are_compared_fairly_and_give_the_spread() -> None:
    """Only two rates have a second seed, and it is worse for both: that must not make them worse than the others."""
    losses = dict(zip(RATES, parabola(RATES, 0.02), strict=True))
    rows = [(rate, 0, loss) for rate, loss in losses.items()]
    noise = {0.02: 0.004, 0.01: -0.004}
    rows += [(rate, 1, losses[rate] + 0.5 + noise[rate]) for rate in noise]
    found = read_curve(rows)
    shown = {rate.value: rate.loss for rate in found.rates}
    # The seed's shift is 0.5 for all: the fitted losses differ as the true ones do, but for half the noise.
    assert shown[0.02] - shown[0.04] == pytest.approx(losses[0.02] - losses[0.04] + 0.002)  # type: ignore[operator]
    # One degree of freedom: residuals are +-0.002 in four places.
    assert found.sigma == pytest.approx(0.004)
    assert found.tolerance == pytest.approx(max(2 * 0.004, 0.0025 * found.best_loss))


def test_sigma_and_the_vertex_error_are_what_repeated_noise_gives() -> None:
    """A thousand curves with known noise: the mean of the estimated variance is the true one, and the spread of the
    vertices is what each curve says about its own."""
    generator = np.random.default_rng(0)
    variances, vertices, errors = [], [], []
    for _ in range(1000):
        rows = [
            (rate, seed, loss + 0.2 * seed + generator.normal(0.0, 0.01))
            for rate, loss in zip(RATES, parabola(RATES, 0.022), strict=True)
            for seed in (0, 1)
        ]
        found = read_curve(rows)
        assert found.sigma is not None
        assert found.vertex is not None
        assert found.vertex_error is not None
        variances.append(found.sigma**2)
        vertices.append(math.log2(found.vertex))
        errors.append(found.vertex_error**2)
    assert np.mean(variances) == pytest.approx(0.01**2, rel=0.1)
    assert np.mean(vertices) == pytest.approx(math.log2(0.022), abs=0.01)
    assert np.var(vertices) == pytest.approx(np.mean(errors), rel=0.15)


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [
        (RATES, parabola(RATES, 0.001), r"the lowest rate 0.005 is the best.*extend the grid to 0.0025 and 0.00125"),
        (RATES, parabola(RATES, 0.9), r"the highest rate 0.08 is the best.*extend the grid to 0.16 and 0.32"),
        ((0.01, 0.02), [3.0, 3.1], "at least 3 learning rates that did not diverge, and has 2: 0.01, 0.02"),
        ((0.01, 0.02, 0.04), [3.0, 2.9, math.inf], "at least 3"),
        ((0.01, 0.02), [math.inf, math.nan], "has 0: none"),
    ],
)
def test_what_is_no_minimum_is_refused(rates: tuple[float, ...], losses: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(rates, losses)


def test_a_cliff_is_an_edge_that_was_found() -> None:
    found = read((0.005, 0.01, 0.02, 0.04), [3.2, 3.1, 3.0, math.inf])
    assert (found.best, found.high) == pytest.approx((0.02, 0.02))
    assert any("diverged" in line for line in found.warnings)
    one_of_two = read_curve([(0.005, 0, 3.2), (0.01, 0, 3.1), (0.02, 0, 3.0), (0.04, 0, 2.9), (0.04, 1, math.inf)])
    assert one_of_two.best == 0.02, "a rate at which a seed diverged is none to take"


def test_doubts_are_said() -> None:
    flat = read((0.01, 0.02, 0.04), [3.001, 3.0, 3.001])
    assert [line for line in flat.warnings if "end of the grid" in line] == [
        "the flat part reaches the lower end of the grid: measure 0.005, it may be as good",
        "the flat part reaches the upper end of the grid: measure 0.08, it may be as good",
    ]
    coarse = read((0.005, 0.02, 0.08), [3.1, 3.0, 3.1])
    assert any("a factor of 4 away" in line for line in coarse.warnings)
    assert not any("factor of" in line for line in read(RATES, parabola(RATES, 0.02)).warnings)
    noise = read(RATES, [3.0, 3.1, 2.999, 3.1, 2.9995])
    assert noise.vertex is None or any("valley" in line or "far from" in line for line in noise.warnings)


# ---- transfer --------------------------------------------------------------------------------------------------------

PROXY = Setup("the proxy", 256, 4, 3_000_000, 2048, 800_000)


def target(width: float = 1, layers: int = 4, batch: int = 1, tokens: int = 1, parameters: int = 1) -> Setup:
    return Setup("t", round(256 * width), layers, 3_000_000 * parameters, 2048 * batch, 800_000 * tokens)


def optim(kind: str, **options: object) -> OptimizerConfig:
    return validate(optimizers.get(kind), {"kind": kind, **options})


def rates(found: Transfer) -> dict[str, float]:
    return {quantity.option.removeprefix("optim."): quantity.target for quantity in found.quantities}


def test_the_same_set_up_keeps_every_rate() -> None:
    found = transfer(PROXY, PROXY, optim("muon", weight_decay=0.1, vector_lr=0.003), {"optim.lr": 0.025})
    assert rates(found) == pytest.approx({"lr": 0.025, "weight_decay": 0.1, "embedding_lr": 0.005, "vector_lr": 0.003})
    assert found.warnings == ()
    assert overrides(found)[0] == "optim.lr=0.025"


def test_width_for_muon_in_both_conventions() -> None:
    original = rates(transfer(PROXY, target(width=4), optim("muon", weight_decay=0.1), {"optim.lr": 0.02}))
    assert original == pytest.approx({"lr": 0.02, "weight_decay": 0.1, "embedding_lr": 0.0025, "vector_lr": 0.005})
    matched = optim("muon", adjust="match_rms_adamw", weight_decay=0.1)
    found = rates(transfer(PROXY, target(width=4), matched, {"optim.lr": 0.002}))
    assert found["lr"] == pytest.approx(0.001)
    # Witness: the size of the update itself, as the optimizer scales it, is the same by either way.
    from inlay.train.optimizers.muon import adjustment

    before = adjustment("match_rms_adamw", 256, 256) * 0.002 / adjustment("original", 256, 256)
    after = adjustment("match_rms_adamw", 1024, 1024) * found["lr"] / adjustment("original", 1024, 1024)
    assert after == pytest.approx(before)
    assert found["weight_decay"] * found["lr"] == pytest.approx(0.1 * 0.002), "rate x decay has changed"


def test_width_for_adamw_is_llama_3s_reading() -> None:
    """3e-4 at a width of 4,096 gives 1.5e-4 at 8,192 and 8e-5 (rounded) at 16,384."""
    proxy = Setup("p", 4096, 32, 10**9, 2**22, 10**12)
    for width, expected in ((8192, 1.5e-4), (16384, 7.5e-5)):
        wide = Setup("t", width, 32, 10**9, 2**22, 10**12)
        found = rates(transfer(proxy, wide, optim("adamw", weight_decay=0.1), {"optim.lr": 3e-4}))
        assert found["lr"] == pytest.approx(expected)
        assert found["embedding_lr"] == pytest.approx(3e-4 * (4096 / width) ** 0.5)
        assert found["lr"] * found["weight_decay"] == pytest.approx(3e-4 * 0.1)
    assert any("gains and biases share" in line for line in transfer(proxy, wide, optim("adamw"), {}).warnings)


def test_batch_and_tokens() -> None:
    found = rates(transfer(PROXY, target(batch=4, tokens=10), optim("muon", weight_decay=0.1), {"optim.lr": 0.02}))
    assert found["lr"] == pytest.approx(0.04)
    assert found["weight_decay"] == pytest.approx(0.1 * 2 / 10)
    # What 2405.13698 keeps: rate x decay x steps, the memory of the weights in epochs.
    steps_before, steps_after = 800_000 / 2048, 8_000_000 / 8192
    assert found["lr"] * found["weight_decay"] * steps_after == pytest.approx(0.02 * 0.1 * steps_before)
    assert tokens_per_step(2048, 10**6, 10**9) == pytest.approx(2048 * 1000**0.383)
    assert tokens_per_step(2048, 10**6, 10**6) == 2048


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (target(width=8.5, parameters=1), "width x8.5"),
        (target(width=1 / 9), "width x0.109"),
        (target(layers=12), "depth x3"),
        (target(batch=16), "tokens per step x16"),
        (target(tokens=3), "tokens per parameter"),
        (target(tokens=10, parameters=30), "tokens per parameter"),
    ],
)
def test_extrapolation_is_said(setup: Setup, message: str) -> None:
    (line,) = transfer(PROXY, setup, optim("muon"), {}).warnings
    assert message in line
    near = target(width=8, layers=8, batch=8, tokens=20, parameters=10)
    assert transfer(PROXY, near, optim("muon"), {}).warnings == ()


def test_each_factor_has_a_source_and_the_product_is_the_target() -> None:
    found = transfer(
        PROXY, target(width=2, batch=2, tokens=4), optim("adamw", head_lr=0.01), {"optim.embedding_lr": 0.02}
    )
    for quantity in found.quantities:
        assert all(factor.source and factor.rule for factor in quantity.factors)
        assert quantity.target == pytest.approx(quantity.proxy * math.prod(one.value for one in quantity.factors))
    assert {quantity.option for quantity in found.quantities} >= {"optim.embedding_lr", "optim.head_lr", "optim.lr"}
    assert next(one.proxy for one in found.quantities if one.option == "optim.embedding_lr") == 0.02
    for wrong in ("model.width", "optim.momentum_lr"):
        with pytest.raises(BadInput, match="no rule transfers it"):
            transfer(PROXY, PROXY, optim("adamw"), {wrong: 1.0})
