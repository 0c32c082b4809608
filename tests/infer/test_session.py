import pytest
from tests.tiny_run import SENTENCES

from inlay.config import BadInput
from inlay.infer.engine import Engine
from inlay.infer.open import Opened
from inlay.infer.session import Session, common_prefix


def prompts_of_typing(opened: Opened, order: str) -> list[list[int]]:
    """The prompts an editor sends while somebody types, deletes, and moves elsewhere."""
    text = SENTENCES[0]
    states = [(text[:at], text[60:]) for at in (30, 31, 33, 38, 35, 50)] + [(SENTENCES[1], SENTENCES[2][:20])]
    encode = opened.tokenizer.encode
    return [opened.fim_format.prompt(encode(p), encode(s), order) for p, s in states]  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["spm", "psm"])
def test_a_session_gives_what_a_fresh_run_gives(opened: Opened, order: str) -> None:
    engine = Engine(opened)
    session = Session(engine)
    for prompt in prompts_of_typing(opened, order):
        fresh = engine.generate([prompt], max_tokens=10)[0]
        result = session.generate(prompt, max_tokens=10)
        assert result.generation.ids == fresh.ids
        assert result.generation.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
        assert result.reused + result.computed == len(prompt)


def test_typing_recomputes_few_tokens_in_spm_and_the_suffix_in_psm(opened: Opened) -> None:
    computed = {}
    for order in ("spm", "psm"):
        session = Session(Engine(opened))
        results = [session.generate(prompt, max_tokens=4) for prompt in prompts_of_typing(opened, order)[:4]]
        assert results[0].reused == 0
        computed[order] = sum(result.computed for result in results[1:])
    assert computed["spm"] < computed["psm"] / 3


def test_the_same_prompt_again_computes_one_token(opened: Opened) -> None:
    session = Session(Engine(opened))
    prompt = prompts_of_typing(opened, "spm")[0]
    first = session.generate(prompt, max_tokens=8)
    second = session.generate(prompt, max_tokens=8)
    assert second.computed == 1
    assert second.generation.ids == first.generation.ids


def test_accepting_a_completion_reuses_what_was_generated(opened: Opened) -> None:
    session = Session(Engine(opened))
    prompt = prompts_of_typing(opened, "spm")[0]
    first = session.generate(prompt, max_tokens=8)
    assert len(first.generation.ids) == 8
    accepted = session.generate([*prompt, *first.generation.ids, 70], max_tokens=4)
    assert accepted.reused >= len(prompt) + 7


def test_a_refused_prompt_leaves_the_session_working(opened: Opened) -> None:
    session = Session(Engine(opened))
    prompt = prompts_of_typing(opened, "spm")[0]
    expected = session.generate(prompt, max_tokens=4).generation.ids
    with pytest.raises(BadInput):
        session.generate([1] * 500, max_tokens=4)
    assert session.generate(prompt, max_tokens=4).generation.ids == expected


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
