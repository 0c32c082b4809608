"""Sessions and batches of models whose layers forget (windows, shared K/V, convolutions): results equal a fresh run."""

from typing import Any

import pytest
import torch
from tests.model.members import FULL, LOCAL, MLA, model
from tests.tiny_run import tiny_config

from inlay.config import validate
from inlay.infer.engine import Engine
from inlay.infer.open import Opened, in_memory
from inlay.infer.session import Session
from inlay.model import ModelConfig, build
from inlay.model.cache import ROLLBACK
from inlay.text.tokenizer import Tokenizer

LENGTH = 700
CONV = {"kind": "short_conv", "kernel": 3}
MODELS = {
    "mixattention": model(LOCAL, LOCAL, LOCAL, FULL, repeat=1, kv_share={"kind": "pairs"}),
    "windows only": model(LOCAL),
    "lfm2": model(CONV, FULL, repeat=1),
    "mla": model(MLA, repeat=1),
}


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Engine:
    config = validate(ModelConfig, {**MODELS[request.param], "tie_embeddings": False})
    built = build(config, tokenizer.vocab_size + 16, seed=3).eval().requires_grad_(False)
    return Engine(opened(built, tokenizer))


def opened(built: Any, tokenizer: Tokenizer) -> Opened:
    return in_memory(built, tokenizer, tiny_config(LENGTH), step=1)


def text(engine: Engine, length: int, seed: int = 0) -> list[int]:
    """Ids without those that stop."""
    allowed = [token for token in range(engine.opened.tokenizer.vocab_size) if token not in engine.stop_ids]
    drawn = torch.randint(len(allowed), (length,), generator=torch.Generator().manual_seed(seed))
    return [allowed[at] for at in drawn.tolist()]


def assert_as_fresh(engine: Engine, session: Session, prompt: list[int], tokens: int = 6) -> int:
    """The session's completion is that of a fresh run; returns how many positions were computed."""
    fresh = engine.generate([prompt], max_tokens=tokens)[0]
    result = session.generate(prompt, max_tokens=tokens)
    assert result.generation.ids == fresh.ids
    assert result.generation.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
    assert result.reused + result.computed == len(prompt)
    return result.computed


def test_typing_at_the_end_computes_what_was_typed(engine: Engine) -> None:
    """Far beyond every ring, so that each keystroke goes on from one that has turned round."""
    session, ids = Session(engine), text(engine, 600)
    assert_as_fresh(engine, session, ids[:560])
    for end in (561, 563, 570, 600):
        assert assert_as_fresh(engine, session, ids[:end]) <= 31


def test_deleting_within_the_rollback_keeps_the_rest(engine: Engine) -> None:
    session, ids = Session(engine), text(engine, 600)
    assert_as_fresh(engine, session, ids)
    other = text(engine, 20, seed=1)
    back = len(ids) - ROLLBACK + 30  # the completion has taken some of what can be taken back
    assert assert_as_fresh(engine, session, [*ids[:back], *other]) == 20
    assert assert_as_fresh(engine, session, [*ids[: back - 10], *other, *other]) == 40


def test_moving_back_beyond_the_rollback_starts_anew(engine: Engine) -> None:
    """Only rings must: a cache that holds every position goes back anywhere."""
    session, ids = Session(engine), text(engine, 600)
    assert_as_fresh(engine, session, ids)
    early = [*ids[:100], *text(engine, 12, seed=2)]
    computed = assert_as_fresh(engine, session, early)
    assert computed == (len(early) if session._cache.has_rings else 12)
    # And from there as usual.
    assert assert_as_fresh(engine, session, [*early, *ids[:3]]) <= 4
    assert_as_fresh(engine, session, ids)


def test_a_walk_of_edits(engine: Engine) -> None:
    """Thirty edits anywhere: typing, deleting, moving far away and back."""
    session, ids = Session(engine), text(engine, 650)
    generator = torch.Generator().manual_seed(4)
    prompt = ids[:400]
    for step in range(30):
        cut, typed = (int(torch.randint(most, (), generator=generator)) for most in (len(prompt), 40))
        if step % 3 == 0:
            cut = len(prompt) - min(3, len(prompt) - 1)
        prompt = [*prompt[: cut + 1], *text(engine, typed, seed=100 + step)]
        if step % 7 == 6:
            prompt = ids[: 500 + step]
        assert_as_fresh(engine, session, prompt[:650], tokens=2)


def test_a_row_does_not_depend_on_its_batch(engine: Engine) -> None:
    """Prompts of every length beside each other, with scored references that are taken back again."""
    prompts = [text(engine, length, seed=length) for length in (3, 40, 270, 300, 500)]
    references = [text(engine, length, seed=length + 1) for length in (5, 0, 30, 1, 12)]
    together = engine.generate(prompts, max_tokens=8, references=references)
    for prompt, reference, batched in zip(prompts, references, together, strict=True):
        alone = engine.generate([prompt], max_tokens=8)[0]
        assert batched.ids == alone.ids
        assert batched.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        scored = engine.generate([prompt], max_tokens=1, references=[reference])[0].reference_logprobs
        assert batched.reference_logprobs == pytest.approx(scored, abs=1e-4)
        assert len(batched.reference_logprobs or ()) == len(reference) + 1
