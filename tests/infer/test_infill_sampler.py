"""The infill sampler's rule against cases worked out by hand from its description."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_tokenizer

from inlay.infer.engine import Engine
from inlay.infer.infill_sampler import InfillSampler
from inlay.infer.open import Opened
from inlay.infer.sampling import SamplingConfig

TOKENIZER = tiny_tokenizer()
EOT = TOKENIZER.special["<|endoftext|>"]
OTHER_END = TOKENIZER.special["<|fim_pad|>"]
STOPS = frozenset({EOT, OTHER_END})
ALL = SamplingConfig(temperature=1.0, top_k=TOKENIZER.vocab_size, top_p=1.0)


def byte(name: str) -> int:
    (token,) = TOKENIZER.encode(name)
    return token


def left(shares: dict[int, float], sampling: SamplingConfig = ALL) -> dict[int, float]:
    logits = torch.full((1, TOKENIZER.vocab_size), -math.inf)
    for token, share in shares.items():
        logits[0, token] = math.log(share)
    narrowed = InfillSampler(TOKENIZER, STOPS, EOT).narrow(logits, sampling)[0]
    return {token: math.exp(float(narrowed[token])) for token in torch.isfinite(narrowed).nonzero()[:, 0].tolist()}


@pytest.mark.parametrize(("share", "ends"), [(1 / 7 + 0.001, True), (1 / 7 - 0.001, False)])
def test_with_two_candidates_an_end_above_a_seventh_wins(share: float, ends: bool) -> None:
    found = left({byte("q"): 1 - share, EOT: share})
    assert (list(found) == [EOT]) == ends
    assert byte("q") not in found or not ends


@pytest.mark.parametrize(("share", "ends"), [(1 / 31 + 0.001, True), (1 / 31 - 0.001, False)])
def test_with_ten_candidates_an_end_above_a_thirty_first_wins(share: float, ends: bool) -> None:
    texts = [byte(name) for name in "QWXYZ@#$%"]
    found = left(
        {EOT: share} | {token: (1 - share) * weight for token, weight in zip(texts, [0.6] + [0.05] * 8, strict=True)}
    )
    assert (list(found) == [EOT]) == ends


def test_only_ends_are_left_and_the_likeliest_is_taken() -> None:
    found = left({byte("q"): 0.4, OTHER_END: 0.35, EOT: 0.25})
    assert found == pytest.approx({OTHER_END: 0.35, EOT: 0.25})


def test_beginnings_go_to_the_likelier() -> None:
    word = next(token for token in range(256, TOKENIZER.vocab_size) if len(TOKENIZER.decode_bytes([token])) == 2)
    (first,) = TOKENIZER.encode(TOKENIZER.decode([word])[0])
    assert left({first: 0.3, word: 0.25, byte("Q"): 0.45}) == pytest.approx({first: 0.55, byte("Q"): 0.45})
    assert left({first: 0.25, word: 0.3, byte("Q"): 0.45}) == pytest.approx({word: 0.55, byte("Q"): 0.45})


def test_small_text_is_dropped_and_the_terminator_is_what_remains() -> None:
    many = {byte(name): 0.1 for name in "QWXYZ@#$%!"}
    assert left(many) == {EOT: 1.0}
    # Above 0.2, but then below 1 / (1 + 3 candidates) of the rest: .22 / 1 < .25.
    three = {byte("Q"): 0.52, byte("W"): 0.26, byte("X"): 0.22}
    assert left(three) == pytest.approx({byte("Q"): 0.52, byte("W"): 0.26})


def test_top_k_and_top_p_come_first() -> None:
    """Their candidates alone are counted: 0.12 of 0.72 is more than 1/7 of two, where four would need 1/13."""
    shares = {byte("Q"): 0.86, EOT: 0.08, byte("W"): 0.03, byte("X"): 0.03}
    assert list(left(shares)) == [EOT]
    assert byte("Q") in left(shares, SamplingConfig(top_k=2))
    # 0.9 is the rule's own top_p: what lies behind it never counts.
    sure = {byte("Q"): 0.91, EOT: 0.07} | {byte(name): 0.005 for name in "WXYZ"}
    assert list(left(sure)) == [EOT]
    assert list(left(sure, SamplingConfig())) == [byte("Q")]


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=12))
def test_something_is_always_left(weights: list[float]) -> None:
    tokens = [EOT, OTHER_END, *range(97, 107)][: len(weights)]
    shares = {token: weight / sum(weights) for token, weight in zip(tokens, weights, strict=True)}
    found = left(shares)
    assert found
    assert set(found) <= {*shares, EOT}
    assert sum(found.values()) <= 1.0 + 1e-6


def test_the_engine_follows_it(opened: Opened) -> None:
    """Its greedy text is that of the rule step by step, on logits without a cache."""
    texts = [text[at : at + 9] for text in SENTENCES for at in range(0, 60, 6)]
    prompts = [opened.fim_format.prompt(opened.tokenizer.encode(text), [], "psm") for text in texts]
    engine = Engine(opened)
    rule = InfillSampler(opened.tokenizer, engine.stop_ids, opened.fim_format.eot)
    made = engine.generate(prompts, max_tokens=5, infill_sampler=True)
    for prompt, generation in zip(prompts, made, strict=True):
        ids: list[int] = []
        while len(ids) < 5:
            row = torch.tensor([[*prompt, *ids]])
            hidden = opened.model(row, torch.arange(row.shape[1])[None])
            logits = opened.model.logits(hidden)[:, -1, : opened.tokenizer.vocab_size]
            token = int(rule.narrow(logits, SamplingConfig()).argmax())
            if token in engine.stop_ids:
                break
            ids.append(token)
        assert list(generation.ids) == ids
    assert [generation.ids for generation in made] != [g.ids for g in engine.generate(prompts, max_tokens=5)]
