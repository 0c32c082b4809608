"""transformers' models as subjects. The witness is our engine on the same weights, or the model alone on one row."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_run import tiny_tokenizer

from inlay.config import BadInput, InlayError
from inlay.evaluate.subject import GREEDY, Decoding
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.subjects.open import open_subject
from inlay.evaluate.task import ContextFile, Example
from inlay.infer.open import open_model
from inlay.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

from inlay.evaluate.subjects.transformers_folder import TransformersSubject  # noqa: E402 (after the check)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "initializer_range": 0.4,
    "tie_word_embeddings": False,
}

EXAMPLES = [
    Example("a", "a", "line", "import os\n\nif os", ".path", ".exists(path):\n    pass\n"),
    Example("b", "b", "line", "", "def add(first):\n", "    return first\n"),
    Example("c", "c", "line", "for index, value in " * 30, "größer 日本語", "print(value)\n" * 30),
    Example("d", "d", "line", "x", "", ""),
    Example("e", "e", "line", "class Table:\n", "    rows", ": int\n", context=(ContextFile("b.py", "rows = 1\n"),)),
]


def folder_of(kind: str, tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, "vocab_size": tokenizer.vocab_size + 16, **options})
    torch.manual_seed(5)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def qwen(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    return folder_of("Qwen3", tokenizer, folder, head_dim=16, num_key_value_heads=2)


@pytest.fixture(scope="module")
def theirs(qwen: Path) -> TransformersSubject:
    return TransformersSubject(qwen, device="cpu", rows=3)


@pytest.fixture(scope="module")
def ours(qwen: Path) -> LocalSubject:
    return LocalSubject(open_model(qwen, device="cpu"), 3)


def changed(folder: Path, into: Path, **keys: Any) -> Path:
    shutil.copytree(folder, into)
    file = into / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    return into


@pytest.mark.parametrize("order", ["psm", "spm", "spm_v2"])
@pytest.mark.parametrize(
    "decoding",
    [
        GREEDY,
        Decoding(temperature=1.0, samples=3, top_p=0.9, top_k=50, seed=3),
        Decoding(heal=True),
        Decoding(infill_sampler=True, top_k=40),
    ],
    ids=["greedy", "sampled", "healed", "infill sampler"],
)
def test_answers_are_those_of_our_engine(
    order: str, decoding: Decoding, theirs: TransformersSubject, ours: LocalSubject
) -> None:
    found = dict(theirs.answers(EXAMPLES, order, 12, decoding))
    expected = dict(ours.answers(EXAMPLES, order, 12, decoding))
    assert sorted(found) == list(range(len(EXAMPLES)))
    for index, answers in expected.items():
        assert len(found[index]) == decoding.samples
        for one, other in zip(found[index], answers, strict=True):
            assert (one.text, one.stopped, one.tokens, one.leaked) == (
                other.text,
                other.stopped,
                other.tokens,
                other.leaked,
            )
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert one.eot_logprob == pytest.approx(other.eot_logprob, abs=1e-3)
    if not decoding.infill_sampler:  # whose rule ends an untrained model's answers at once
        assert len({answer.text for answers in found.values() for answer in answers}) > 3


def test_losses_are_those_of_our_engine(theirs: TransformersSubject, ours: LocalSubject) -> None:
    for order in ("psm", "spm"):
        found, expected = dict(theirs.losses(EXAMPLES, order, 16)), dict(ours.losses(EXAMPLES, order, 16))
        assert found.keys() == expected.keys()
        for index, losses in expected.items():
            assert found[index].to_dict() == pytest.approx(losses.to_dict(), abs=2e-3)


def test_an_answer_does_not_depend_on_its_list(theirs: TransformersSubject) -> None:
    decoding = Decoding(temperature=1.0, samples=2)
    together = dict(theirs.answers(EXAMPLES, "psm", 8, decoding))
    for index, example in enumerate(EXAMPLES):
        assert [one.text for one in dict(theirs.answers([example], "psm", 8, decoding))[0]] == [
            one.text for one in together[index]
        ]


def test_the_gold_survives(theirs: TransformersSubject) -> None:
    for order in theirs.orders:
        assert [theirs.gold_trouble(example, order, 16) for example in EXAMPLES] == [None] * len(EXAMPLES)
    assert [theirs.gold_answer(example).text for example in EXAMPLES] == [example.middle for example in EXAMPLES]


def test_scoring_in_small_batches_changes_nothing(
    theirs: TransformersSubject, ours: LocalSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    import inlay.evaluate.subjects.transformers_folder as module

    monkeypatch.setattr(module, "LOGIT_BYTES", 1)
    rows = [theirs.opened.tokenizer.encode(example.document)[:90] for example in EXAMPLES[:3]]
    expected = dict(ours._engine.score(rows, [1, 2, 7]))
    found = dict(theirs._engine.score(rows, [1, 2, 7]))
    for index, logprobs in expected.items():
        assert found[index] == pytest.approx(logprobs, abs=1e-3)
    monkeypatch.setattr(theirs._engine, "_keeps", False)
    for index, logprobs in theirs._engine.score(rows, [1, 2, 7]):
        assert found[index] == pytest.approx(logprobs, abs=1e-3)
    with pytest.raises(ValueError, match="cannot be scored from 0"):
        list(theirs._engine.score(rows, [0, 1, 1]))
    with pytest.raises(BadInput, match="more than the context of 160"):
        list(theirs._engine.score([[1] * 161], [1]))


def test_identity_and_key(theirs: TransformersSubject, qwen: Path, ours: LocalSubject, tmp_path: Path) -> None:
    identity = json.loads(json.dumps(theirs.identity))
    assert (identity["name"], identity["kind"], identity["step"]) == ("qwen3", "transformers", None)
    assert identity["weights_hash"] == ours.identity["weights_hash"]
    assert identity["class"] == "Qwen3ForCausalLM"
    assert identity["padded_batches"] is True
    again = TransformersSubject(qwen, device="cpu")
    assert again.key == theirs.key != ours.key
    assert TransformersSubject(qwen, device="cpu", sequence_length=100).key != theirs.key
    other = Path(shutil.copytree(qwen, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["lm_head.weight"] += 0.001
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert TransformersSubject(other, device="cpu").key != theirs.key


def test_an_architecture_that_inlay_has_not(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """GPT-NeoX through `open_subject`; the witness is its own forward on one row, without padding or batches."""
    folder = folder_of("GPTNeoX", tokenizer, tmp_path / "neox")
    subject = open_subject(str(folder), device="cpu")
    assert isinstance(subject, TransformersSubject)
    model = transformers.GPTNeoXForCausalLM.from_pretrained(folder).eval()
    fim_format, room = subject.opened.fim_format, 160 - 10 - subject.opened.fim_format.OVERHEAD
    answers = dict(subject.answers(EXAMPLES, "psm", 10, GREEDY))
    for index in (0, 1, 3):
        example = EXAMPLES[index]
        before, after = (tokenizer.encode(text) for text in (example.prefix, example.suffix))
        assert len(before) + len(after) <= room
        ids, logprob = fim_format.prompt(before, after, "psm"), 0.0
        prompt = len(ids)
        with torch.inference_mode():
            while True:
                table = model(torch.tensor([ids])).logits[0, -1, : tokenizer.vocab_size].log_softmax(-1)
                token = int(table.argmax())
                if token in fim_format.stop_ids or len(ids) - prompt == 10:
                    break
                ids.append(token)
                logprob += float(table[token])
        (answer,) = answers[index]
        assert answer.text == tokenizer.decode(ids[prompt:])
        ended = answer.stopped == "eot"
        assert ended == (token == fim_format.eot)
        assert answer.logprob == pytest.approx(logprob + (float(table[token]) if ended else 0.0), abs=1e-3)


def test_a_state_that_runs_over_padding_is_noticed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As a recurrent model does whose code minds no mask; here one that is made to mind none."""
    folder = folder_of("GPTNeoX", tokenizer, tmp_path / "neox")
    subject = TransformersSubject(folder, device="cpu")
    alone = [dict(subject.answers([example], "psm", 6, GREEDY))[0][0].text for example in EXAMPLES]
    model: Any = subject.opened.model
    forward = model.forward

    def careless(*positional: Any, **named: Any) -> Any:
        named.pop("attention_mask", None)
        named.pop("position_ids", None)
        return forward(*positional, **named)

    model.forward = careless
    subject._engine._keeps = False
    assert subject._engine._padding_is_harmless() is False
    subject._engine.pads = False
    assert [one[0].text for _, one in sorted(subject.answers(EXAMPLES, "psm", 6, GREEDY))] == alone


def test_stop_ids_and_penalties_of_the_folder(qwen: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "stops"))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [5, tokenizer.special["<|im_end|>"]], "repetition_penalty": 9.0, "do_sample": True})
    )
    subject = TransformersSubject(folder, device="cpu")
    assert subject.opened.stop_ids == subject.opened.fim_format.stop_ids | {5, tokenizer.special["<|im_end|>"]}
    plain = TransformersSubject(qwen, device="cpu")
    for index, (answer,) in plain.answers(EXAMPLES, "psm", 6, GREEDY):
        if 5 not in tokenizer.encode(answer.text):
            assert dict(subject.answers(EXAMPLES, "psm", 6, GREEDY))[index][0].text == answer.text


def test_folders_that_cannot_be_used(qwen: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    def refusal(kind: type[Exception], message: str, folder: Path, *options: Any, **named: Any) -> None:
        with pytest.raises(kind, match=message) as error:
            TransformersSubject(folder, *options, device="cpu", **named)
        assert "\n" not in str(error.value)

    refusal(BadInput, r"format family 'starcoder2'.*'<fim_prefix>' is not one special token", qwen, "starcoder2")
    refusal(BadInput, r"unknown format family 'qwen'", qwen, "qwen")
    refusal(BadInput, r"sequence_length = 161: .* max_position_embeddings = 160", qwen, sequence_length=161)
    refusal(InlayError, r"transformers cannot open", changed(qwen, tmp_path / "none", model_type="nothing_known"))
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Mine"}}
    own = changed(qwen, tmp_path / "code", **code)
    (own / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refusal(InlayError, r"transformers cannot open", own)
    assert not (tmp_path / "ran").exists()
    short = changed(qwen, tmp_path / "short")
    tensors = load_file(short / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, short / "model.safetensors", metadata={"format": "pt"})
    refusal(BadInput, r"model.layers.1.mlp.up_proj.weight is missing", short)
    (short / "model.safetensors").rename(short / "pytorch_model.bin")
    refusal(BadInput, r"convert them to safetensors", short)
    other = Path(shutil.copytree(qwen, tmp_path / "large"))
    big = folder_of("GPTNeoX", tokenizer, tmp_path / "big", vocab_size=tokenizer.vocab_size - 1)
    refusal(BadInput, r"tokenizer.json has ids up to \d+, and the embedding only", big)
    (other / "tokenizer.json").unlink()
    refusal(BadInput, r"cannot read tokenizer", other)


def test_without_transformers(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "transformers" else find(name, *a)
    )
    with pytest.raises(BadInput, match=r"not installed: pip install 'inlay\[check\]'"):
        TransformersSubject(qwen)
