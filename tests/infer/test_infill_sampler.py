"""The infill sampler's rule against cases worked out by hand from its description."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_opened, tiny_tokenizer

from inlay.export.gguf import export_gguf
from inlay.export.llama_server import LlamaServer
from inlay.infer.engine import Engine
from inlay.infer.infill_sampler import InfillSampler
from inlay.infer.open import Opened
from inlay.infer.sampling import SamplingConfig
from inlay.text.tokenizer import Tokenizer

TOKENIZER = tiny_tokenizer()
EOT = TOKENIZER.special["<|endoftext|>"]
OTHER_END = TOKENIZER.special["<|fim_pad|>"]
STOPS = frozenset({EOT, OTHER_END})


def byte(name: str) -> int:
    (token,) = TOKENIZER.encode(name)
    return token


def left(shares: dict[int, float], sampling: SamplingConfig | None = None) -> dict[int, float]:
    """What is left of these tokens' probabilities; without `sampling` all of them are candidates, and no other is."""
    sampling = sampling or SamplingConfig(top_k=len(shares), top_p=1.0)
    logits = torch.full((1, TOKENIZER.vocab_size), -30.0)
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
    assert left({first: 0.3, word: 0.25, byte("Q"): 0.45}) == pytest.approx({first: 0.3, byte("Q"): 0.45})
    assert left({first: 0.25, word: 0.3, byte("Q"): 0.45}) == pytest.approx({word: 0.3, byte("Q"): 0.45})
    # Apart both would be below 0.2; together they pass, at the likelier.
    assert left({first: 0.15, word: 0.1, byte("Q"): 0.75}) == pytest.approx({byte("Q"): 0.75})
    assert left({first: 0.15, word: 0.19, byte("Q"): 0.66}) == pytest.approx({word: 0.19, byte("Q"): 0.66})


def test_small_text_is_dropped_and_the_terminator_is_what_remains() -> None:
    many = {byte(name): 0.1 for name in "QWXYZ@#$%!"}
    assert list(left(many)) == [EOT]
    # Above 0.2, but then below 1 / (1 + 3 candidates) of the rest: .22 / 1 < .25.
    three = {byte("Q"): 0.52, byte("W"): 0.26, byte("X"): 0.22}
    assert left(three) == pytest.approx({byte("Q"): 0.52, byte("W"): 0.26})
    # The ends have their share of the rest: .32 of .95 is a third, of 1 it is not.
    assert list(left({byte("Q"): 0.63, byte("W"): 0.32, EOT: 0.05})) == sorted([byte("Q"), EOT])


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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_llama_cpp_leaves_the_same_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Its server says what its samplers left, and how likely each of them is to be drawn."""
    pytest.importorskip("xllamacpp")
    opened = tiny_opened(tokenizer)
    opened.model.head_weight.data[opened.fim_format.eot] *= -2.5  # it ends now and then
    file = tmp_path / "model.gguf"
    export_gguf(opened, file, "f32")
    engine = Engine(opened)
    rule = InfillSampler(opened.tokenizer, engine.stop_ids, opened.fim_format.eot)
    kinds = set()
    with LlamaServer(file, opened.sequence_length, threads=1) as server, torch.inference_mode():
        for number in range(120):
            text = SENTENCES[number % 3]
            ids = opened.tokenizer.encode(text[number // 3 : number // 3 + 5 + number % 11])
            prompt = opened.fim_format.prompt(ids, [], "psm")
            sampling = [SamplingConfig(), SamplingConfig(top_k=3, top_p=1.0)][number % 2]
            request = {"top_k": sampling.top_k or 40, "top_p": sampling.top_p or 0.9, "n_probs": 60, "n_predict": 1}
            request |= {"prompt": prompt, "samplers": ["top_k", "top_p", "infill"], "post_sampling_probs": True}
            (reply,) = server.post("/completion", request)["completion_probabilities"]
            theirs = {one["id"]: one["prob"] for one in reply["top_probs"] if one["prob"] > 0.0}
            narrowed = rule.narrow(engine.prefill(engine.new_cache(1, 64), [prompt]), sampling)[0].double()
            shares = torch.softmax(narrowed, dim=-1)
            assert theirs == pytest.approx(
                {t: float(shares[t]) for t in (shares > 0).nonzero()[:, 0].tolist()}, abs=1e-3
            )
            kinds.add((len(theirs) > 1, bool(set(theirs) & engine.stop_ids)))
    assert {(True, False), (False, False), (False, True)} <= kinds
