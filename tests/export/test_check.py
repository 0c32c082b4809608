"""The comparison itself: it passes what is equal, allows a tie, and fails a copy that is another model."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from tests.export.models import SHAPES, opened

from inlay.export.check import (
    TOP,
    Answer,
    Checked,
    Ours,
    Prompt,
    Row,
    compare,
    infilling_prompts,
    print_checked,
    tie_of,
)
from inlay.infer.open import Opened
from inlay.text.tokenizer import Tokenizer

TIE = 0.001


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Opened:
    return opened(SHAPES["qwen3"][1], tokenizer)


@pytest.fixture(scope="module")
def prompts(model: Opened) -> list[Prompt]:
    encode = model.tokenizer.encode
    texts = [("def add(first, ", "return"), ("x = ", ""), ("", "pass")]
    return [Prompt(model.fim_format.prompt(encode(p), encode(s), "spm"), p, s) for p, s in texts]


class Copy:
    """Another model as a peer: its own greedy ids by a loop over whole passes, without a cache."""

    name = "copy"

    def __init__(self, model: Opened, encode_more: str = "") -> None:
        self.model = model
        self.more = encode_more

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        ids, tables = [*prompt], []
        while len(tables) < tokens and not (tables and ids[-1] in self.model.fim_format.stop_ids):
            positions = torch.arange(len(ids))[None]
            hidden = self.model.model(torch.tensor([ids]), positions)[0, -1]
            scores = self.model.model.logits(hidden)[: self.model.tokenizer.vocab_size].log_softmax(-1)
            values, best = scores.topk(TOP)
            tables.append(dict(zip(best.tolist(), values.tolist(), strict=True)))
            ids.append(int(best[0]))
        return Answer(ids[len(prompt) :], tables)

    def encode(self, text: str) -> list[int]:
        return self.model.tokenizer.encode(text + self.more)


def changed(model: Opened, scale: float) -> Opened:
    """A copy whose weights have moved a little."""
    other = opened(SHAPES["qwen3"][1], model.tokenizer)
    generator = torch.Generator().manual_seed(3)
    for parameter in other.model.parameters():
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator))
    return other


def test_equal(model: Opened, prompts: list[Prompt]) -> None:
    checked = compare(model, [Copy(model)], TIE, prompts, "texts", tokens=10)
    (row,) = checked.rows
    assert row.verdicts == ["equal"] * 3
    assert row.texts == 3
    assert row.difference < 1e-4
    assert checked.passed


def test_another_model_fails(model: Opened, prompts: list[Prompt]) -> None:
    checked = compare(model, [Copy(model), Copy(changed(model, 0.3))], TIE, prompts, "texts", tokens=10)
    assert "differs" in checked.rows[1].verdicts
    assert checked.rows[1].difference > 0.1
    assert not checked.passed


def test_numbers_fail_where_tokens_do_not(model: Opened, prompts: list[Prompt]) -> None:
    checked = compare(model, [Copy(changed(model, 0.002))], TIE, prompts, "texts", tokens=3)
    (row,) = checked.rows
    assert "differs" not in row.verdicts
    assert row.difference > 10 * TIE
    assert not checked.passed


def test_another_encoding_fails(model: Opened, prompts: list[Prompt]) -> None:
    checked = compare(model, [Copy(model, " ")], TIE, prompts, "texts", tokens=3)
    assert checked.rows[0].texts == 0
    assert not checked.passed


class Scripted(Copy):
    """A peer that says what it is told."""

    def __init__(self, model: Opened, answers: list[list[int]]) -> None:
        super().__init__(model)
        self.answers = iter(answers)

    def answer(self, prompt: Sequence[int], tokens: int) -> Answer:
        ids = next(self.answers)
        return Answer(ids, [{}] * len(ids))


def test_a_tie_is_judged_by_our_own_margin(model: Opened, prompts: list[Prompt]) -> None:
    (ids, scores), *_ = Ours(model, 4).answers(prompts[:1])
    second = int(scores[1].argsort(descending=True)[1])
    gap = float(scores[1, ids[1]] - scores[1, second])
    for tie, verdict in ((gap * 1.01, "tie"), (gap * 0.99, "differs")):
        peer = Scripted(model, [[ids[0], second, 5, 5]])
        (row,) = compare(model, [peer], tie, prompts[:1], "texts", tokens=4).rows
        assert row.verdicts == [verdict]
        assert row.gaps == [pytest.approx(gap)]


def test_an_answer_that_ends_early_differs(model: Opened, prompts: list[Prompt]) -> None:
    (ids, _), *_ = Ours(model, 4).answers(prompts[:1])
    (row,) = compare(model, [Scripted(model, [ids[:-1]])], TIE, prompts[:1], "texts", tokens=4).rows
    assert row.verdicts == ["differs"]
    # What a peer writes behind our own end is no difference.
    (row,) = compare(model, [Scripted(model, [[*ids, 7]])], TIE, prompts[:1], "texts", tokens=4).rows
    assert row.verdicts == ["equal"]


def test_without_a_peer_nothing_is_proven() -> None:
    assert not Checked([], "texts", TIE).passed
    assert not Checked([Row("ours before rounding", ["equal"], judged=False)], "texts", TIE).passed
    assert not Checked([Row("copy", ["equal"], texts=1)], "texts", TIE, infill=False).passed
    assert Checked([Row("copy", ["equal"], texts=1)], "texts", TIE, infill=True).passed


def test_what_rounding_costs_informs_and_cannot_fail(model: Opened, prompts: list[Prompt]) -> None:
    checked = compare(model, [Copy(model)], TIE, prompts, "texts", tokens=3, original=changed(model, 0.3))
    assert [row.judged for row in checked.rows] == [True, False]
    assert checked.rows[1].difference > 0.01
    assert checked.passed


def test_prompts_come_from_own_code_where_no_store_is(model: Opened) -> None:
    roomy = dataclasses.replace(model, sequence_length=256)
    prompts, source, reason = infilling_prompts(roomy, 6, tokens=8)
    assert source == "inlay's own code"
    assert reason is not None
    assert "prompts from inlay's own code: the store" in reason
    assert len(prompts) == 6
    orders = {prompt.ids[0] for prompt in prompts}
    assert orders == {model.fim_format.prefix, model.fim_format.suffix}
    assert all(len(prompt.ids) + 8 < 256 for prompt in prompts)
    assert prompts == infilling_prompts(roomy, 6, tokens=8)[0]


def test_the_table(model: Opened, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("llama.cpp, f16", ["equal", "tie", "differs"], difference=0.0123, texts=2)
    print_checked(Checked([row], "validation split", 0.005, notes=["transformers is missing: x"]))
    printed = capsys.readouterr().out
    assert "greedy infillings of 3 prompts (validation split), ours against" in printed
    assert next(line for line in printed.splitlines() if "f16" in line).split() == [
        *("llama.cpp,", "f16", "1", "1", "1", "2", "0.012")
    ]
    assert "within 0.005 nats\ntransformers is missing: x\n" in printed


def test_ties_go_by_format_and_network() -> None:
    from tests.export.models import config

    assert tie_of(config(SHAPES["qwen3"][1]), "f32") < tie_of(config(SHAPES["starcoder2"][1]), "f32")
    assert tie_of(config(SHAPES["starcoder2"][1]), "bf16") == tie_of(config(SHAPES["qwen3"][1]), "bf16")
