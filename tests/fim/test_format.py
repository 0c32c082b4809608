"""The format object inverts itself for every family and order, and refuses what it cannot render."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fim.stand_ins import stand_in
from tests.fim.witness import texts

from inlay.config import BadInput, ConfigError
from inlay.fim.families.inlay import InlayFamily
from inlay.fim.family import ORDERS, Order, families, load_family
from inlay.fim.format import KIND_OF_ORDER, FimFormat, Kind, Region
from inlay.text.tokenizer import Tokenizer

FAMILIES = sorted(families.members())
CASES = [(name, order) for name in FAMILIES for order in load_family(name).orders]


@pytest.mark.parametrize(("name", "order"), CASES)
@settings(max_examples=30)
@given(prefix=texts(), middle=texts(6), suffix=texts())
def test_regions_say_what_each_token_is(name: str, order: Order, prefix: str, middle: str, suffix: str) -> None:
    form = stand_in(name)
    parts = [form.tokenizer.encode(part) for part in (prefix, middle, suffix)]
    # User text that reads as a sentinel stays text: no id of a part is special.
    assert not set(form.tokenizer.special.values()) & {token for part in parts for token in part}
    example = form.render(*parts, order)
    tokens = example.tokens.tolist()
    assert (tokens[-1], tokens.count(form.eot)) == (form.eot, 1)
    # Encoded as one text, prefix and middle may take more tokens than apart.
    texts_of = [prefix + middle, suffix] if form.joins(order) else [prefix, middle, suffix]
    assert len(tokens) <= sum(len(form.tokenizer.encode(text)) for text in texts_of) + form.overhead(order)
    assert example.kind == KIND_OF_ORDER[order]
    assert example.tokens.dtype == np.int32
    assert example.regions.shape == example.tokens.shape
    decode = form.tokenizer.decode_bytes
    found = {region: decode(example.tokens[example.regions == region].tolist()) for region in Region}
    assert found[Region.SUFFIX] == suffix.encode()
    space = b" " if form.dummy and found[Region.PREFIX] else b""
    assert found[Region.PREFIX] + found[Region.MIDDLE] == space + (prefix + middle).encode()
    if not form.joins(order):
        assert found[Region.MIDDLE] == middle.encode()
    sentinels = [form.bos, form.prefix, form.suffix, form.middle]
    assert sorted(example.tokens[example.regions == Region.SENTINEL].tolist()) == sorted(
        token for token in sentinels if token is not None
    )
    assert np.flatnonzero(example.regions == Region.TERMINATOR).tolist() == [len(tokens) - 1]
    assert (example.regions != Region.TEXT).all()


LITERAL: dict[tuple[str, str], str] = {
    ("inlay", "spm"): "<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>M<|endoftext|>",
    ("inlay", "psm"): "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|endoftext|>",
    ("inlay", "spm_v2"): "<|fim_prefix|><|fim_suffix|>S<|fim_middle|>PM<|endoftext|>",
    ("inlay", "spm_joint"): "<|fim_prefix|><|fim_suffix|>S<|fim_middle|>PM<|endoftext|>",
    ("qwen2.5-coder", "psm"): "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|endoftext|>",
    ("starcoder", "psm"): "<fim_prefix>P<fim_suffix>S<fim_middle>M<|endoftext|>",
    ("starcoder", "spm_v2"): "<fim_prefix><fim_suffix>S<fim_middle>PM<|endoftext|>",
    ("starcoder2", "psm"): "<fim_prefix>P<fim_suffix>S<fim_middle>M<|endoftext|>",
    ("starcoder2", "spm_v2"): "<fim_prefix><fim_suffix>S<fim_middle>PM<|endoftext|>",
    ("santacoder", "psm"): "<fim-prefix>P<fim-suffix>S<fim-middle>M<|endoftext|>",
    ("santacoder", "spm_v2"): "<fim-prefix><fim-suffix>S<fim-middle>PM<|endoftext|>",
    ("codellama", "psm"): "<s>▁<PRE> P▁<SUF>S▁<MID>M▁<EOT>",
    ("codellama", "spm_joint"): "<s>▁<PRE>▁<SUF>S▁<MID> PM▁<EOT>",
    ("deepseek-coder", "psm"): (
        "<｜begin▁of▁sentence｜><｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>M<｜end▁of▁sentence｜>"
    ),
    ("codegemma", "psm"): "<bos><|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|file_separator|>",
    ("codegemma", "spm"): "<bos><|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>M<|file_separator|>",
    ("codestral", "spm_open"): "<s>[SUFFIX]S[PREFIX] PM</s>",
    ("seed-coder", "spm"): "<[fim-suffix]>S<[fim-prefix]>P<[fim-middle]>M<[end▁of▁sentence]>",
    ("mellum", "spm"): "<fim_suffix>S<fim_prefix>P<fim_middle>M<|endoftext|>",
    ("granite", "psm"): "<fim_prefix>P<fim_suffix>S<fim_middle>M<|endoftext|>",
    ("granite", "spm_v2"): "<fim_prefix><fim_suffix>S<fim_middle>PM<|endoftext|>",
    ("olmo", "psm"): "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|endoftext|>",
    ("olmo", "spm"): "<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>M<|endoftext|>",
}


def test_every_family_and_order_gives_the_string_of_its_source() -> None:
    assert set(LITERAL) == set(CASES)
    for (name, order), expected in LITERAL.items():
        form = stand_in(name)
        row = form.render(*(form.tokenizer.encode(part) for part in "PMS"), order)  # type: ignore[arg-type]
        assert form.tokenizer.decode(row.tokens.tolist()) == expected, (name, order)


@given(text=texts())
def test_restore_inverts_plain(form: FimFormat, text: str) -> None:
    example = form.plain(form.tokenizer.encode(text))
    assert form.restore(example.tokens.tolist()) == text.encode()
    assert example.kind == Kind.L2R
    assert example.tokens[-1] == form.eot
    assert (example.regions[:-1] == Region.TEXT).all()
    assert example.regions[-1] == Region.TERMINATOR


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30)
@given(text=texts())
def test_restore_inverts_plain_for_every_family(name: str, text: str) -> None:
    form = stand_in(name)
    example = form.plain(form.tokenizer.encode(text))
    assert form.restore(example) == form.restore(example.tokens) == text.encode()
    assert len(example.tokens) <= len(form.tokenizer.encode(text)) + form.overhead(None)
    assert example.tokens[-1] == form.end


def test_the_layouts_are_those_of_the_literature(form: FimFormat) -> None:
    p, m, s = ([form.tokenizer.encode(letter)[0]] for letter in "pms")
    pre, mid, suf, eot = form.prefix, form.middle, form.suffix, form.eot
    assert form.render(p, m, s, "psm").tokens.tolist() == [pre, *p, suf, *s, mid, *m, eot]
    assert form.render(p, m, s, "spm").tokens.tolist() == [suf, *s, pre, *p, mid, *m, eot]
    assert form.render(p, m, s, "spm_v2").tokens.tolist() == [pre, suf, *s, mid, *p, *m, eot]
    assert form.tokenizer.decode([pre, mid, suf, eot]) == "<|fim_prefix|><|fim_middle|><|fim_suffix|><|endoftext|>"


@given(tokens=st.lists(st.integers(0, 511), max_size=12))
def test_restore_takes_only_whole_examples(form: FimFormat, tokens: list[int]) -> None:
    special = [form.prefix, form.middle, form.suffix, form.eot, form.pad]
    ids = [special[token % 5] if token > 400 else token for token in tokens]
    found = [token for token in ids if token in form.tokenizer.special.values()]
    plain = found == [form.eot] and ids[-1] == form.eot
    whole = (
        found in ([form.prefix, form.suffix, form.middle, form.eot], [form.suffix, form.prefix, form.middle, form.eot])
        and ids[0] == found[0]
        and ids[-1] == form.eot
    )
    if plain or whole:
        form.restore(ids)
    else:
        with pytest.raises(ValueError, match=r"example|sentinels"):
            form.restore(ids)


def test_restore_refuses(form: FimFormat) -> None:
    pre, mid, suf, eot = form.prefix, form.middle, form.suffix, form.eot
    for wrong in (
        [],
        [5],
        [5, eot, 6, eot],  # two examples
        [5, form.pad, eot],
        [pre, 5, suf, 6, mid, 7],  # cut off before its terminator
        [pre, 5, suf, 6, eot],
        [pre, 5, mid, 6, suf, 7, eot],
        [pre, 5, pre, 6, mid, 7, eot],
        [mid, 5, suf, 6, mid, 7, eot],
        [8, pre, 5, suf, 6, mid, 7, eot],
        [pre, 5, suf, 6, mid, 7, mid, 8, eot],
    ):
        with pytest.raises(ValueError, match=r"example|sentinels"):
            form.restore(wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_sound(name: str) -> None:
    family, form = load_family(name), stand_in(name)
    assert family.kind == name
    assert "Source" in (type(family).__doc__ or "") or name == "inlay"
    # A pad that is also the terminator would never be learned as one.
    assert form.pad not in (form.eot, form.end)
    assert set(family.orders) <= set(ORDERS)
    assert family.order == family.orders[0]
    hints = {text for text in (family.hint_start, family.hint_end) if text is not None}
    assert form.stop_ids == {form.tokenizer.special[text] for text in {*family.strings().values(), *hints}}
    assert max(form.overhead(order) for order in family.orders) == form.OVERHEAD


def test_unknown_family_names_the_nearest(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError) as caught:
        FimFormat.load("inlai", tokenizer)
    assert str(caught.value) == "unknown format family 'inlai'; did you mean 'inlay'?"


@pytest.mark.parametrize("field", ["prefix", "middle", "suffix", "pad", "terminator", "stops"])
def test_missing_sentinel_is_named(tokenizer: Tokenizer, field: str) -> None:
    text = "<|no_such_token|>"
    family = InlayFamily(**{field: (text,) if field == "stops" else text})
    with pytest.raises(BadInput) as caught:
        FimFormat(family, tokenizer)
    message = str(caught.value)
    assert text in message
    assert "'inlay'" in message
    assert "fim.family" in message
    assert "\n" not in message


def test_a_sentinel_must_be_special(tokenizer: Tokenizer) -> None:
    # "(" is one token, but text encodes to it.
    assert len(tokenizer.encode("(")) == 1
    with pytest.raises(BadInput, match="special"):
        FimFormat(InlayFamily(prefix="("), tokenizer)


def test_an_order_that_the_family_does_not_have(tokenizer: Tokenizer) -> None:
    form = FimFormat(InlayFamily(orders=("psm",)), tokenizer)
    for call in (lambda: form.render([1], [2], [3], "spm"), lambda: form.prompt([1], [3], "spm")):
        with pytest.raises(BadInput, match="'inlay' has no order 'spm'; it has psm") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_starts_character_is_true_where_text_may_be_cut(form: FimFormat) -> None:
    tokenizer = form.tokenizer
    assert form.starts_character.shape == (tokenizer.vocab_size,)
    for text in ("naïve 日本語 🙂👩‍👩‍👧‍👦 e\u0301", "plain ascii text\r\n"):
        ids = tokenizer.encode(text)
        for cut in range(len(ids)):
            try:
                tokenizer.decode_bytes(ids[:cut]).decode()
                tokenizer.decode_bytes(ids[cut:]).decode()
                whole = True
            except UnicodeDecodeError:
                whole = False
            assert form.starts_character[ids[cut]] == whole


def test_a_vocabulary_with_holes(tokenizer: Tokenizer, tmp_path: Any) -> None:
    tokenizer.save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in definition["added_tokens"]:
        token["id"] += 1000
    # The model's own part of the vocabulary stays; special tokens move away and leave ids without a token.
    definition["model"]["vocab"] = {
        token: number for token, number in definition["model"]["vocab"].items() if token not in tokenizer.special
    }
    sparse = Tokenizer(json.dumps(definition))
    assert sparse.vocab_size > tokenizer.vocab_size
    form = FimFormat.load("inlay", sparse)
    text = "x = 'größer'\n"
    ids = sparse.encode(text)
    assert form.restore(form.render(ids[:3], ids[3:5], ids[5:], "spm").tokens) == text.encode()
