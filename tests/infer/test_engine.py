"""The engine against a witness without a cache: one forward pass over the whole text per token."""

import time

import pytest
import torch
from tests.tiny_run import SENTENCES, tiny_opened

from inlay.config import BadInput
from inlay.infer.engine import Engine, Generation
from inlay.infer.open import Opened
from inlay.infer.sampling import SamplingConfig
from inlay.model.cache import Cache
from inlay.model.decode_step import DecodeStep

BUDGET = 12


@pytest.fixture(scope="module")
def prompts(opened: Opened) -> list[list[int]]:
    """Prompts of many lengths, in both orders."""
    made = []
    for count, text in enumerate(SENTENCES * 4):
        ids = opened.tokenizer.encode(text)[: 2 + 4 * count]
        half = len(ids) // 2
        made.append(opened.fim_format.prompt(ids[:half], ids[half:], "psm" if count % 2 else "spm"))
    return made


def last_logits(opened: Opened, ids: list[int]) -> torch.Tensor:
    tokens = torch.tensor([ids])
    hidden = opened.model(tokens, torch.arange(len(ids))[None])
    return opened.model.logits(hidden)[0, -1, : opened.tokenizer.vocab_size]


def witness(
    opened: Opened, prompt: list[int], stop_ids: frozenset[int], budget: int
) -> tuple[list[int], bool, list[float]]:
    ids: list[int] = []
    logprobs = []
    while True:
        scores = torch.log_softmax(last_logits(opened, [*prompt, *ids]), dim=-1)
        token = int(scores.argmax())
        if token in stop_ids or len(ids) == budget:
            return ids, token in stop_ids, logprobs
        ids.append(token)
        logprobs.append(float(scores[token]))


def stopping_engine(opened: Opened, prompts: list[list[int]], **options: int) -> Engine:
    """An engine that also stops at ids which this untrained model likes, so that rows end at many different steps."""
    engine = Engine(opened, **options)
    free = Engine(opened).generate(prompts, max_tokens=BUDGET)
    liked = {generation.ids[at] for at, generation in enumerate(free) if at < len(generation.ids)}
    engine.stop_ids = opened.fim_format.stop_ids | frozenset(sorted(liked)[:6])
    return engine


def same(left: Generation, right: Generation) -> None:
    assert (left.ids, left.text, left.stopped) == (right.ids, right.text, right.stopped)
    assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)
    assert left.eot_logprob == pytest.approx(right.eot_logprob, abs=1e-4)


def test_greedy_equals_the_witness_without_a_cache(opened: Opened, prompts: list[list[int]]) -> None:
    engine = stopping_engine(opened, prompts, slice_tokens=48)
    generations = engine.generate(prompts, max_tokens=BUDGET)
    ends = set()
    for prompt, generation in zip(prompts, generations, strict=True):
        ids, stopped, logprobs = witness(opened, prompt, engine.stop_ids, BUDGET)
        assert list(generation.ids) == ids
        assert (generation.stopped != "limit") == stopped
        assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)
        ends.add(len(ids))
    assert len(ends) > 2, "the rows must end at different steps, or leaving the batch is not tested"


def test_batch_equals_one_by_one(opened: Opened, prompts: list[list[int]]) -> None:
    engine = stopping_engine(opened, prompts)
    together = engine.generate(prompts, max_tokens=BUDGET)
    for prompt, generation in zip(prompts, together, strict=True):
        same(generation, engine.generate([prompt], max_tokens=BUDGET)[0])


def test_the_budget_counts_text_and_the_terminator_may_follow(opened: Opened, prompts: list[list[int]]) -> None:
    engine = Engine(opened)
    free = engine.generate(prompts[:1], max_tokens=BUDGET)[0]
    position = next(at for at in range(1, BUDGET) if free.ids[at] not in free.ids[:at])
    engine.stop_ids = frozenset({free.ids[position]})
    exactly = engine.generate(prompts[:1], max_tokens=position)[0]
    assert exactly.ids == free.ids[:position]
    assert exactly.stopped == "sentinel"
    shorter = engine.generate(prompts[:1], max_tokens=position - 1 or 1)[0]
    assert shorter.stopped == ("limit" if position > 1 else "sentinel")


def test_references_are_scored_and_leave_no_trace(opened: Opened, prompts: list[list[int]]) -> None:
    engine = Engine(opened)
    references = [opened.tokenizer.encode(text[: 3 * at]) for at, text in enumerate(SENTENCES * 4)]
    plain = engine.generate(prompts, max_tokens=BUDGET)
    scored = engine.generate(prompts, max_tokens=BUDGET, references=references)
    for prompt, reference, before, after in zip(prompts, references, plain, scored, strict=True):
        same(before, after)
        assert after.reference_logprobs is not None
        assert len(after.reference_logprobs) == len(reference) + 1
        whole = [*prompt, *reference, opened.fim_format.eot]
        hidden = opened.model(torch.tensor([whole]), torch.arange(len(whole))[None])
        logits = opened.model.logits(hidden)[0, :, : opened.tokenizer.vocab_size]
        scores = torch.log_softmax(logits, dim=-1)
        expected = [float(scores[at - 1, whole[at]]) for at in range(len(prompt), len(whole))]
        assert after.reference_logprobs == pytest.approx(expected, abs=1e-4)


def test_sampling_depends_on_seed_and_index_but_not_on_the_batch(opened: Opened, prompts: list[list[int]]) -> None:
    sampling = SamplingConfig(temperature=0.9, top_k=20, top_p=0.95, seed=3)
    wide = Engine(opened).generate(prompts, max_tokens=BUDGET, sampling=sampling)
    narrow = Engine(opened, batch_rows=2).generate(prompts, max_tokens=BUDGET, sampling=sampling)
    for one, other in zip(wide, narrow, strict=True):
        same(one, other)
    again = Engine(opened).generate(prompts, max_tokens=BUDGET, sampling=sampling.model_copy(update={"seed": 4}))
    assert [g.ids for g in again] != [g.ids for g in wide]
    twins = Engine(opened).generate([prompts[0]] * 4, max_tokens=BUDGET, sampling=sampling)
    assert len({g.ids for g in twins}) > 1, "the same prompt at another index is another draw"


def test_a_deadline_ends_everything_with_what_it_has(opened: Opened, prompts: list[list[int]]) -> None:
    generations = Engine(opened).generate(prompts, max_tokens=BUDGET, deadline=time.monotonic() - 1.0)
    assert {g.stopped for g in generations} <= {"deadline", "eot", "sentinel"}
    assert all(not g.ids for g in generations)


def test_the_padded_vocabulary_is_never_chosen(opened: Opened, prompts: list[list[int]]) -> None:
    sampling = SamplingConfig(temperature=5.0)
    generations = Engine(opened).generate(prompts, max_tokens=40, sampling=sampling)
    assert max(max(g.ids, default=0) for g in generations) < opened.tokenizer.vocab_size


@pytest.mark.parametrize(
    ("prompt", "budget", "message"),
    [([], 4, "empty"), ([1] * 200, 4, "trained context of 128"), ([1], 0, "at least 1")],
)
def test_bad_prompts_are_refused(opened: Opened, prompt: list[int], budget: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Engine(opened).generate([prompt], max_tokens=budget)


def test_one_row_takes_the_short_way(  # type: ignore[no-untyped-def]
    tokenizer, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, and as the last of a batch; a model in training decodes as a batch does. All the same text."""
    steps, call = [], DecodeStep.__call__

    def counted(self: DecodeStep, token: torch.Tensor, cache: Cache) -> torch.Tensor:
        steps.append(len(token))
        return call(self, token, cache)

    monkeypatch.setattr(DecodeStep, "__call__", counted)
    training = tiny_opened(tokenizer)
    training.model.requires_grad_(True)
    slow, fast = Engine(training), Engine(tiny_opened(tokenizer))
    expected = slow.generate(prompts, max_tokens=BUDGET)
    assert not steps
    alone = [fast.generate([prompt], max_tokens=BUDGET)[0] for prompt in prompts]
    assert steps == [1] * sum(len(generation.ids) for generation in expected)
    together = stopping_engine(training, prompts).generate(prompts, max_tokens=BUDGET)
    ended = stopping_engine(fast.opened, prompts)
    steps.clear()
    for one, other in zip(ended.generate(prompts, max_tokens=BUDGET), together, strict=True):
        same(one, other)
    assert 0 < len(steps) < BUDGET, "one row must be the last, or its way out of a batch is not tested"
    for one, other in zip(alone, expected, strict=True):
        same(one, other)


def test_bfloat16_runs(tokenizer, prompts: list[list[int]]) -> None:  # type: ignore[no-untyped-def]
    half = tiny_opened(tokenizer)
    half.model.blocks.to(torch.bfloat16)
    half.model.compute_dtype = torch.bfloat16
    generations = Engine(half).generate(prompts, max_tokens=4)
    assert all(torch.isfinite(torch.tensor(g.logprobs)).all() for g in generations)


def test_draws_are_named_by_keys_and_not_by_places(opened: Opened, prompts: list[list[int]]) -> None:
    sampling = SamplingConfig(temperature=0.9, top_p=0.95, seed=3)
    keys = [f"example {index}" for index in range(len(prompts))]
    engine = Engine(opened)
    straight = engine.generate(prompts, max_tokens=BUDGET, sampling=sampling, keys=keys)
    turned = engine.generate(prompts[::-1], max_tokens=BUDGET, sampling=sampling, keys=keys[::-1])
    part = Engine(opened, batch_rows=3).generate(prompts[4:], max_tokens=BUDGET, sampling=sampling, keys=keys[4:])
    for one, other in zip(straight, turned[::-1], strict=True):
        same(one, other)
    for one, other in zip(straight[4:], part, strict=True):
        same(one, other)
    assert [g.ids for g in straight] != [
        g.ids for g in engine.generate(prompts, max_tokens=BUDGET, sampling=sampling, keys=[f"x{key}" for key in keys])
    ]


def test_equal_prompts_are_prefilled_once_and_unequal_references_are_kept(
    opened: Opened, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = SamplingConfig(temperature=0.9, seed=3)
    repeated = [prompt for prompt in prompts for _ in range(3)]
    keys = [f"{index // 3} {index % 3}" for index in range(len(repeated))]
    references = [opened.tokenizer.encode(SENTENCES[index % 2][:9]) for index in range(len(repeated))]
    expected = [
        Engine(opened).generate([prompt], max_tokens=BUDGET, sampling=sampling, keys=[key], references=[reference])[0]
        for prompt, key, reference in zip(repeated, keys, references, strict=True)
    ]
    computed, prefill = [], Engine.prefill

    def counted(self: Engine, cache: Cache, batch: list[list[int]]) -> torch.Tensor:
        computed.append(len(batch))
        return prefill(self, cache, batch)

    monkeypatch.setattr(Engine, "prefill", counted)
    made = Engine(opened).generate(repeated, max_tokens=BUDGET, sampling=sampling, keys=keys, references=references)
    assert sum(computed) == 2 * len(prompts), "each prompt has two different references"
    for one, other in zip(made, expected, strict=True):
        same(one, other)
        assert one.reference_logprobs == pytest.approx(other.reference_logprobs, abs=1e-4)
    computed.clear()
    Engine(opened).generate(repeated, max_tokens=1, sampling=sampling)
    assert sum(computed) == len(prompts)


def test_scores_equal_one_pass_over_the_whole_row(
    opened: Opened, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inlay.infer import engine as module

    monkeypatch.setattr(module, "SCORED_TOKENS", 300)
    monkeypatch.setattr(module, "LOGIT_ROWS", 7)
    firsts = [1 + 5 * index % len(prompt) for index, prompt in enumerate(prompts)]
    found = dict(Engine(opened).score(prompts, firsts))
    assert sorted(found) == list(range(len(prompts)))
    for index, (row, first) in enumerate(zip(prompts, firsts, strict=True)):
        hidden = opened.model(torch.tensor([row]), torch.arange(len(row))[None])
        scores = torch.log_softmax(opened.model.logits(hidden)[0, :, : opened.tokenizer.vocab_size], dim=-1)
        expected = [float(scores[at - 1, row[at]]) for at in range(first, len(row))]
        assert found[index] == pytest.approx(expected, abs=1e-4)
    assert list(Engine(opened).score([], [])) == []


def test_bad_rows_to_score_are_refused(opened: Opened) -> None:
    with pytest.raises(BadInput, match="row 1 has 129 tokens"):
        list(Engine(opened).score([[1, 2], [1] * 129], [1, 1]))
    with pytest.raises(ValueError, match="from 0 on"):
        list(Engine(opened).score([[1, 2]], [0]))
