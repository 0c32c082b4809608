import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_run import SENTENCES, tiny_tokenizer

from inlay.config import BadInput
from inlay.evaluate.corpus import of_documents
from inlay.evaluate.cuts import cut, token_range
from inlay.evaluate.task import Category, Corpus, SourceDocument
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.fim.draws import Draws
from inlay.text.tokenizer import Tokenizer

TOKENIZER = tiny_tokenizer()
CATEGORIES = get_args(Category)
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


def test_the_list_is_fixed_mixed_and_independent_of_store_order(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"word": 20, "tokens_1_4": 20, "line": 10})
    first = [example.id for example in config.examples(corpus, tokenizer)]
    assert first == [example.id for example in config.examples(corpus, tokenizer)]
    documents = [corpus.read(index) for index in range(len(corpus.ids))]
    assert first == [example.id for example in config.examples(of_documents(documents[::-1], "other"), tokenizer)]
    assert len(set(first)) == len(first) == 50
    assert [name.split(":")[0] for name in first[:6]] == ["word", "tokens_1_4", "line"] * 2
    assert [example.id for example in config.examples(corpus, tokenizer, limit=7)] == first[:7]
    other = config.model_copy(update={"seed": 1})
    assert first != [example.id for example in other.examples(corpus, tokenizer)]


def test_documents_take_turns(corpus: Corpus, tokenizer: Tokenizer) -> None:
    examples = HeldOutConfig(categories={"word": len(corpus.ids)}).examples(corpus, tokenizer)
    assert {example.document.id for example in examples} == set(corpus.ids)


def test_a_short_corpus_gives_what_it_has(tokenizer: Tokenizer) -> None:
    tiny = of_documents([SourceDocument("0", "a.py", "python", "a = b\n")], "tiny")
    assert len(HeldOutConfig(categories={"word": 50}).examples(tiny, tokenizer)) == 2
    empty = of_documents([SourceDocument("0", "a.py", "python", " \n")], "empty")
    with pytest.raises(BadInput, match="no gap can be cut from empty"):
        HeldOutConfig(categories={"word": 5, "line": 5}).examples(empty, tokenizer)


def test_large_documents_are_left_out(corpus: Corpus, tokenizer: Tokenizer) -> None:
    config = HeldOutConfig(categories={"word": 30}, max_document_bytes=200)
    sizes = [len(example.document.text.encode()) for example in config.examples(corpus, tokenizer)]
    assert sizes
    assert max(sizes) <= 200
