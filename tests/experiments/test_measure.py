import copy
import math
from pathlib import Path

import pytest
import torch
from experiments.gaps import Category, Gap, draw_gaps
from experiments.measure import ORDERS, PLAIN, bits_per_byte, generated, left_to_right, pool, teacher_forced
from tests.tiny_run import tiny_config, tiny_model

from experiments import measure
from inlay.data.loader import Rows
from inlay.fim.transform import FimConfig
from inlay.infer.engine import Engine, Generation
from inlay.infer.open import Opened, in_memory
from inlay.text.store import TokenStore

CATEGORIES = (Category("token", 1, 3, 8), Category("inside", 3, 8, 8))


@pytest.fixture(scope="module")
def opened(store: Path) -> Opened:
    tokenizer = TokenStore.open(store).tokenizer
    return in_memory(tiny_model(tokenizer.vocab_size), tokenizer, tiny_config(), step=0)


@pytest.fixture(scope="module")
def gaps(store: Path, opened: Opened) -> list[Gap]:
    return draw_gaps(TokenStore.open(store).split("validation"), opened.tokenizer, CATEGORIES, (4, 20))


def test_losses_equal_those_of_decoding_with_a_cache(opened: Opened, gaps: list[Gap]) -> None:
    found = teacher_forced(opened.model, opened.fim_format, gaps, ORDERS)
    for order in ORDERS:
        prompts = [opened.fim_format.prompt(gap.prefix, gap.suffix, order) for gap in gaps]
        scored = Engine(opened).generate(prompts, max_tokens=1, references=[gap.middle for gap in gaps])
        nats = [[-value for value in made.reference_logprobs or ()] for made in scored]
        sums = pool(found, order)
        assert sums["n"] == len(gaps)
        assert sums["tokens"] == sum(len(gap.middle) for gap in gaps)
        assert sums["bytes"] == sum(len(opened.tokenizer.decode_bytes(gap.middle)) for gap in gaps)
        assert sums["nats"] == pytest.approx(sum(sum(one[:-1]) for one in nats), rel=1e-4)
        assert sums["first_nats"] == pytest.approx(sum(one[0] for one in nats), rel=1e-4)
        assert sums["end_nats"] == pytest.approx(sum(one[-1] for one in nats), rel=1e-4)


def test_stops_equal_those_of_one_example_at_a_time(opened: Opened, gaps: list[Gap]) -> None:
    form, model = copy.copy(opened.fim_format), opened.model
    form.stop_ids = frozenset(range(0, opened.tokenizer.vocab_size, 3))  # so that many a choice is one
    some: dict[str, set[float]] = {"ends": set(), "early": set(), "first_right": set()}
    for order in (*ORDERS, PLAIN):
        for category in CATEGORIES:
            own = [gap for gap in gaps if gap.category == category.name]
            slow = {"ends": 0, "early": 0, "right": 0, "first_right": 0}
            nats = 0.0
            for gap in own:
                prompt = list(gap.prefix) if order == PLAIN else form.prompt(gap.prefix, gap.suffix, order)  # type: ignore[arg-type]
                ids = torch.tensor([prompt + gap.middle])
                with torch.no_grad():
                    logits = model.logits(model(ids, torch.arange(ids.shape[1])[None]))[0, len(prompt) - 1 :]
                choice = logits.argmax(dim=-1).tolist()
                stops = [token in form.stop_ids for token in choice]
                slow["ends"] += stops[-1]
                slow["early"] += any(stops[:-1])
                slow["right"] += stops[-1] and not any(stops[:-1])
                slow["first_right"] += choice[0] == gap.middle[0]
                nats -= float(torch.log_softmax(logits[:-1], -1)[range(len(gap.middle)), gap.middle].sum())
            sums = teacher_forced(model, form, gaps, [order])[order][category.name]
            assert {name: sums[name] for name in slow} == slow
            assert sums["nats"] == pytest.approx(nats, rel=1e-4)
            for name, values in some.items():
                values.add(sums[name])
    assert any(0 < value < 8 for value in some["ends"])
    assert any(value > 0 for value in some["early"])


def test_gold_completions_are_perfect(
    store: Path, opened: Opened, gaps: list[Gap], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = TokenStore.open(store).split("validation")

    def answers(extra: int, stopped: str) -> None:
        def generate(self: Engine, prompts: list[list[int]], *, max_tokens: int) -> list[Generation]:
            return [
                Generation(
                    tuple(gap.middle + gap.middle[:1] * extra),
                    opened.tokenizer.decode(gap.middle) if extra == 0 else ")(",
                    stopped,  # type: ignore[arg-type]
                    (),
                    0.0,
                )
                for gap in gaps
            ]

        monkeypatch.setattr(measure.Engine, "generate", generate)

    answers(0, "eot")
    perfect = pool(generated(opened, split, gaps, ["psm"], 8), "psm")
    count = float(len(gaps))
    assert perfect["judged"] == perfect["valid"] == perfect["exact"] == perfect["length_right"] == count
    assert perfect["overrun"] == perfect["short"] == 0.0
    answers(2, "eot")
    near = pool(generated(opened, split, gaps, ["psm"], 8), "psm")
    assert (near["length_right"], near["length_near"], near["overrun"]) == (0.0, count, 2.0 * count)
    assert near["exact"] == 0.0
    assert near["valid"] < count
    answers(2, "limit")
    runaway = pool(generated(opened, split, gaps, ["psm"], 8), "psm")
    assert runaway["stopped"] == runaway["length_near"] == runaway["short"] == 0.0


def test_left_to_right_counts_text_alone(store: Path, opened: Opened) -> None:
    rows = Rows(str(store), "validation", FimConfig(rate=0.0), 128, 0, 24)
    sums = left_to_right(opened.model, rows, 1000)
    split = TokenStore.open(store).split("validation")
    # The first token of every piece is input alone, so a little less than all bytes is scored.
    assert 0.85 * split.byte_count < sums["bytes"] < split.byte_count
    # A random model with a wide head is worse than a uniform guess over the vocabulary.
    tokens = split.token_count
    assert sums["nats"] > 0.8 * tokens * math.log(opened.tokenizer.vocab_size)
    assert bits_per_byte({"nats": math.log(2.0) * 6.0, "bytes": 3.0}) == pytest.approx(2.0)
