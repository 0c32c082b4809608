"""Splicing equals full encoding of each part; the witness is the `tokenizers` library on the same merges."""

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fim.witness import SNIPPETS
from tests.text.code import CODE
from tests.text.corpus import library_texts
from tests.text.test_pretokens import PIECES
from tests.text.test_tokenizer import foreign

from inlay.fim.span import TextView
from inlay.fim.splice import FIRM_PATTERNS, Splicer
from inlay.text.pretokens import CL100K_PATTERN, GPT2_PATTERN, O200K_PATTERN, QWEN_PATTERN
from inlay.text.tokenizer import Tokenizer

PATTERNS = {"qwen": QWEN_PATTERN, "cl100k": CL100K_PATTERN, "o200k": O200K_PATTERN, "gpt2": None}
OTHER = r"\s?\p{L}+|\s?\p{P}+|\p{N}|\s+|."
"""A pattern without the law of firm borders: symbols and the blanks between them stay together."""
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(SNIPPETS), st.text(max_size=6)), max_size=14).map(
    "".join
)
LONG = ("x" * 5000, "-" * 3000, " " * 4000 + "x", "7" * 2000, "日本" * 900, "a\u0301" * 700, "\t" * 999, "\r\n" * 800)


@cache
def splicer_of(name: str) -> tuple[Tokenizer, Splicer]:
    tokenizer = Tokenizer.train(library_texts(), 1024) if name == "ours" else Tokenizer(foreign(PATTERNS[name]))
    return tokenizer, Splicer(tokenizer)


def assert_exact(name: str, view: TextView, text: str, first: int, last: int, whole: bool = True) -> None:
    tokenizer, splicer = splicer_of(name)
    a, b = (len(text[:index].encode()) for index in (first, last))
    parts = splicer.cut(view, a, b, whole)
    for found, part in zip(
        (parts.prefix, parts.middle, parts.suffix), (text[:first], text[first:last], text[last:]), strict=True
    ):
        assert found.tolist() == tokenizer._reference.encode(part).ids, (name, text[:200], first, last)
    together = splicer.upto(view, b, whole)
    assert together.tolist() == tokenizer._reference.encode(text[:last]).ids


NAMES = ["ours", *PATTERNS]


@pytest.mark.parametrize("name", NAMES)
def test_the_patterns_are_those_that_are_spliced(name: str) -> None:
    tokenizer, splicer = splicer_of(name)
    assert splicer.is_fast
    assert tokenizer.pattern in FIRM_PATTERNS
    assert {QWEN_PATTERN, CL100K_PATTERN, O200K_PATTERN, GPT2_PATTERN} == FIRM_PATTERNS


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=400, deadline=None)
@given(text=TEXTS, data=st.data())
def test_parts_equal_full_encoding_on_awkward_texts(name: str, text: str, data: st.DataObject) -> None:
    tokenizer, _ = splicer_of(name)
    view = TextView(tokenizer, tokenizer.encode_array(text))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    assert_exact(name, view, text, first, last)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS, data=st.data())
def test_a_piece_of_a_document_is_as_its_own_text(name: str, text: str, data: st.DataObject) -> None:
    """Pieces are cut at pre-token borders, where blanks at the end were split with an eye on what follows."""
    tokenizer, _ = splicer_of(name)
    ids, starts = tokenizer.encode_with_starts([text])[0]
    allowed = [*(index for index, start in enumerate(starts) if start), len(ids)]
    begin, end = sorted(data.draw(st.tuples(*[st.sampled_from(allowed)] * 2)))
    piece = tokenizer.decode_bytes(ids[begin:end].tolist()).decode()
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(piece))] * 2)))
    assert_exact(name, TextView(tokenizer, ids[begin:end]), piece, first, last)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("blanks", "behind"), [("    ", "2 end"), ("\n\n", "end"), ("  \t", "2")])
def test_blanks_at_the_end_of_a_piece(name: str, blanks: str, behind: str) -> None:
    """The last of several blanks may be a pre-token of its own because of what follows; at the end it is not."""
    tokenizer, _ = splicer_of(name)
    piece = "ab cd" + blanks
    ids, starts = tokenizer.encode_with_starts([piece + behind])[0]
    borders = [index for index, start in enumerate(starts) if start]
    ends = [index for index in borders if tokenizer.decode_bytes(ids[:index].tolist()) == piece.encode()]
    for count in ends:
        for first, last in ((1, 1), (1, 4), (0, len(piece))):
            assert_exact(name, TextView(tokenizer, ids[:count]), piece, first, last)
    assert ends or (name, blanks) == ("gpt2", "    ")  # GPT-2's numbers take a blank with them


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(text=TEXTS, data=st.data())
def test_a_piece_that_breaks_a_pretoken_takes_the_slow_way(name: str, text: str, data: st.DataObject) -> None:
    tokenizer, _ = splicer_of(name)
    ids = tokenizer.encode_array(text)
    bytes_of = [tokenizer.decode_bytes([token]) for token in ids.tolist()]
    allowed = [*(index for index, item in enumerate(bytes_of) if item[0] & 0xC0 != 0x80), len(ids)]
    begin, end = sorted(data.draw(st.tuples(*[st.sampled_from(allowed)] * 2)))
    piece = b"".join(bytes_of[begin:end]).decode()
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(piece))] * 2)))
    assert_exact(name, TextView(tokenizer, ids[begin:end]), piece, first, last, whole=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["python library", *CODE])
def test_parts_equal_full_encoding_on_code(name: str, source: str) -> None:
    tokenizer, _ = splicer_of(name)
    texts = library_texts() if source == "python library" else [CODE[source], CODE[source].replace("\n", "\r\n")]
    draws = random.Random(f"{name} {source}")
    for _ in range(200):
        text = draws.choice(texts)
        start = draws.randrange(len(text))
        text = text[start : start + 600]
        view = TextView(tokenizer, tokenizer.encode_array(text))
        first, last = sorted(draws.randrange(len(text) + 1) for _ in range(2))
        assert_exact(name, view, text, first, last)


@pytest.mark.parametrize("name", NAMES)
def test_very_long_lines(name: str) -> None:
    tokenizer, _ = splicer_of(name)
    draws = random.Random(name)
    for text in (*LONG, "".join(LONG)):
        view = TextView(tokenizer, tokenizer.encode_array(text))
        for _ in range(4):
            assert_exact(name, view, text, *sorted(draws.randrange(len(text) + 1) for _ in range(2)))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, data=st.data())
def test_any_other_pattern_is_exact_and_slow(text: str, data: st.DataObject) -> None:
    PATTERNS.setdefault("other", OTHER)
    tokenizer, splicer = splicer_of("other")
    assert not splicer.is_fast
    view = TextView(tokenizer, tokenizer.encode_array(text))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    assert_exact("other", view, text, first, last)


def test_only_what_a_cut_touches_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, splicer = splicer_of("ours")
    text = max(library_texts(), key=len)
    view = TextView(tokenizer, tokenizer.encode_array(text))
    encoded = 0
    original = Tokenizer.encode

    def counting(self: Tokenizer, part: str) -> list[int]:
        nonlocal encoded
        encoded += len(part)
        return original(self, part)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    cuts = 0
    draws = random.Random(1)
    for _ in range(200):
        a, b = sorted(view.align(draws.randrange(view.size + 1)) for _ in range(2))
        splicer.cut(view, a, b)
        cuts += 2
    assert 0 < encoded / cuts < 60
