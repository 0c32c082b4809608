"""Token healing against a search of the whole vocabulary without a cache; with a model trained at token borders."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import MODEL, SENTENCES, tiny_config, tiny_tokenizer
from torch.nn import functional

from inlay.config import BadInput, InlayError, validate
from inlay.infer.engine import Engine, Generation
from inlay.infer.healing import MOST_TOKENS, NO_START, Start, take_back, vocabulary_of
from inlay.infer.open import Opened, in_memory
from inlay.infer.sampling import SamplingConfig
from inlay.model import ModelConfig, build
from inlay.text.tokenizer import Tokenizer

TOKENIZER = tiny_tokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.sampled_from(SENTENCES)
BUDGET = 6


@settings(deadline=None)
@given(text=TEXT, cut=st.integers(0, 80), keep=st.integers(0, 3))
def test_what_is_taken_back_is_the_end_of_the_prefix_and_of_one_line(text: str, cut: int, keep: int) -> None:
    ids = TOKENIZER.encode(text[:cut])
    left, start = take_back(ids, TOKENIZER, keep)
    assert left == ids[: len(ids) - start.tokens]
    assert start.data == TOKENIZER.decode_bytes(ids[len(left) :])
    assert start.tokens <= MOST_TOKENS
    assert len(left) >= min(keep, len(ids))
    assert b"\n" not in start.data
    if start.tokens and not text[:cut].endswith("\n"):
        last = TOKENIZER.pretokens(text[:cut])[-1]
        assert last.encode().endswith(start.data), "no more than the last pre-token"


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [("x = retu", b" retu"), ("if a:\n", b""), ("if a:\n    ", b"    "), ("", b""), ("f(größ", "(größ".encode())],
)
def test_examples(prefix: str, taken: bytes) -> None:
    assert take_back(TOKENIZER.encode(prefix), TOKENIZER)[1].data == taken


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=6) | st.sampled_from([b"re", b"    ", b"return", b"<|fim", "ö".encode()]))
def test_agreeing_tokens_are_those_of_the_definition(data: bytes) -> None:
    special = set(TOKENIZER.special.values())
    names = {token: TOKENIZER.decode_bytes([token]) for token in range(TOKENIZER.vocab_size) if token not in special}
    expected = [token for token, name in names.items() if name.startswith(data) or data.startswith(name)]
    assert vocabulary_of(TOKENIZER).agreeing(data).tolist() == expected


def test_what_no_token_can_spell_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = vocabulary_of(TOKENIZER)
    monkeypatch.setattr(vocabulary, "_names", [b"a", b"b"])
    monkeypatch.setattr(vocabulary, "_ids", [0, 1])
    monkeypatch.setattr(vocabulary, "_known", {})
    with pytest.raises(InlayError, match="can spell b'c'"):
        vocabulary.agreeing(b"c")


def last_logprobs(opened: Opened, ids: list[int]) -> torch.Tensor:
    hidden = opened.model(torch.tensor([ids]), torch.arange(len(ids))[None])
    logits = opened.model.logits(hidden)[0, -1, : opened.tokenizer.vocab_size]
    return torch.log_softmax(logits, dim=-1)


def search(opened: Opened, prompt: list[int], start: Start, stops: frozenset[int]) -> tuple[list[int], bytes, float]:
    """Greedy, trying every token against the definition: ids, text, log-probability of the text's tokens."""
    ids: list[int] = []
    text, total, inside, spelled = b"", 0.0, 0, b""
    while True:
        scores = last_logprobs(opened, [*prompt, *ids])
        ranked = sorted(range(len(scores)), key=lambda token: (-float(scores[token]), token))
        for token in ranked:
            name = opened.tokenizer.decode_bytes([token])
            missing = start.data[len(spelled) :]
            special = token in opened.tokenizer.special.values()
            if not missing or (not special and (name.startswith(missing) or missing.startswith(name))):
                break
        if token in stops and not missing:
            return ids, text, total + (float(scores[token]) if token == opened.fim_format.eot else 0.0)
        if len(ids) - inside == BUDGET or len(ids) == BUDGET + start.tokens:
            return ids, text, total
        ids.append(token)
        spelled += name
        if missing and len(name) <= len(missing):
            inside += 1
        else:
            total += float(scores[token])
        text = spelled[len(start.data) :]


@pytest.fixture(scope="module")
def healed(opened: Opened) -> tuple[list[list[int]], list[Start]]:
    """Prompts whose prefix gave its end back, in two orders, and some that had nothing to give."""
    prompts, starts = [], []
    text = SENTENCES[0]
    for count, cut in enumerate([3, 6, 8, 11, 19, 24, 30, 31, 34, 38, 45, 61]):
        left, start = take_back(opened.tokenizer.encode(text[:cut]), opened.tokenizer)
        order = "psm" if count % 2 else "spm"
        prompts.append(opened.fim_format.prompt(left, opened.tokenizer.encode(text[cut + 2 : cut + 20]), order))
        starts.append(start)
    assert NO_START.data in [start.data for start in starts]
    assert max(start.tokens for start in starts) >= 3
    return prompts, starts


def stopping(opened: Opened, prompts: list[list[int]], starts: list[Start]) -> Engine:
    engine = Engine(opened)
    free = engine.generate(prompts, max_tokens=BUDGET, starts=starts)
    liked = {made.ids[-1] for made in free if len(made.ids) > 3}
    engine.stop_ids = opened.fim_format.stop_ids | frozenset(sorted(liked)[:3])
    return engine


def test_greedy_healing_equals_a_search(opened: Opened, healed: tuple[list[list[int]], list[Start]]) -> None:
    prompts, starts = healed
    engine = stopping(opened, prompts, starts)
    made = engine.generate(prompts, max_tokens=BUDGET, starts=starts)
    reaching = 0
    for prompt, start, generation in zip(prompts, starts, made, strict=True):
        ids, text, logprob = search(opened, prompt, start, engine.stop_ids)
        assert list(generation.ids) == ids
        assert generation.text.encode() == text[: len(text) - generation.dropped_bytes] or generation.invalid_bytes
        assert generation.logprob == pytest.approx(logprob, abs=1e-4)
        spelled = opened.tokenizer.decode_bytes(ids)
        assert spelled.startswith(start.data) or start.data.startswith(spelled)
        assert generation.tokens <= BUDGET
        inside = opened.tokenizer.decode_bytes(ids[: generation.before_cursor])
        assert start.data.startswith(inside)
        reaching += start.tokens > 0 and inside != start.data
    assert reaching, "some token must reach over the cursor, or that is not tested"
    assert len({generation.stopped for generation in made}) > 1


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(temperature=0.9, top_k=30, seed=5)])
def test_a_batch_heals_as_one_by_one(
    opened: Opened, healed: tuple[list[list[int]], list[Start]], sampling: SamplingConfig
) -> None:
    prompts, starts = healed
    keys = [f"key {index}" for index in range(len(prompts))]
    together = stopping(opened, prompts, starts).generate(
        prompts, max_tokens=BUDGET, starts=starts, sampling=sampling, keys=keys
    )
    engine = stopping(opened, prompts, starts)
    for index, made in enumerate(together):
        (alone,) = engine.generate(
            [prompts[index]], max_tokens=BUDGET, starts=[starts[index]], sampling=sampling, keys=[keys[index]]
        )
        assert (alone.ids, alone.text, alone.stopped) == (made.ids, made.text, made.stopped)


def test_a_prompt_that_gave_tokens_back_still_counts_them(opened: Opened) -> None:
    room = opened.sequence_length - BUDGET - 1
    fits: list[Generation] = Engine(opened).generate([[5] * (room - 2)], max_tokens=BUDGET, starts=[Start(b"ret", 2)])
    assert len(fits[0].ids) <= BUDGET + 2
    with pytest.raises(BadInput, match="trained context"):
        Engine(opened).generate([[5] * (room - 1)], max_tokens=BUDGET, starts=[Start(b"ret", 2)])


WORDS = ("index", "values", "return", "second", "enumerate")


def learned(tokenizer: Tokenizer) -> Opened:
    """A model that knows the first sentence by heart, cut at token borders alone."""
    torch.manual_seed(0)
    narrow = {**MODEL, "embedding_std": 0.1, "init_std": 0.05}
    model = build(validate(ModelConfig, narrow), tokenizer.vocab_size, seed=1).train()
    opened = in_memory(model, tokenizer, tiny_config(), step=1)
    rows = []
    ids = tokenizer.encode(SENTENCES[0])
    for cut in range(len(ids)):
        row = opened.fim_format.render(ids[:cut], ids[cut : cut + 4], ids[cut + 4 :], "psm")
        rows.append(torch.as_tensor(row.tokens, dtype=torch.int64))
    longest = max(map(len, rows))
    tokens = torch.stack([functional.pad(row, (0, longest - len(row)), value=opened.fim_format.pad) for row in rows])
    positions = torch.arange(longest).expand(len(rows), -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(100):
        logits = model.logits(model(tokens, positions))
        loss = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=opened.fim_format.pad
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    return opened


def test_with_a_model_trained_at_token_borders_healing_is_never_worse(tokenizer: Tokenizer) -> None:
    opened = learned(tokenizer)
    text = SENTENCES[0]
    borders = {0}
    for token in tokenizer.encode(text):
        borders.add(max(borders) + len(tokenizer.decode_bytes([token])))
    right = {"inside": [0, 0], "border": [0, 0]}
    cuts = range(1, len(text) - 24)
    engine = Engine(opened)
    for healing in (False, True):
        prompts, starts = [], []
        for cut in cuts:
            left, start = tokenizer.encode(text[:cut]), NO_START
            if healing:
                left, start = take_back(left, tokenizer)
            prompts.append(opened.fim_format.prompt(left, tokenizer.encode(text[cut + 12 :]), "psm"))
            starts.append(start)
        for cut, made in zip(cuts, engine.generate(prompts, max_tokens=2, starts=starts), strict=True):
            good = bool(made.text) and text.startswith(made.text, cut)
            right["border" if cut in borders else "inside"][healing] += good
    assert right["border"][1] >= right["border"][0] > 0
    assert right["inside"][1] > right["inside"][0], right
