import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_tokenizer

from inlay.config import BadInput
from inlay.evaluate.cuts import BYTES_PER_TOKEN, Probe, cut, token_range
from inlay.evaluate.task import Category
from inlay.fim.draws import Draws

TOKENIZER = tiny_tokenizer()
CATEGORIES = get_args(Category)
TEXT_OF_ALL = "".join(SENTENCES)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.sampled_from(
    ["".join(SENTENCES), SENTENCES[1]]
)


@settings(deadline=None)
@given(text=TEXT, category=st.sampled_from(CATEGORIES), key=st.integers(0, 1000))
def test_every_category_keeps_its_promise(text: str, category: Category, key: int) -> None:
    span = cut(text, category, 64, Draws(key), TOKENIZER)
    if span is None:
        return
    start, end, tokens = span
    prefix, middle, suffix = text[:start], text[start:end], text[end:]
    assert middle
    assert tokens == len(TOKENIZER.encode(middle)) <= 64
    if category == "word":
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", middle)
        assert not re.search(r"[A-Za-z0-9_]$", prefix)
        assert not re.match(r"[A-Za-z0-9_]", suffix)
    elif category.startswith("line"):
        assert "\n" not in middle
        assert "\r" not in middle
        assert suffix[:1] in ("", "\n", "\r")
        if category == "line":
            assert prefix[-1:] in ("", "\n", "\r")
            assert middle.strip()
        else:
            # The cursor stands inside the line's visible text.
            line = re.split(r"[\r\n]", prefix)[-1]
            assert line.strip()
            assert middle.strip()
    else:
        low, high = token_range(category)
        assert low <= tokens <= high


@pytest.mark.parametrize("category", CATEGORIES)
def test_ordinary_code_has_every_kind_of_gap(category: Category) -> None:
    text = "".join(SENTENCES) * 3
    found = {cut(text, category, 64, Draws(key), TOKENIZER) for key in range(40)} - {None}
    assert len(found) > 10
    assert cut("", category, 64, Draws(0), TOKENIZER) is None
    assert cut(" \n\t\r\n  ", "line", 64, Draws(0), TOKENIZER) is None


def test_a_line_beyond_the_budget_is_not_cut() -> None:
    assert cut("x = 1 + 2 * 3 - 4", "line", 3, Draws(0), TOKENIZER) is None


@given(text=TEXT, key=st.integers(0, 1000))
def test_nothing_is_missing_in_an_empty_gap(text: str, key: int) -> None:
    span = cut(text, "empty", 64, Draws(key), TOKENIZER)
    assert span is not None
    start, end, tokens = span
    assert 0 <= start == end <= len(text)
    assert tokens == 0


def test_three_tokens_are_three() -> None:
    found = [cut(TEXT_OF_ALL, "three_tokens", 64, Draws(key), TOKENIZER) for key in range(40)]
    counts = {len(TOKENIZER.encode(TEXT_OF_ALL[span[0] : span[1]])) for span in found if span is not None}
    assert counts == {3}
    assert cut(TEXT_OF_ALL, "three_tokens", 2, Draws(0), TOKENIZER) is None


@pytest.mark.parametrize("category", ["word", "line", "line_end", "empty"])
def test_without_a_tokenizer_bytes_bound_a_middle(category: Category | Probe) -> None:
    found = [cut(TEXT_OF_ALL, category, 4, Draws(key), None) for key in range(60)]
    spans = [span for span in found if span is not None]
    assert spans
    assert all(len(TEXT_OF_ALL[start:end].encode()) <= 4 * BYTES_PER_TOKEN for start, end, _ in spans)


@pytest.mark.parametrize("category", ["tokens_1_4", "tokens_33_64", "three_tokens"])
def test_tokens_are_not_counted_without_a_tokenizer(category: Category | Probe) -> None:
    with pytest.raises(BadInput, match=f"category '{category}' counts tokens"):
        cut("a = b", category, 64, Draws(0), None)
