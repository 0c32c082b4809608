"""Our own model as a subject: contract, independence of the list, losses against single passes, other files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_opened, tiny_tokenizer, write_run

from inlay.config import BadInput
from inlay.evaluate.answer import Answer
from inlay.evaluate.cache import cached_answers, cached_losses
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.task import ContextFile, Example
from inlay.infer.engine import Engine
from inlay.infer.open import Opened, open_model
from inlay.infer.prompt import fit, prompt_of

BUDGET = 10
SAMPLED = Decoding(samples=3, temperature=0.9, top_p=0.95, seed=2)
TOKENIZER = tiny_tokenizer()
OPENED = tiny_opened(TOKENIZER)


def gap(name: str, text: str, start: int, end: int, **more: object) -> Example:
    return Example(name, "g", "c", text[:start], text[start:end], text[end:], **more)  # type: ignore[arg-type]


EXAMPLES = [
    gap(f"{number} {start}", text, start, start + length)
    for number, text in enumerate(SENTENCES)
    for start, length in ((0, 3), (4, 0), (11, 5), (20, 9), (40, 2), (len(text) - 1, 1))
]


def answers(examples: Sequence[Example], order: str, decoding: Decoding, rows: int = 64) -> list[list[Answer]]:
    found = dict(LocalSubject(OPENED, rows).answers(examples, order, BUDGET, decoding))
    return [found[at] for at in range(len(examples))]


def texts(found: list[list[Answer]]) -> list[list[tuple[str, str, int | None]]]:
    return [[(one.text, one.stopped, one.tokens) for one in some] for some in found]


@pytest.mark.parametrize("order", ["psm", "spm"])
@pytest.mark.parametrize(
    "decoding",
    [GREEDY, SAMPLED, Decoding(heal=True), SAMPLED.model_copy(update={"heal": True, "infill_sampler": True})],
)
def test_an_answer_depends_on_its_example_alone(order: str, decoding: Decoding) -> None:
    straight = texts(answers(EXAMPLES, order, decoding))
    assert {len(some) for some in straight} == {decoding.samples}
    assert texts(answers(EXAMPLES[::-1], order, decoding))[::-1] == straight
    assert texts(answers(EXAMPLES[3:8], order, decoding, rows=4)) == straight[3:8]
    assert texts(answers([EXAMPLES[5]], order, decoding)) == straight[5:6]


def test_samples_differ_by_sample_example_and_seed_and_more_samples_begin_alike() -> None:
    found = texts(answers(EXAMPLES, "psm", SAMPLED))
    assert sum(len(set(some)) > 1 for some in found) > len(EXAMPLES) // 2
    other = texts(answers(EXAMPLES, "psm", SAMPLED.model_copy(update={"seed": 3})))
    assert other != found
    more = texts(answers(EXAMPLES, "psm", SAMPLED.model_copy(update={"samples": 5})))
    assert [some[:3] for some in more] == found
    renamed = [Example(f"x{one.id}", "g", "c", one.prefix, one.middle, one.suffix) for one in EXAMPLES]
    assert texts(answers(renamed, "psm", SAMPLED)) != found


def test_greedy_answers_are_the_engines() -> None:
    room = OPENED.sequence_length - BUDGET - OPENED.fim_format.OVERHEAD
    prompts = [prompt_of(fit(e.prefix, e.suffix, room, TOKENIZER), "spm", OPENED.fim_format) for e in EXAMPLES]
    expected = Engine(OPENED).generate(prompts, max_tokens=BUDGET)
    found = answers(EXAMPLES, "spm", GREEDY)
    assert [(one.text, one.stopped, one.tokens) for (one,) in found] == [
        (one.text, one.stopped, len(one.ids)) for one in expected
    ]
    for (one,), made in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(made.logprob, abs=1e-4)
        assert one.eot_logprob == pytest.approx(made.eot_logprob, abs=1e-4)


def nats(ids: list[int], first: int) -> float:
    hidden = OPENED.model(torch.tensor([ids]), torch.arange(len(ids))[None])
    scores = torch.log_softmax(OPENED.model.logits(hidden)[0, :, : TOKENIZER.vocab_size], dim=-1)
    return -sum(float(scores[at - 1, ids[at]]) for at in range(first, len(ids)))


@pytest.mark.parametrize("order", ["psm", "spm"])
@pytest.mark.parametrize("after", ["nothing", "answers", "healed answers", "samples"])
def test_losses_equal_single_passes_before_and_after_answers(order: str, after: str) -> None:
    subject = LocalSubject(OPENED)
    decoding = {"answers": GREEDY, "healed answers": Decoding(heal=True), "samples": SAMPLED}.get(after)
    if decoding is not None:
        list(subject.answers(EXAMPLES, order, BUDGET, decoding))
    found = dict(subject.losses(EXAMPLES, order, BUDGET))
    assert sorted(found) == list(range(len(EXAMPLES)))
    for at, example in enumerate(EXAMPLES):
        gold = TOKENIZER.encode(example.middle)
        room = OPENED.sequence_length - max(BUDGET, len(gold)) - OPENED.fim_format.OVERHEAD
        context = fit(example.prefix, example.suffix, room, TOKENIZER)
        prompt = prompt_of(context, order, OPENED.fim_format)  # type: ignore[arg-type]
        losses = found[at]
        eot = OPENED.fim_format.eot
        assert losses.middle_tokens == len(gold)
        assert losses.middle_nats == pytest.approx(nats([*prompt, *gold], len(prompt)), abs=1e-3)
        assert losses.terminator_nats == pytest.approx(nats([*prompt, *gold, eot], len(prompt) + len(gold)), abs=1e-3)
        if context.prefix:
            plain = nats([*context.prefix, *gold], len(context.prefix))
            assert losses.l2r_nats == pytest.approx(plain, abs=1e-3)
        elif gold:
            assert losses.l2r_nats is None, "the first token has nothing before it"
        window = TOKENIZER.encode(TOKENIZER.decode(context.prefix) + example.middle + TOKENIZER.decode(context.suffix))
        assert losses.document_nats == pytest.approx(nats(window, 1), abs=1e-3)
        assert losses.document_bytes == len(TOKENIZER.decode_bytes(window[1:]))


def test_what_answers_have_scored_is_not_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    score = Engine.score

    def counted(self: Engine, rows: list[list[int]], firsts: list[int]):  # type: ignore[no-untyped-def]
        scored.append(len(rows))
        return score(self, rows, firsts)

    monkeypatch.setattr(Engine, "score", counted)
    short = [example for example in EXAMPLES if len(TOKENIZER.encode(example.middle)) <= BUDGET]
    subject = LocalSubject(OPENED)
    list(subject.answers(short, "psm", BUDGET, GREEDY))
    assert scored == []
    list(subject.losses(short, "psm", BUDGET))
    assert scored[1] == 0, "the middles came with the answers"
    list(subject.losses(short, "spm", BUDGET))
    assert scored[2:] == [0, len(short)], "left to right is the same in every order"


def test_a_gold_beyond_the_budget_gets_a_window_and_one_beyond_the_context_none() -> None:
    long = gap("long", "value = 1\n" * 60, 200, 320)
    endless = gap("endless", "value = 1\n" * 200, 10, 1900)
    assert BUDGET < len(TOKENIZER.encode(long.middle)) < OPENED.sequence_length - 4
    subject = LocalSubject(OPENED)
    list(subject.answers([long, endless, EXAMPLES[2]], "psm", BUDGET, GREEDY))
    found = dict(subject.losses([long, endless, EXAMPLES[2]], "psm", BUDGET))
    assert sorted(found) == [0, 2]
    gold = TOKENIZER.encode(long.middle)
    room = OPENED.sequence_length - len(gold) - OPENED.fim_format.OVERHEAD
    prompt = prompt_of(fit(long.prefix, long.suffix, room, TOKENIZER), "psm", OPENED.fim_format)
    assert found[0].middle_nats == pytest.approx(nats([*prompt, *gold], len(prompt)), abs=1e-3)
    assert subject.gold_trouble(long, "psm", BUDGET) is None


OTHERS = (ContextFile("useful.py", SENTENCES[1]), ContextFile("far.py", SENTENCES[2] * 9))


def test_other_files_stand_before_the_block_and_change_the_answer() -> None:
    subject = LocalSubject(OPENED)
    bare = EXAMPLES[3]
    shown = Example(bare.id, "g", "c", bare.prefix, bare.middle, bare.suffix, "m.py", context=OTHERS, repo="o/r")
    context = subject._context(shown, BUDGET)
    assert context.header is not None
    for order in ("psm", "spm"):
        prompt = TOKENIZER.decode(prompt_of(context, order, OPENED.fim_format))
        assert prompt.startswith("<|repo_name|>o/r\n<|file_sep|>")
        assert prompt.index("useful.py") < prompt.index("m.py") < prompt.index("<|fim_prefix|>")
        assert subject.gold_trouble(shown, order, BUDGET) is None
    (one,), (other,) = answers([bare], "psm", GREEDY)[0], answers([shown], "psm", GREEDY)[0]
    assert one.logprob != other.logprob
    assert dict(subject.losses([shown], "psm", BUDGET))[0].middle_nats != pytest.approx(
        dict(subject.losses([bare], "psm", BUDGET))[0].middle_nats, abs=1e-3
    )
    assert "not trained on repositories" in subject.identity["other_files"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(SENTENCES)


@settings(deadline=None)
@given(prefix=TEXT, middle=TEXT, suffix=TEXT, order=st.sampled_from(OPENED.fim_format.family.orders))
def test_gold_comes_back_whatever_the_text(prefix: str, middle: str, suffix: str, order: str) -> None:
    example = Example("x", "g", "c", prefix, middle, suffix, context=OTHERS)
    subject = LocalSubject(OPENED)
    assert subject.gold_trouble(example, order, BUDGET) is None
    answer = subject.gold_answer(example)
    assert (answer.text, answer.stopped, answer.leaked, answer.broken_bytes) == (middle, "eot", False, 0)
    assert answer.tokens == len(TOKENIZER.encode(middle))


def test_a_prompt_that_is_not_what_training_saw_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from inlay.evaluate.subjects import local as module

    subject, example = LocalSubject(OPENED), EXAMPLES[3]
    honest = module.prompt_of
    monkeypatch.setattr(module, "prompt_of", lambda *given: [*honest(*given), 10])
    assert "is not what a training row begins with" in str(subject.gold_trouble(example, "psm", BUDGET))
    monkeypatch.undo()
    stripped = subject._context(example, BUDGET)
    monkeypatch.setattr(subject, "_context", lambda *_: stripped)
    other = Example("x", "g", "c", example.prefix + " ", example.middle, example.suffix)
    assert "does not read back" in str(subject.gold_trouble(other, "psm", BUDGET))


def test_identity_and_key(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TOKENIZER)
    subject = LocalSubject(open_model(run, device="cpu"))
    identity = subject.identity
    assert (identity["name"], identity["kind"], identity["step"]) == ("run", "run", 20)
    json.dumps(identity)
    assert subject.key == LocalSubject(open_model(run, device="cpu")).key
    older = LocalSubject(open_model(run / "checkpoints" / "step-10", device="cpu"))
    half = LocalSubject(open_model(run, device="cpu", dtype="bfloat16"))
    assert len({subject.key, older.key, half.key}) == 3
    memory = LocalSubject(OPENED)
    assert memory.key is None
    assert memory.identity["kind"] == "memory"


@pytest.mark.parametrize("window", [40, 64, 128])
def test_a_smaller_window_shows_less_and_is_another_subject(window: int) -> None:
    opened = replace(OPENED, weights_hash="known")
    subject, widest = LocalSubject(opened, window=window), LocalSubject(opened)
    assert subject.identity["sequence_length"] == window
    assert (subject.key == widest.key) == (window == 128)
    long = gap("long", SENTENCES[0] * 9, 300, 310)
    shown = len(prompt_of(subject._context(long, BUDGET), "psm", OPENED.fim_format))
    assert window - 6 <= shown + BUDGET + 1 <= window
    assert subject.gold_trouble(long, "psm", BUDGET) is None
    assert len(dict(subject.answers([long], "psm", BUDGET, GREEDY))) == len(dict(subject.losses([long], "psm", BUDGET)))
    for wrong in (0, 129):
        with pytest.raises(BadInput, match="1 to 128 tokens"):
            LocalSubject(opened, window=wrong)


def test_an_order_that_the_family_lacks_is_refused() -> None:
    subject = LocalSubject(OPENED)
    for call in (
        lambda: list(subject.answers(EXAMPLES, "mps", BUDGET, GREEDY)),
        lambda: list(subject.losses(EXAMPLES, "spm_open", BUDGET)),
        lambda: subject.gold_trouble(EXAMPLES[0], "given", BUDGET),
    ):
        with pytest.raises(BadInput, match="has no order"):
            call()
    with pytest.raises(BadInput, match="max_tokens"):
        list(subject.answers(EXAMPLES, "psm", OPENED.sequence_length, GREEDY))


def test_a_resumed_evaluation_is_the_same(tmp_path: Path) -> None:
    """Half of the list first, as a kill would leave it; then all of it, against a run without a cache."""
    opened: Opened = open_model(write_run(tmp_path / "run", TOKENIZER), device="cpu")
    for decoding in (GREEDY, SAMPLED):
        folder = tmp_path / "cache"
        cached_answers(LocalSubject(opened), EXAMPLES[::2], "psm", BUDGET, decoding, folder)
        resumed = cached_answers(LocalSubject(opened), EXAMPLES, "psm", BUDGET, decoding, folder)
        fresh = cached_answers(LocalSubject(opened), EXAMPLES, "psm", BUDGET, decoding, None)
        assert texts(resumed) == texts(fresh)
        for some, others in zip(resumed, fresh, strict=True):
            assert [one.logprob for one in some] == pytest.approx([one.logprob for one in others], abs=1e-4)
    losses = cached_losses(LocalSubject(opened), EXAMPLES, "psm", BUDGET, tmp_path / "cache")
    assert cached_losses(LocalSubject(opened), EXAMPLES, "psm", BUDGET, tmp_path / "cache") == losses
