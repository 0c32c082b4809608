import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.evaluate.marks import all_sentinels, decode, mark, read_mark
from inlay.fim.family import all_families

FAMILIES = [name for name, family in all_families().items() if family.middle is not None]
CODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=60) | st.sampled_from(
    ["def f():\n    return 1\n", "a\n\n\n", " \n", "<|fim_", "日本語🙂"]
)


@given(CODE, CODE.filter(bool), CODE, st.sampled_from(FAMILIES))
def test_a_file_says_what_was_marked(prefix: str, gold: str, suffix: str, family: str) -> None:
    text = prefix + gold + suffix
    try:
        written = mark(text, len(prefix), len(prefix) + len(gold), family)
    except BadInput as error:
        assert "has '" in str(error) or "terminator" in str(error)
        return
    found = read_mark(written, "x")
    assert (found.prefix, found.middle, found.suffix) == (prefix, gold, suffix)
    form = all_families()[family]
    assert written == f"{form.prefix}{prefix}{form.suffix}{suffix}{form.middle}{gold}\n"
    assert decode(written.encode(), "x") == written


@given(CODE, CODE, CODE.filter(lambda text: text.strip("\n") != ""))
def test_a_file_is_mark_of_what_it_says(prefix: str, suffix: str, gold: str) -> None:
    file = f"<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>{gold}\n"
    try:
        found = read_mark(file, "x")
    except BadInput:
        return
    text = found.prefix + found.middle + found.suffix
    if "<|endoftext|>" in gold or "<filename>" in gold:
        return
    assert mark(text, len(found.prefix), len(found.prefix) + len(found.middle), "starcoder2") == file


def test_line_ends_at_the_end() -> None:
    head = "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    golds = {
        "g": "g",
        "g\n": "g",
        "g\n\n": "g\n",
        "\n\n": "\n",
        "g<|endoftext|>": "g",
        "g\n<|endoftext|>\n": "g\n",
        "g<|endoftext|>\n \n": "g",
    }
    assert {end: read_mark(head + end, "x").middle for end in golds} == golds
    assert read_mark("<|fim_prefix|>\n\n<|fim_suffix|>\n<|fim_middle|>g", "x").prefix == "\n\n"


def test_every_family_with_a_middle_is_known() -> None:
    known = {sentinels.strings for sentinels in all_sentinels()}
    for name in FAMILIES:
        family = all_families()[name]
        assert (family.prefix, family.suffix, family.middle) in known
    assert not any("[PREFIX]" in strings for strings in known)


GOOD = "<|fim_prefix|>one\n<|fim_suffix|>\ntwo\n<|fim_middle|>gold\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(): pass\n", r"types/a\.py: no gap is marked; the file must begin with a prefix sentinel"),
        ("# head\n" + GOOD, r"types/a\.py, line 2: text stands before '<\|fim_prefix\|>'"),
        (GOOD.replace("<|fim_suffix|>", ""), r"types/a\.py: '<\|fim_suffix\|>' is missing; write it in once"),
        (
            GOOD.replace("<|fim_suffix|>", "<fim_suffix>"),
            r"'<\|fim_suffix\|>' is missing \('<fim_suffix>' on line 2 is another family's\)",
        ),
        (GOOD.replace("<|fim_middle|>", ""), r"'<\|fim_middle\|>' is missing"),
        (GOOD.replace("two", "<|fim_suffix|>"), r"line 3: '<\|fim_suffix\|>' comes a second time"),
        (GOOD + "<|fim_prefix|>", r"line 5: '<\|fim_prefix\|>' comes a second time"),
        (
            "<|fim_prefix|>a\n<|fim_middle|>g\n<|fim_suffix|>b\n",
            r"line 3: '<\|fim_suffix\|>' stands in the wrong order; write <\|fim_prefix\|> \.\.\. <\|fim_suffix\|>",
        ),
        (GOOD.replace("gold\n", ""), r"types/a\.py, line 4: nothing follows '<\|fim_middle\|>'"),
        (GOOD.replace("gold", ""), r"line 4: nothing follows"),
        (GOOD.replace("gold", "<|endoftext|>"), r"line 4: nothing follows"),
    ],
)
def test_a_file_that_says_no_gap_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_mark(text, "types/a.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD.replace("\n", "\r\n").encode(), "a.py, line 1: has a carriage return"),
        (GOOD.replace("two\n", "two\r\n").encode(), "a.py, line 3: has a carriage return"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "a.py, line 1: starts with a byte-order mark"),
        (GOOD.encode("utf-16"), "a.py: not a text file in UTF-8"),
        (GOOD.replace("two", "größer").encode("latin-1"), "a.py, line 3: byte 0xf6 is not UTF-8"),
        (b"\x00\x01", "a.py: not a text file"),
    ],
)
def test_an_encoding_that_is_not_utf8_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        decode(data, "a.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("abc", 1, 1), "no gap from 1 to 1 in a text of 3 characters"),
        (("abc", 2, 4), "no gap from 2 to 4"),
        (("abc", -1, 2), "no gap from -1"),
        (("a\r\nb", 0, 1), "carriage returns"),
        (("a\0b", 0, 1), "zero bytes"),
        (("a <|fim_middle|> b", 0, 1), "has '<|fim_middle|>' in it".replace("|", r"\|")),
        (("a <|endoftext|>", 0, 15), "ends in a terminator"),
        (("abc", 0, 1, "codestral"), "'codestral' has no middle sentinel"),
    ],
)
def test_what_cannot_be_marked_is_refused(arguments: tuple[str, int, int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mark(*arguments)
