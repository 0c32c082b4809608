"""Tokenizers of other projects: SentencePiece-style BPE against a slow BPE and the projects' own settings, byte-level
ones of StarCoder's and DeepSeek's shape, and what is refused."""

import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fim.stand_ins import GEMMA_TEXT, SPACE, sentencepiece_definition
from tests.fim.witness import texts
from tests.text.corpus import library_texts
from tests.text.test_tokenizer import UNUSUAL, foreign
from tokenizers import Regex, pre_tokenizers

from inlay.config import BadInput
from inlay.text.definition import SENTENCEPIECE
from inlay.text.tokenizer import Tokenizer

FLAVOURS = ("llama", "mistral", "gemma")
CONTROL = ("▁<PRE>", "[PREFIX]", "<|fim_prefix|>", "<bos>")


@pytest.fixture(scope="module")
def loaded() -> dict[str, Tokenizer]:
    return {flavour: Tokenizer(sentencepiece_definition(flavour, CONTROL)) for flavour in FLAVOURS}


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    """The same files as their projects use them: dummy space, control tokens and all."""
    readers = {}
    for flavour in FLAVOURS:
        readers[flavour] = tokenizers.Tokenizer.from_str(sentencepiece_definition(flavour, CONTROL))
        readers[flavour].encode_special_tokens = True
    return readers


def slow_bpe(text: str, model: dict[str, Any]) -> list[int]:
    """Byte-pair encoding by its definition: merge the pair of the lowest rank, leftmost first, until none is left."""
    rank = {tuple(pair): index for index, pair in enumerate(model["merges"])}
    pieces = list(text.replace(" ", SPACE))
    while True:
        ranked = [(rank[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in rank]
        if not ranked:
            break
        _, at = min(ranked)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    vocab = model["vocab"]
    ids = [[vocab[piece]] if piece in vocab else [vocab[f"<0x{b:02X}>"] for b in piece.encode()] for piece in pieces]
    return [token for group in ids for token in group]


@settings(max_examples=150)
@given(text=st.one_of(st.text(), texts(5)), flavour=st.sampled_from(FLAVOURS))
def test_lossless(loaded: dict[str, Tokenizer], text: str, flavour: str) -> None:
    tokenizer = loaded[flavour]
    for whole in (text, text + SPACE + " " + SPACE * 2 + text):
        ids = tokenizer.encode(whole)
        assert tokenizer.decode_bytes(ids) == whole.encode()
        assert int(tokenizer.token_lengths[ids].sum()) == len(whole.encode())
        assert not set(ids) & set(tokenizer.special.values())
        assert "".join(tokenizer.pretokens(whole)) == whole
        assert len(tokenizer.encode_with_starts([whole])[0][1]) == len(ids)


@settings(max_examples=100)
@given(text=st.one_of(st.text(max_size=40), texts(3)))
def test_ids_equal_a_slow_bpe(loaded: dict[str, Tokenizer], text: str) -> None:
    text = text.replace(SPACE, "")
    model = json.loads(sentencepiece_definition("llama"))["model"]
    assert loaded["llama"].encode(text) == slow_bpe(text, model)


@settings(max_examples=100)
@given(text=texts(5))
def test_a_space_before_the_text_is_the_dummy_space_of_its_project(
    loaded: dict[str, Tokenizer], own: dict[str, Any], text: str
) -> None:
    text = text.replace(SPACE, "")
    for flavour in ("llama", "mistral") if text else ():
        # `tokenizers` spares the dummy space before a space where Metaspace puts it; SentencePiece never does.
        if flavour == "mistral" and text.startswith(" "):
            continue
        assert loaded[flavour].encode(" " + text) == own[flavour].encode(text, add_special_tokens=False).ids
        # How Code Llama's and Mistral's own code encodes without it: behind a character that merges with nothing.
        assert loaded[flavour].encode(text) == own[flavour].encode("☺" + text, add_special_tokens=False).ids[2:]


def test_real_code_and_unusual_texts(loaded: dict[str, Tokenizer], own: dict[str, Any]) -> None:
    for text in [*library_texts()[:3], *UNUSUAL]:
        for tokenizer in loaded.values():
            assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()
        assert loaded["gemma"].encode(text) == own["gemma"].encode(text, add_special_tokens=False).ids


def test_text_tokens_come_from_text_and_control_tokens_never(loaded: dict[str, Tokenizer]) -> None:
    gemma = loaded["gemma"]
    text = "a\n\nb\t\t<table></h1>"
    ids = gemma.encode(text)
    added = {token["content"]: token["id"] for token in json.loads(sentencepiece_definition("gemma"))["added_tokens"]}
    assert set(GEMMA_TEXT) <= set(added)
    assert gemma.decode(ids) == text
    assert not set(GEMMA_TEXT) & set(gemma.special)
    longest = max(gemma.token_lengths[ids])
    assert longest == len("<table>")
    for tokenizer in loaded.values():
        ids = tokenizer.encode("".join(CONTROL) + "</s><unk><s>")
        assert not set(ids) & set(tokenizer.special.values())
        assert tokenizer.decode(ids) == "".join(CONTROL) + "</s><unk><s>"


def test_identity_survives_files_and_pickle(loaded: dict[str, Tokenizer], tmp_path: Path) -> None:
    assert len({tokenizer.hash for tokenizer in loaded.values()}) == len(FLAVOURS) - 1  # two differ in the dummy alone
    for flavour, tokenizer in loaded.items():
        assert tokenizer.style == "sentencepiece"
        assert tokenizer.backend == "tokenizers"
        assert tokenizer.pattern == SENTENCEPIECE
        assert (tokenizer.eot, tokenizer.pad) == (None, None)
        tokenizer.save(tmp_path / flavour)
        for again in (Tokenizer.load(tmp_path / flavour), pickle.loads(pickle.dumps(tokenizer))):
            assert again.hash == tokenizer.hash
            assert again.encode("x = 'größer'") == tokenizer.encode("x = 'größer'")
    reordered = json.loads(sentencepiece_definition("llama", CONTROL))
    reordered["model"]["merges"].reverse()
    assert Tokenizer(json.dumps(reordered)).hash != loaded["llama"].hash


def test_a_named_token_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(sentencepiece_definition("llama"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}, "pad_token": "<unk>"}')
    named = Tokenizer.load(tmp_path)
    assert (named.eot, named.pad) == (named.special["</s>"], named.special["<unk>"])
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(BadInput, match="no special token '<eos>'"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "normaliser 'NFKC' changes text"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": SPACE}}, "changes text"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer 'Whitespace' is not SentencePiece's"),
        ({"byte": "<0x41>"}, "lacks the byte 0x41"),
        ({"affix": "</w>"}, "word affixes"),
    ],
)
def test_what_would_lose_text_is_refused(change: dict[str, Any], message: str) -> None:
    definition = json.loads(sentencepiece_definition("llama"))
    if "byte" in change:
        del definition["model"]["vocab"][change["byte"]]
    elif "affix" in change:
        definition["model"]["end_of_word_suffix"] = change["affix"]
    else:
        definition.update(change)
    with pytest.raises(BadInput) as caught:
        Tokenizer(json.dumps(definition))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_byte_level_without_a_byte_is_refused() -> None:
    definition = json.loads(foreign())
    definition["model"]["vocab"].pop("A")
    definition["model"]["merges"] = [pair for pair in definition["model"]["merges"] if "A" not in "".join(pair)]
    definition["model"]["vocab"] = {
        token: number for token, number in definition["model"]["vocab"].items() if "A" not in token
    }
    with pytest.raises(BadInput, match="lacks the byte 0x41"):
        Tokenizer(json.dumps(definition))


def test_a_rare_byte_may_be_missing_and_its_characters_are_refused() -> None:
    definition = json.loads(foreign())
    missing = chr(0xF1)  # GPT-2's stand-in for the byte is the character of that number
    definition["model"]["vocab"] = {
        token: number for token, number in definition["model"]["vocab"].items() if missing not in token
    }
    tokenizer = Tokenizer(json.dumps(definition))
    assert tokenizer.backend == "tokenizers"
    for text in ("größe 日本語 🙂", "\U000e0100", "ñ"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(BadInput, match=r"U\+40000, whose byte 0xF1") as caught:
        tokenizer.encode("a\U00040000b")
    assert "\n" not in str(caught.value)


SHAPES = {
    "starcoder": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "deepseek": [
        pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{L}+"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s?\p{P}+"), "isolated"),
        pre_tokenizers.Split(Regex(r"[一-龥ࠀ-一가-퟿]+"), "isolated"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_byte_level_shapes_take_the_exact_way(shape: str) -> None:
    made: Any = tokenizers.Tokenizer.from_str(foreign())
    made.pre_tokenizer = pre_tokenizers.Sequence(SHAPES[shape])
    definition = json.loads(made.to_str())
    definition["normalizer"] = {"type": "Sequence", "normalizers": []}  # DeepSeek's file has an empty one
    tokenizer = Tokenizer(json.dumps(definition))
    assert tokenizer.backend == "tokenizers"
    for text in [*library_texts()[:2], *UNUSUAL]:
        assert tokenizer.encode(text) == made.encode(text).ids
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()
        assert "".join(tokenizer.pretokens(text)) == text
