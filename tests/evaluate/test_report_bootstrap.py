"""Intervals against a loop over resampled documents, a closed form, and the coverage that they claim."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.report_runs import slots

from inlay.evaluate.report_bootstrap import difference_interval, loss_interval, mean_of, ratio_interval
from inlay.evaluate.report_sums import FILE, Sums, read_validation, sums_by_document, validation_record


def read(folder: Path, **kinds: dict[str, np.ndarray]) -> dict[str, Sums]:
    """What a reader finds of validations with these slots."""
    entries = {name: sums_by_document(**made) for name, made in kinds.items()}
    ids = [f"doc{number}" for number in range(40)]
    (folder / FILE).write_text(json.dumps(validation_record(7, 70, "s", 128, 24, ids, entries)))
    found = read_validation(folder)
    assert found is not None
    assert (found.step, found.store, found.length, found.rows) == (7, "s", 128, 24)
    return found.kinds


def test_sums_are_those_of_the_slots(tmp_path: Path) -> None:
    made = slots(2.0)
    made["chosen"] = np.random.default_rng(1).random(len(made["nats"])) < 0.6
    sums = read(tmp_path, l2r=made)["l2r"]
    chosen, text = made["chosen"], made["chosen"] & made["text"]
    assert sums.nats_per_token == pytest.approx(made["nats"][chosen].mean())
    expected = made["nats"][text].sum() / (math.log(2) * made["sizes"][text].sum())
    assert sums.bits_per_byte == pytest.approx(expected)
    for at, document in enumerate(sums.documents):
        own = chosen & (made["documents"] == int(document.removeprefix("doc")))
        assert sums.targets[at] == own.sum()
        assert sums.nats[at] == pytest.approx(made["nats"][own].sum())


def test_the_digest_is_of_what_was_asked(tmp_path: Path) -> None:
    made, other = slots(2.0), slots(2.5)
    kinds = read(tmp_path, a=made, b=other, c=slots(2.0, asked=1))
    assert kinds["a"].digest == kinds["b"].digest, "the model's losses play no part"
    assert kinds["a"].digest != kinds["c"].digest
    moved = {**made, "documents": np.roll(made["documents"], 1)}
    assert read(tmp_path, d=moved)["d"].digest != kinds["a"].digest
    with pytest.raises(ValueError, match="no slot"):
        sums_by_document(**{**made, "chosen": np.zeros(len(made["nats"]), dtype=bool)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace('"version": 1', '"version": 99'),
        lambda text: text.replace('"bytes": [', '"bytes": [1, '),
        lambda text: re.sub(r'"nats": \[[^,]+', '"nats": [NaN', text, count=1),
        lambda text: text.replace('"documents": [0,', '"documents": [4000,'),
    ],
)
def test_a_damaged_file_is_no_file(tmp_path: Path, damage: object) -> None:
    read(tmp_path, l2r=slots(2.0))
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(damage(text))  # type: ignore[operator]
    assert read_validation(tmp_path) is None


def loop(values: list[float], weights: list[float], resamples: int) -> tuple[float, float]:
    """The percentile bootstrap as its definition says, one drawing at a time."""
    generator = random.Random(5)
    count = len(values)
    ratios = []
    for _ in range(resamples):
        drawn = [generator.randrange(count) for _ in range(count)]
        ratios.append(sum(values[at] for at in drawn) / sum(weights[at] for at in drawn))
    ratios.sort()
    return ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]


def test_against_the_definition_and_the_closed_form() -> None:
    draws = np.random.default_rng(3)
    weights = draws.integers(20, 400, 60).astype(float)
    values = weights * draws.normal(2.0, 0.3, 60)
    found = ratio_interval(values, weights, 4000)
    assert found is not None
    assert found.documents == 60
    low, high = loop(values.tolist(), weights.tolist(), 4000)
    assert found.value == pytest.approx(values.sum() / weights.sum())
    assert (found.low, found.high) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))
    # The delta method's standard error of a ratio (Cochran 1977, section 6.4).
    residual = values - found.value * weights
    error = math.sqrt(60 / 59 * float((residual**2).sum())) / float(weights.sum())
    assert found.half == pytest.approx(1.96 * error, rel=0.08)


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(11)
    rate, covered, rounds = 2.0, 0, 400
    for _ in range(rounds):
        weights = draws.integers(50, 300, 40).astype(float)
        values = weights * (rate + draws.normal(0.0, 0.4, 40))
        found = ratio_interval(values, weights)
        assert found is not None
        covered += found.low <= rate <= found.high
    assert 0.90 <= covered / rounds <= 0.98


def test_pairing_takes_out_what_is_hard_for_both(tmp_path: Path) -> None:
    kinds = read(tmp_path, a=slots(2.0), b=slots(2.05), other=slots(2.0, asked=3))
    for unit, scale in (("nats", 1.0), ("bits_per_byte", 0.46)):
        paired = difference_interval(kinds["b"], kinds["a"], unit)
        alone = loss_interval(kinds["a"], unit)
        assert paired is not None
        assert alone is not None
        assert paired.half < 0.2 * alone.half
        assert paired.clear
        assert paired.value == pytest.approx(0.05 * scale, abs=0.02)
    nothing = difference_interval(kinds["a"], kinds["a"], "nats")
    assert nothing is not None
    assert (nothing.low, nothing.value, nothing.high, nothing.clear) == (0.0, 0.0, 0.0, False)
    with pytest.raises(ValueError, match="not paired"):
        difference_interval(kinds["other"], kinds["a"], "nats")
    with pytest.raises(ValueError, match="no mean"):
        mean_of([kinds["other"], kinds["a"]])
    both = mean_of([kinds["a"], kinds["b"]])
    assert both.nats_per_token == pytest.approx((kinds["a"].nats_per_token + kinds["b"].nats_per_token) / 2)


@given(
    st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(1, 500)), min_size=2, max_size=30),
    st.floats(0.1, 10.0),
)
def test_laws(documents: list[tuple[float, int]], factor: float) -> None:
    values, weights = (np.array(column, dtype=np.float64) for column in zip(*documents, strict=True))
    found = ratio_interval(values, weights, 200)
    assert found is not None
    rates = values / weights
    slack = 1e-9 * float(rates.max())
    assert rates.min() - slack <= found.low <= found.high <= rates.max() + slack
    again = ratio_interval(factor * values, weights, 200)
    assert again is not None
    assert (again.low, again.high) == (pytest.approx(factor * found.low), pytest.approx(factor * found.high))
    padded = ratio_interval(np.append(values, 0.0), np.append(weights, 0.0), 200)
    assert padded == found, "a document without weight is none"
    assert ratio_interval(values[:1], weights[:1]) is None
