"""The tokenizer: lossless, equal to `tokenizers`, blind to special strings in text, and its file forms."""

import json
import pickle
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.corpus import library_texts
from tests.text.test_pretokens import TEXTS
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from inlay.config import BadInput, InlayError
from inlay.text.pretokens import CL100K_PATTERN, O200K_PATTERN, QWEN_PATTERN
from inlay.text.tokenizer import LONGEST_BLANKS, SPECIAL_TOKENS, Tokenizer, endless_run

UNUSUAL = [
    "",
    "\r\n\r\n  \r\tx",
    "naïve café 中文 日本語 한국어 العربية עברית हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \ufeff \u200b \x00 \x1c \x85",
    "it's we'LL don't 'self' 'ſx",
    "   \n \n\n\t\tdef f(x):  \n",
    "1234567890 0x1F 1_000",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 20,
    " " * 300 + "\n" * 50 + ")" * 100,
    "\U0010ffff\ue000\ud7ff",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(library_texts(), 2048)


@pytest.fixture(scope="module")
def witness(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The saved file as the `tokenizers` library reads it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    reader: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    reader.encode_special_tokens = True
    return reader


def foreign(pattern: str | None = QWEN_PATTERN, normaliser: Any = None, extra: tuple[Any, ...] = ()) -> str:
    """A tokenizer.json as another project would make it."""
    made: Any = tokenizers.Tokenizer(models.BPE())
    steps = [] if pattern is None else [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    made.pre_tokenizer = pre_tokenizers.Sequence([*extra, *steps, byte_level]) if extra or steps else byte_level
    made.decoder = decoders.ByteLevel()
    if normaliser is not None:
        made.normalizer = normaliser
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|fim_pad|>"],
        show_progress=False,
    )
    made.train_from_iterator(library_texts()[:3], trainer)
    return made.to_str()


@cache
def plain_definition() -> str:
    return foreign()


def test_the_size_is_exact_and_special_tokens_come_last(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 2048
    assert list(tokenizer.special) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special.values()) == list(range(2048 - len(SPECIAL_TOKENS), 2048))
    assert (tokenizer.eot, tokenizer.pad) == (tokenizer.special["<|endoftext|>"], tokenizer.special["<|fim_pad|>"])
    assert tokenizer.backend == "tiktoken"


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    small = Tokenizer.train(["x = 1\n"] * 3, 8192)
    assert 267 <= small.vocab_size < 300
    assert small.encode("x = 1")
    assert small.decode(small.encode("z = é")) == "z = é"
    with pytest.raises(BadInput, match="at least 267"):
        Tokenizer.train(["x"], 266)


@settings(max_examples=300)
@given(st.one_of(st.text(), TEXTS))
def test_lossless(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.token_lengths[ids].sum()) == len(text.encode())
    assert "".join(tokenizer.pretokens(text)) == text


@settings(max_examples=300)
@given(st.one_of(st.text(), TEXTS))
def test_ids_equal_those_of_tokenizers(tokenizer: Tokenizer, witness: Any, text: str) -> None:
    assert tokenizer.encode(text) == witness.encode(text, add_special_tokens=False).ids


def test_ids_equal_those_of_tokenizers_on_code_and_unusual_text(tokenizer: Tokenizer, witness: Any) -> None:
    texts = library_texts()
    for text in [*texts, *(text.replace("\n", "\r\n") for text in texts[:4]), *UNUSUAL]:
        assert tokenizer.encode(text) == witness.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


def test_special_strings_in_text_stay_text(tokenizer: Tokenizer) -> None:
    text = "".join(f"x = '{name}'\n" for name in SPECIAL_TOKENS)
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.eot, tokenizer.special["<|fim_prefix|>"]]) == "<|endoftext|><|fim_prefix|>"
    assert tokenizer.token_lengths[tokenizer.eot] == len("<|endoftext|>")


def test_batches_and_threads_change_nothing(tokenizer: Tokenizer) -> None:
    texts = [*library_texts(), *UNUSUAL]
    one_by_one = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts, 1) == tokenizer.encode_batch(texts, 4) == one_by_one


def test_starts_mark_the_first_token_of_each_pretoken(tokenizer: Tokenizer) -> None:
    texts = [text for text in [*library_texts(), *UNUSUAL] if text]
    for text, (ids, starts) in zip(texts, tokenizer.encode_with_starts(texts), strict=True):
        pieces = tokenizer.pretokens(text)
        encoded = [tokenizer.encode(piece) for piece in pieces]
        assert ids.tolist() == [token for piece in encoded for token in piece]
        assert starts.tolist() == [position == 0 for piece in encoded for position in range(len(piece))]


def test_broken_bytes_decode_to_replacement_characters(tokenizer: Tokenizer) -> None:
    ids = [token for token in tokenizer.encode("☕☕") if token < 256]
    whole = tokenizer.encode("☕")
    assert tokenizer.decode(whole[:-1]).endswith("\ufffd") or len(whole) == 1
    assert isinstance(tokenizer.decode(ids), str)
    with pytest.raises(InlayError, match="token id 2048 is not in the vocabulary of 2048"):
        tokenizer.decode_bytes([2048])


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadInput, match="lone surrogate at character 2"):
        tokenizer.encode("ab\ud800")


def test_save_load_and_pickle_keep_everything(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for again in (
        Tokenizer.load(tmp_path),
        Tokenizer.load(tmp_path / "tokenizer.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert again.hash == tokenizer.hash
        assert again.special == tokenizer.special
        assert again.encode(UNUSUAL[2]) == tokenizer.encode(UNUSUAL[2])
        np.testing.assert_array_equal(again.token_lengths, tokenizer.token_lengths)


def test_training_is_deterministic_and_the_hash_follows_content(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(library_texts(), 2048).hash == tokenizer.hash
    assert Tokenizer.train(library_texts(), 2047).hash != tokenizer.hash


def test_transformers_loads_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is the witness")
    tokenizer.save(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (tokenizer.eot, tokenizer.pad, 2048)
    text = UNUSUAL[2] + "\r\n    return x"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(tokenizer.encode(text)) == text
    assert set(loaded.all_special_ids) == set(tokenizer.special.values())


def test_foreign_tokenizers_with_a_known_pattern_are_fast(known_patterns: list[tuple[Tokenizer, Any]]) -> None:
    for loaded, reader in known_patterns:
        assert loaded.backend == "tiktoken"
        for text in [*library_texts()[:2], *UNUSUAL]:
            assert loaded.encode(text) == reader.encode(text).ids
            assert loaded.decode_bytes(loaded.encode(text)) == text.encode()
            assert "".join(loaded.pretokens(text)) == text


def test_a_foreign_nfc_normaliser_is_left_out_so_that_text_stays_itself() -> None:
    loaded = Tokenizer(foreign(normaliser=normalizers.NFC()))
    decomposed = "e\u0301 = 1"
    assert loaded.backend == "tiktoken"
    assert loaded.decode(loaded.encode(decomposed)) == decomposed


@pytest.fixture(scope="module")
def known_patterns() -> list[tuple[Tokenizer, Any]]:
    definitions = [foreign(pattern) for pattern in (QWEN_PATTERN, CL100K_PATTERN, O200K_PATTERN, None)]
    return [(Tokenizer(definition), tokenizers.Tokenizer.from_str(definition)) for definition in definitions]


@settings(max_examples=200)
@given(text=TEXTS)
def test_known_patterns_split_alike_in_both_engines(known_patterns: list[tuple[Tokenizer, Any]], text: str) -> None:
    for loaded, reader in known_patterns:
        assert loaded.encode(text) == reader.encode(text).ids


def test_an_unknown_pattern_or_merge_order_takes_the_exact_way() -> None:
    definition = foreign(extra=(pre_tokenizers.Digits(individual_digits=True),))
    loaded, reader = Tokenizer(definition), tokenizers.Tokenizer.from_str(definition)
    assert loaded.backend == "tokenizers"
    shuffled = json.loads(plain_definition())
    # The merge of `ab` after the merges that build on it: tiktoken would join what `tokenizers` cannot.
    shuffled["model"]["merges"].insert(0, shuffled["model"]["merges"].pop(40))
    odd, odd_reader = Tokenizer(json.dumps(shuffled)), tokenizers.Tokenizer.from_str(json.dumps(shuffled))
    assert odd.backend == "tokenizers"
    for text in [*library_texts()[:2], *UNUSUAL]:
        assert loaded.encode(text) == reader.encode(text).ids
        assert odd.encode(text) == odd_reader.encode(text).ids
        assert loaded.decode_bytes(loaded.encode(text)) == text.encode()
        (ids, starts), pieces = loaded.encode_with_starts([text])[0], loaded.pretokens(text)
        assert len(ids) == len(starts)
        assert int(starts.sum()) == len(pieces)
        assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "not BPE"),
        ({"normalizer": {"type": "Lowercase"}}, "normaliser 'Lowercase' changes text"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "byte-level"),
    ],
)
def test_what_is_no_lossless_byte_level_bpe_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({**json.loads(plain_definition()), **change}))
    with pytest.raises(BadInput) as error:
        Tokenizer.load(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read tokenizer .*nowhere"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match=r"cannot use tokenizer .*tokenizer.json: not JSON"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "added", [{"a": 1}, "text", [1], [{"content": 1, "id": 1}], [{"content": "a", "id": "1"}], [{}]]
)
def test_added_tokens_of_a_wrong_type_are_named(added: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(tokenizer.definition), "added_tokens": added}))
    with pytest.raises(BadInput, match=r"cannot use tokenizer .*tokenizer.json: added_tokens is no list of tokens"):
        Tokenizer.load(file)


def test_deep_nesting_is_named_with_its_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[" * 200_000)
    with pytest.raises(BadInput, match=r"damaged .*tokenizer_config.json: "):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[" * 200_000)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(BadInput, match=r"cannot use tokenizer .*tokenizer.json: "):
        Tokenizer.load(tmp_path)


def test_training_survives_runs_that_never_end() -> None:
    """Quadratic in the longest pre-token otherwise: these would take hours."""
    texts = ["(" * 400_000, "\n" * 400_000, "x = 1\n" * 50, "日" * 300_000]
    tokenizer = Tokenizer.train(texts, 400)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert Tokenizer.train(library_texts(), 600).hash == Tokenizer.train([*library_texts(), "", " "], 600).hash


@pytest.mark.parametrize("blank", [" ", "\n", "\t"])
def test_an_endless_run_is_a_line_and_not_the_end_of_the_process(blank: str) -> None:
    # The regular expressions of both encoders overflow their stacks at a million blanks.
    tokenizer = Tokenizer.train(["a b\n"] * 4, vocab_size=267)
    most = "x" + LONGEST_BLANKS * blank + "y"
    assert tokenizer.decode_bytes(tokenizer.encode(most)) == most.encode()
    assert tokenizer.encode_with_starts([most])[0][0].tolist() == tokenizer.encode(most)
    with pytest.raises(BadInput, match="more than 500,000 blanks in a row in line 2, more than a tokenizer can read"):
        tokenizer.encode("a\nb" + (LONGEST_BLANKS + 1) * blank)
    assert endless_run("a" * 4_000_001) is not None
    assert endless_run("a b" * 400_000) is None


@pytest.mark.parametrize("run", [" " * LONGEST_BLANKS, "x" * 4_000_000], ids=["blanks", "word"])
def test_runs_just_below_the_limit_are_looked_at_once(run: str) -> None:
    # Tried again at each of their characters they would take minutes.
    other = "x" if run.isspace() else " "
    began = time.perf_counter()
    assert endless_run((run + other) * 2) is None
    longer = endless_run(run + other + run + run[:1])
    assert longer is not None
    assert longer.endswith("in line 1")
    assert time.perf_counter() - began < 10
