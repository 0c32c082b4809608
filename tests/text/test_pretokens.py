"""Starts of pre-tokens against the regex engine of `tokenizers`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from inlay.text.pretokens import QWEN_PATTERN, pretoken_starts

# Every class of the pattern, contractions in both cases, blanks of all sorts, letters and digits beyond ASCII.
PIECES = [
    *[
        "a",
        "L",
        "s",
        "re",
        "'",
        "'s",
        "'LL",
        "'t",
        "(",
        ".",
        "#",
        "1",
        "23",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\r",
        " \n",
        "\n    ",
    ],
    *["é", "ſ", "中", "😀", "٣", "²", "\u00a0", "\u2028", "\x85", "\x1c", "\u200b", "\ufeff", "e\u0301", "ǅ", "\ud7ff"],
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def starts_by_regex(text: str) -> np.ndarray:
    splitter = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
    starts, position = np.zeros(len(text.encode()), bool), 0
    for piece, _ in splitter.pre_tokenize_str(text):
        starts[position] = True
        position += len(piece.encode())
    return starts


@settings(max_examples=600)
@given(TEXTS)
def test_starts_agree_with_the_regex_engine(text: str) -> None:
    np.testing.assert_array_equal(pretoken_starts([text])[0], starts_by_regex(text), err_msg=repr(text))


@given(st.text())
def test_starts_agree_on_any_text(text: str) -> None:
    np.testing.assert_array_equal(pretoken_starts([text])[0], starts_by_regex(text), err_msg=repr(text))


@given(st.lists(TEXTS, max_size=6))
def test_texts_of_a_batch_do_not_touch_each_other(texts: list[str]) -> None:
    together = pretoken_starts(texts)
    assert len(together) == len(texts)
    for text, starts in zip(texts, together, strict=True):
        np.testing.assert_array_equal(starts, pretoken_starts([text])[0])


@pytest.mark.parametrize("blanks", [1, 63, 64, 65, 200])
def test_long_blank_lines(blanks: int) -> None:
    for text in (
        "a\n" + " " * blanks + "\nb",
        "(\n" + " " * blanks + "\n\n" + "\t" * blanks + "\nb",
        "a" + "\n" * blanks + " \n  b",
    ):
        np.testing.assert_array_equal(pretoken_starts([text])[0], starts_by_regex(text))


def test_classes_of_all_characters() -> None:
    # Between letters and digits each character shows its class by where the starts fall.
    text = "".join(f"a{chr(code)}b " for code in range(0x80, 0x110000, 37) if not 0xD800 <= code < 0xE000)
    np.testing.assert_array_equal(pretoken_starts([text])[0], starts_by_regex(text))
