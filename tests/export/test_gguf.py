"""GGUF files against real llama.cpp: every architecture computes the same, every tokenizer encodes the same."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.export.models import ATTENTION, LLAMA3, MLA, SHAPES, SWIGLU, config, opened, shape
from tests.fim.stand_ins import sentencepiece_definition
from tests.text.code import CODE
from tests.text.test_pretokens import PIECES

from inlay.config import BadInput, InlayError
from inlay.export import gguf as writing
from inlay.export.check import TIES, Prompt, compare, tie_of
from inlay.export.gguf import export_gguf, rounded, stored_type
from inlay.export.llama_cpp import architecture_of, refusal
from inlay.export.llama_server import LlamaServer
from inlay.export.peers import LlamaPeer
from inlay.export.vocabulary import DIGITS_THEN_GPT2, PRE_TOKENIZERS, vocabulary
from inlay.fim.format import FimFormat
from inlay.infer.open import Opened
from inlay.text.definition import _byte_characters
from inlay.text.pretokens import GPT2_PATTERN, O200K_PATTERN
from inlay.text.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")

TEXTS = [
    ("def add(first, ", "    return first"),
    ("", "x = 1\n"),
    ('print(f"{index}: ', ""),
    ("naïve 日本 = ", "\r\n\t1"),
]


def prompts(model: Opened) -> list[Prompt]:
    encode, made = model.tokenizer.encode, []
    for number, (prefix, suffix) in enumerate(TEXTS):
        order = ("psm", "spm")[number % 2]
        made.append(Prompt(model.fim_format.prompt(encode(prefix), encode(suffix), order), prefix, suffix))
    return made


def llama(file: Path) -> LlamaServer:
    pytest.importorskip("xllamacpp")
    return LlamaServer(file, 128, 48, threads=1)


@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_computes_the_same(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    kind, data = SHAPES[name]
    model = opened(data, tokenizer)
    made = export_gguf(model, tmp_path / "model.gguf", "f32")
    assert made.architecture == kind
    with llama(made.path) as server:
        tie = tie_of(model.model.config, "f32")
        checked = compare(model, [LlamaPeer(server, "llama.cpp")], tie, prompts(model), "texts", tokens=12)
        (row,) = checked.rows
        assert row.verdicts == ["equal"] * len(TEXTS)
        # Measured: 2e-6 to 3e-5, and 0.01 under GELU from a table.
        assert row.difference < (0.03 if kind == "starcoder2" else 2e-4)
        assert checked.passed
        header = model.fim_format.repository("myproject", [], "filename")
        for prefix, suffix in TEXTS[:2]:
            ids = [tokenizer.encode(text) for text in (prefix, suffix)]
            rewinds = kind != "lfm2"
            assert server.builds(model.fim_format.prompt(*ids, "psm", header), prefix, suffix, rewinds)
            assert not server.builds(model.fim_format.prompt(*ids, "spm", header), prefix, suffix, rewinds)


@pytest.mark.parametrize("number_format", ["f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", ["qwen3", "deepseek2"])
def test_number_formats(name: str, number_format: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened({**SHAPES[name][1], "init_std": 0.08}, tokenizer)
    made = export_gguf(model, tmp_path / "model.gguf", number_format)
    held = dataclasses.replace(model, model=rounded(model, number_format))
    with llama(made.path) as server:
        peers = [LlamaPeer(server, "llama.cpp")]
        (row,) = compare(held, peers, TIES[number_format], prompts(model), "texts", tokens=8).rows
        (unrounded,) = compare(model, peers, TIES[number_format], prompts(model), "texts", tokens=8).rows
    # Embeddings of width 1 make arithmetic in eight bits coarser here than in a trained model.
    assert row.difference < {"f16": 0.02, "bf16": 0.15, "q8_0": 0.3, "q4_0": 0.3}[number_format]
    if number_format == "q4_0":
        assert unrounded.difference > 2 * row.difference  # most of what differs is rounding, which `rounded` takes in


def fields(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(file)
    return {key: field.contents() for key, field in reader.fields.items()}, {item.name: item for item in reader.tensors}


def test_what_a_file_says(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened(SHAPES["qwen3"][1], tokenizer)
    made = export_gguf(model, tmp_path / "sub" / "model.gguf", "q4_0")
    said, tensors = fields(made.path)
    assert said["general.architecture"] == "qwen3"
    assert said["qwen3.context_length"] == 128
    assert said["qwen3.attention.key_length"] == 32
    assert said["qwen3.rope.freq_base"] == 500.0
    assert said["tokenizer.ggml.model"] == "gpt2"
    assert said["tokenizer.ggml.pre"] == "qwen2"
    special = tokenizer.special
    for key, name in {
        "fim_pre": "<|fim_prefix|>",
        "fim_suf": "<|fim_suffix|>",
        "fim_mid": "<|fim_middle|>",
        "fim_pad": "<|fim_pad|>",
        "fim_rep": "<|repo_name|>",
        "fim_sep": "<|file_sep|>",
        "eos": "<|endoftext|>",
        "eot": "<|endoftext|>",
    }.items():
        assert said[f"tokenizer.ggml.{key}_token_id"] == special[name]
    assert said["tokenizer.ggml.add_bos_token"] is False
    types = said["tokenizer.ggml.token_type"]
    assert {number for number, of in enumerate(types) if of == 3} == set(special.values())
    assert len(types) == tokenizer.vocab_size == len(said["tokenizer.ggml.tokens"])
    # The rows that pad the table are no tokens.
    assert tensors["token_embd.weight"].shape.tolist() == [64, tokenizer.vocab_size]
    by_type = {name: item.tensor_type.name for name, item in tensors.items()}
    assert by_type["token_embd.weight"] == by_type["output.weight"] == "Q8_0"
    assert by_type["blk.0.attn_q.weight"] == "Q4_0"
    assert by_type["blk.0.attn_norm.weight"] == by_type["blk.2.attn_q_norm.weight"] == "F32"
    assert made.bytes == made.path.stat().st_size
    assert made.tensors == len(tensors) == 3 * 11 + 3
    assert made.notices == ("embedding and head kept in q8_0, as the most sensitive matrices",)


def test_tied_embeddings_and_training_heads_are_left_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened({**SHAPES["qwen3 with training heads"][1], "tie_embeddings": True}, tokenizer)
    made = export_gguf(model, tmp_path / "model.gguf", "f32")
    assert "output.weight" not in fields(made.path)[1]
    assert made.notices == ("left out what only training uses: mtp, horizon",)


def test_rows_that_no_block_divides_stay_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened(shape({**ATTENTION, "head_size": 16, "heads": 2, "kv_heads": 1}, {**SWIGLU, "inner": 40}), tokenizer)
    made = export_gguf(model, tmp_path / "model.gguf", "q8_0")
    kept = {name for name, item in fields(made.path)[1].items() if item.tensor_type.name == "F16"}
    assert kept == {f"blk.{layer}.ffn_down.weight" for layer in range(3)}
    (notice,) = made.notices
    assert notice.startswith("blk.0.ffn_down.weight and 2 more kept in f16: rows of 40 do not divide")
    assert stored_type("blk.0.ffn_down.weight", (64, 64), "q8_0") == "q8_0"


def test_a_file_appears_whole_or_not_at_all(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(SHAPES["qwen3"][1], tokenizer)
    target = tmp_path / "model.gguf"
    whole = writing._stored
    monkeypatch.setattr(writing, "_stored", lambda name, *rest: 1 / 0 if "blk.1" in name else whole(name, *rest))
    with pytest.raises(ZeroDivisionError):
        export_gguf(model, target)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    export_gguf(model, target)
    before = target.read_bytes()
    with pytest.raises(BadInput, match=r"exists: choose another --out"):
        export_gguf(model, target, "f32")
    assert target.read_bytes() == before


def test_a_weight_too_large_for_f16_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened(SHAPES["qwen3"][1], tokenizer)
    model.model.embedding.weight.data[3, 5] = 70_000.0
    with pytest.raises(InlayError, match=r"token_embd\.weight holds 70000, more than f16 can: take --type bf16"):
        export_gguf(model, tmp_path / "model.gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(BadInput, match="pip install gguf"):
        export_gguf(opened(SHAPES["qwen3"][1], tokenizer), tmp_path / "model.gguf")


CONV = {"kind": "short_conv", "kernel": 3}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (shape({**ATTENTION, "window": 64}), "qwen3: layer 0 (main): mixer.window = 64 of 128 positions"),
        (shape({**ATTENTION, "softcap": 50.0}), "qwen3: layer 0 (main): mixer.softcap = 50"),
        (shape(ATTENTION, head_softcap=30.0), "qwen3: head_softcap = 30"),
        (
            shape(ATTENTION, layers=4, kv_share={"kind": "pairs"}),
            "qwen3: kv_share.kind = pairs: layer 1 (main) reads the K/V of layer 0",
        ),
        (
            shape(ATTENTION, {"kind": "relu2", "inner": 96}),
            "arcee: layer 0 (main): mixer.qk_norm = true, where it has no norm on queries and keys",
        ),
        (shape({**ATTENTION, "rope_scaling": LLAMA3}), "qwen3: layer 0 (main): mixer.rope_scaling.kind = llama3"),
        (shape(MLA, {"kind": "relu2", "inner": 96}), "deepseek2: layer 0 (main): mlp.kind = relu2"),
        (
            shape(
                {**ATTENTION, "qk_norm": False, "bias": "qkv"},
            ),
            "qwen2: layer 0 (main): mixer.heads x mixer.head_size = 128, where it has the width, 64",
        ),
        (shape(CONV), "lfm2: pattern: it needs layers of attention"),
        (
            shape(
                ATTENTION,
                blocks={"other": {"mixer": {**ATTENTION, "rope_theta": 9.0}, "mlp": SWIGLU}},
                pattern=["main", "main", "other"],
            ),
            "qwen3: layer 2 (other): mixer.rope_theta = 9.0, where layer 0 (main) has 500.0",
        ),
    ],
)
def test_refusals_name_layer_and_key(data: dict[str, Any], words: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    reason = refusal(config(data), 128)
    assert reason is not None
    assert words in reason
    assert "\n" not in reason
    with pytest.raises(BadInput) as caught:
        export_gguf(opened(data, tokenizer), tmp_path / "model.gguf")
    assert words in str(caught.value)
    assert "; the nearest preset that it can express: model=" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_window_of_the_whole_context_is_none(tokenizer: Tokenizer) -> None:
    data = config(shape({**ATTENTION, "window": 128}))
    assert refusal(data, 128) is None
    assert architecture_of(data, 128).kind == "qwen3"
    assert refusal(data, 129) is not None


def pairs_tokenizer(definition: dict[str, Any], texts: list[str]) -> Tokenizer:
    """Every pair of the texts' bytes is a token, in a mixed order: a split elsewhere gives other ids."""
    vocab = {token: number for token, number in definition["model"]["vocab"].items() if len(token) == 1}
    used = {value for text in texts for value in text.encode()}
    stand_ins = [token for token, value in _byte_characters().items() if value in used]
    pairs = [(one, other) for one in stand_ins for other in stand_ins]
    random.Random(0).shuffle(pairs)
    names = [*vocab, *("".join(pair) for pair in pairs)]
    definition["model"] |= {"vocab": {name: index for index, name in enumerate(names)}, "merges": [*map(list, pairs)]}
    for index, token in enumerate(definition["added_tokens"]):
        token["id"] = len(names) + index
    return Tokenizer(json.dumps(definition))


@pytest.mark.parametrize("pattern", PRE_TOKENIZERS, ids=PRE_TOKENIZERS.values())
def test_llama_cpp_encodes_the_same(pattern: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    definition = json.loads(tokenizer.definition)
    if pattern == DIGITS_THEN_GPT2:
        definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": json.loads(pattern)}
    elif pattern == GPT2_PATTERN:
        definition["pre_tokenizer"] = json.loads(DIGITS_THEN_GPT2)[1]
    else:
        definition["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern}
    drawn = random.Random(1)
    # The long s is a letter of a contraction for the pattern and none for llama.cpp: 'ſ is the one text that differs.
    pieces = [piece for piece in PIECES if piece != "ſ"]
    texts = ["".join(drawn.choice(pieces) for _ in range(14)) for _ in range(100)]
    for code in CODE.values():
        texts += [code, code.replace("\n", "\r\n"), code.replace("    ", "\t")]
    texts += ["x = 12345\t\t678  \n\n\n  y", "<|fim_prefix|> is text <|endoftext|>", "日本語 größe Ünï 🙂🙂"]
    pairs = pairs_tokenizer(definition, texts)
    assert pairs.pattern == pattern
    made = export_gguf(opened(shape(ATTENTION, layers=1), pairs), tmp_path / "model.gguf", "f16")
    with llama(made.path) as server:
        for text in texts:
            assert server.encode(text) == pairs.encode(text), repr(text)
        if PRE_TOKENIZERS[pattern] == "qwen2":
            assert server.encode("'ſs") != pairs.encode("'ſs")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(tokenizer: Tokenizer) -> None:
    definition = json.loads(tokenizer.definition)
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": O200K_PATTERN}
    other = Tokenizer(json.dumps(definition))
    with pytest.raises(BadInput, match=r"llama\.cpp has no pre-tokenizer that splits text as this tokenizer does"):
        vocabulary(other, FimFormat.load("inlay", other))
    sentencepiece = sentencepiece_definition("llama", ("▁<PRE>", "▁<SUF>"))
    with pytest.raises(BadInput, match="this tokenizer is SentencePiece-style"):
        vocabulary(Tokenizer(sentencepiece), FimFormat.load("inlay", tokenizer))


def test_rounding_is_what_the_file_holds(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = opened(SHAPES["qwen3"][1], tokenizer)
    file = export_gguf(model, tmp_path / "model.gguf", "q4_0").path
    held = rounded(model, "q4_0")
    _, tensors = fields(file)
    for name, weight in (
        ("blk.1.attn_q.weight", held.layers[1].mixer.query.weight),
        ("blk.2.ffn_down.weight", held.layers[2].mlp.down.weight),
        ("output.weight", held.head_weight[: tokenizer.vocab_size]),
    ):
        item = tensors[name]
        stored = gguf.quants.dequantize(item.data, item.tensor_type)
        np.testing.assert_array_equal(stored.reshape(weight.shape), weight.numpy())
    assert not np.array_equal(held.head_weight.numpy(), model.model.head_weight.numpy())
