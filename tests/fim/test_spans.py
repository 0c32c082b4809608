"""Every span strategy of the registry: where it may cut, and that it cuts as its kind says."""

import re
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.test_lengths import CLOSED_FORMS, law_options
from tests.fim.trees import Tree, python_syntax, syntax_of, texts_with_forests
from tests.fim.witness import assert_follows, assert_share, is_boundary, texts, view_of

from inlay.config import BadInput, validate
from inlay.fim.draws import Draws
from inlay.fim.lengths.fixed import Fixed
from inlay.fim.span import Span, SpanStrategy, TextView, apply_indentation, strategies, whole_lines
from inlay.fim.spans.empty import EmptySpan
from inlay.fim.spans.line import Line
from inlay.fim.spans.line_end import LineEnd
from inlay.fim.spans.lines import Lines
from inlay.fim.spans.random import RandomSpan
from inlay.fim.spans.sized import SizedSpan
from inlay.fim.spans.token_cuts import TokenCuts
from inlay.fim.spans.tokens import TokenSpan
from inlay.fim.spans.words import WordSpan
from inlay.text.tokenizer import Tokenizer

KINDS = sorted(strategies.members())
EDGES = [
    "",
    "x",
    "\n",
    "\r\n",
    " ",
    "\t\t\n",
    "🙂",
    "日",
    "e\u0301",
    "a\r\nb\r\n",
    "no line end",
    "\n\n  \n",
    "\x00",
    "\ufeffx",
]


@cache
def every_strategy() -> tuple[SpanStrategy, ...]:
    """Each kind as it is by default, and with each length law and the shortest and longest lengths where it has one."""
    found: list[SpanStrategy] = []
    for kind, cls in strategies.members().items():
        options = [{}]
        if "length" in cls.model_fields:
            options += [{"length": law} for law in law_options(1, 1).values()]
            options += [{"length": law} for law in law_options(900, 10**6).values()]
        for option in options:
            strategy = validate(cls, {"kind": kind, **option})
            assert isinstance(strategy, SpanStrategy)
            found.append(strategy)
    return tuple(found)


def check(strategy: SpanStrategy, view: TextView, key: int) -> Span | None:
    """Draws one span and holds it to what every strategy promises."""
    span = strategy.draw(view, Draws("span", key))
    assert strategy.draw(view, Draws("span", key)) == span
    if span is None:
        return None
    indented = apply_indentation(view, span, Draws("indentation", key))
    assert indented[1] == span[1]
    for start, end in (span, indented, whole_lines(view, span)):
        assert type(start) is int
        assert type(end) is int
        assert 0 <= start <= end <= len(view.data)
        assert is_boundary(view.data, start)
        assert is_boundary(view.data, end)
    return span


@given(made=texts_with_forests(texts()), keys=st.lists(st.integers(0, 10**9), min_size=3, max_size=3))
def test_inside_and_on_characters(tokenizer: Tokenizer, made: tuple[str, list], keys: list[int]) -> None:
    text, forest = made
    view = view_of(tokenizer, text)
    for strategy in every_strategy():
        if strategy.needs_syntax:
            assert check(strategy, view, keys[0]) is None
    view.syntax = syntax_of(forest)
    for strategy in every_strategy():
        for key in keys:
            check(strategy, view, key)


@pytest.mark.parametrize("text", EDGES, ids=repr)
@pytest.mark.parametrize("parsed", [False, True])
def test_edges(tokenizer: Tokenizer, text: str, parsed: bool) -> None:
    view = view_of(tokenizer, text)
    view.syntax = python_syntax(text) if parsed else None
    for strategy in every_strategy():
        for key in range(40):
            check(strategy, view, key)


@pytest.mark.parametrize("unit", ["x = 1; ", "a", " ", "é", "🙂"])
def test_one_long_line(tokenizer: Tokenizer, unit: str) -> None:
    text = unit * (100_000 // len(unit.encode()))
    view = view_of(tokenizer, text)
    view.syntax = syntax_of([Tree(0, view.size, 0, [Tree(0, view.size, 1)])])
    for strategy in every_strategy():
        for key in range(5):
            check(strategy, view, key)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_cuts_code(tokenizer: Tokenizer, library: list[str], kind: str) -> None:
    view = view_of(tokenizer, library[0])
    view.syntax = python_syntax(library[0])
    strategy = strategies.get(kind)()
    assert isinstance(strategy, SpanStrategy)
    spans = [check(strategy, view, key) for key in range(200)]
    assert None not in spans
    # A strategy that gave the same cut each time would teach one place.
    assert len(set(spans)) > 100


@pytest.mark.parametrize("kind", KINDS)
def test_bad_options(kind: str) -> None:
    with pytest.raises(BadInput, match="weight"):
        validate(strategies.get(kind), {"kind": kind, "weight": -1.0})
    with pytest.raises(BadInput, match="unknown key"):
        validate(strategies.get(kind), {"kind": kind, "no_such_option": 1})


def touched(view: TextView, span: Span) -> int:
    """Tokens of the document that a span has a byte of, counted one by one around it."""
    borders = view.token_offsets
    near = range(max(0, int(np.searchsorted(borders, span[0])) - 1), int(np.searchsorted(borders, span[1])) + 1)
    return sum(borders[token] < span[1] and borders[token + 1] > span[0] for token in near if token + 1 < len(borders))


@pytest.mark.parametrize("law", sorted(CLOSED_FORMS))
@pytest.mark.parametrize("cls", [SizedSpan, TokenSpan, TokenCuts])
def test_lengths_follow_their_law(tokenizer: Tokenizer, library: list[str], cls: type[SpanStrategy], law: str) -> None:
    view = view_of(tokenizer, "".join(text for text in library if text.isascii())[:150_000])
    strategy = validate(cls, {"kind": cls.model_fields["kind"].default, "length": {"kind": law, "low": 1, "high": 30}})
    assert isinstance(strategy, SpanStrategy)
    spans = [strategy.draw(view, Draws(law, key)) for key in range(4_000)]
    found = [touched(view, span) for span in spans if span is not None]
    # Within 30 tokens of the end a middle is cut short; that is one start in a thousand here.
    assert_follows(found, CLOSED_FORMS[law](1, 30))
    borders = set(view.token_offsets.tolist())
    on_borders = [(span[0] in borders, span[1] in borders) for span in spans if span is not None]
    starts, ends = (sum(sides) / len(spans) for sides in zip(*on_borders, strict=True))
    assert (starts == 1.0) == (cls is TokenCuts)
    assert (ends == 1.0) == (cls is not SizedSpan)


@pytest.mark.parametrize("law", sorted(CLOSED_FORMS))
@pytest.mark.parametrize("cls", [SizedSpan, TokenSpan, TokenCuts])
def test_in_a_short_piece_lengths_follow_their_law_up_to_its_room(
    tokenizer: Tokenizer, cls: type[SpanStrategy], law: str
) -> None:
    view = view_of(tokenizer, "".join(f"value_{number} = call({number})\n" for number in range(3)))
    room = len(view.tokens) - 1
    strategy = validate(cls, {"kind": cls.model_fields["kind"].default, "length": {"kind": law, "low": 2, "high": 90}})
    assert isinstance(strategy, SpanStrategy)
    assert 10 < room < 60
    spans = [strategy.draw(view, Draws(law, key)) for key in range(4_000)]
    chances = {length: chance for length, chance in CLOSED_FORMS[law](2, 90).items() if length <= room}
    whole = sum(chances.values())
    found = [touched(view, span) for span in spans if span is not None]
    assert len(found) == len(spans)
    assert_follows(found, {length: chance / whole for length, chance in chances.items()})


def test_encoded_length_is_near_the_drawn_one(tokenizer: Tokenizer, library: list[str]) -> None:
    text = "".join(library)[:150_000]
    view = view_of(tokenizer, text)
    strategy = SizedSpan()
    drawn = encoded = 0
    for key in range(2_000):
        span = strategy.draw(view, Draws(key))
        assert span is not None
        drawn += touched(view, span)
        encoded += len(tokenizer.encode(view.data[span[0] : span[1]].decode()))
    # A cut inside a token leaves a part that is one token or a few.
    assert 0.95 < encoded / drawn < 1.25, encoded / drawn


def test_sized_starts_everywhere(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "abcdefgh" * 8)
    one = SizedSpan(length=Fixed(length=1))  # a longer middle has no room behind the last starts
    spans = [one.draw(view, Draws(key)) for key in range(6_400)]
    assert_follows((span[0] for span in spans if span is not None), dict.fromkeys(range(64), 1 / 64))


def test_random_ends_are_independent(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "abcdefg")
    spans = [RandomSpan().draw(view, Draws(key)) for key in range(6_400)]
    law = {8 * low + high: (1 + (low < high)) / 64 for low in range(8) for high in range(low, 8)}
    assert_follows((8 * span[0] + span[1] for span in spans if span is not None), law)


def test_empty_is_empty_and_everywhere(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "abcdefg")
    spans = [EmptySpan().draw(view, Draws(key)) for key in range(4_000)]
    assert all(span is not None and span[0] == span[1] for span in spans)
    assert_follows((span[0] for span in spans if span is not None), dict.fromkeys(range(8), 1 / 8))


def is_word(character: str) -> bool:
    return character in "_" or (character.isascii() and character.isalnum()) or ord(character) >= 0x80


@given(text=texts(), key=st.integers(0, 10**9))
def test_words_end_at_word_borders(tokenizer: Tokenizer, text: str, key: int) -> None:
    view = view_of(tokenizer, text)
    span = check(WordSpan(), view, key)
    if span is None:
        assert not any(map(is_word, text))
        return
    before, middle, after = (
        part.decode() for part in (view.data[: span[0]], view.data[slice(*span)], view.data[span[1] :])
    )
    assert is_word(middle[0])
    assert is_word(middle[-1])
    assert not (before and is_word(before[-1]))
    assert not (after and is_word(after[0]))


def test_words_follow_their_law(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "one = two(three_3, 'four')\n" * 400)
    found = []
    for key in range(4_000):
        span = WordSpan().draw(view, Draws(key))
        assert span is not None
        flags = [False, *(is_word(character) for character in view.data[slice(*span)].decode())]
        found.append(sum(now and not before for before, now in pairwise(flags)))
    assert_follows(found, CLOSED_FORMS["log_uniform"](1, 12))


def test_lines_are_whole(tokenizer: Tokenizer) -> None:
    line = "    \tvalue = 1\r\n"
    view = view_of(tokenizer, line * 50)
    counts = []
    for key in range(4_000):
        span = Lines().draw(view, Draws(key))
        assert span is not None
        start, end = span
        assert start % len(line) == 0
        # The last line break stays in the suffix, where an editor has it.
        assert view.data[end:].startswith(b"\r\n")
        counts.append(view.data[start:end].count(b"\n") + 1)
    assert_follows(counts, CLOSED_FORMS["log_uniform"](1, 8))


@given(text=texts(), key=st.integers(0, 10**9))
def test_lines_start_at_a_line(tokenizer: Tokenizer, text: str, key: int) -> None:
    view = view_of(tokenizer, text)
    span = check(Lines(), view, key)
    assert (span is None) == (text == "")
    if span is not None:
        assert view.data[: span[0]].rpartition(b"\n")[2] == b""
        assert view.data[span[1] :][:1] in (b"", b"\r", b"\n") or span[0] == span[1]
        assert not view.data[slice(*span)].endswith((b"\r", b"\n"))


@given(text=texts(), keys=st.lists(st.integers(0, 10**9), min_size=30, max_size=30))
def test_line_is_one_whole_line(tokenizer: Tokenizer, text: str, keys: list[int]) -> None:
    view = view_of(tokenizer, text)
    lines = {line.rstrip(b"\r") for line in view.data.split(b"\n") if line.strip()}
    for key in keys:
        span = check(Line(), view, key)
        assert (span is None) == (not lines)
        if span is not None:
            assert view.data[slice(*span)] in lines
            assert view.data[: span[0]].rpartition(b"\n")[2] == b""


@pytest.mark.parametrize("blank", ["", "\n" * 300])
def test_every_full_line_alike(tokenizer: Tokenizer, blank: str) -> None:
    # Among 300 blank lines eight draws often find none that is full, and then all are looked at.
    view = view_of(tokenizer, blank + "".join(f"\t{digit}\r\n\n" for digit in range(8)) + blank + "9")
    found = Counter()
    for key in range(3_000):
        span = Line().draw(view, Draws(key))
        assert span is not None
        found[view.data[slice(*span)].decode()] += 1
    names = [*(f"\t{digit}" for digit in range(8)), "9"]
    assert_follows((names.index(name) for name in found.elements()), dict.fromkeys(range(len(names)), 1 / len(names)))


@given(text=texts(), key=st.integers(0, 10**9))
def test_line_end_stays_in_its_line(tokenizer: Tokenizer, text: str, key: int) -> None:
    view = view_of(tokenizer, text)
    span = check(LineEnd(), view, key)
    if span is not None:
        middle = view.data[slice(*span)]
        assert middle
        assert b"\n" not in middle
        assert view.data[span[1] :].lstrip(b"\r")[:1] in (b"", b"\n")
        # Not the indentation alone: there is text from the cursor on or before it, and the cursor stands behind blanks.
        assert (view.data[: span[0]].rpartition(b"\n")[2] + middle).strip()


def test_line_end_starts_anywhere_behind_the_indentation(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "\n\n" + "    abcd\n" * 30)
    starts: Counter[int] = Counter()
    for key in range(3_000):
        span = LineEnd().draw(view, Draws(key))
        assert span is not None
        starts[(span[0] - 2) % 9] += 1
    assert_follows(starts.elements(), dict.fromkeys(range(4, 8), 1 / 4))


@given(text=texts())
def test_view_agrees_with_plain_python(tokenizer: Tokenizer, text: str) -> None:
    view = view_of(tokenizer, text)
    data = text.encode()
    borders = [position for position in range(len(data) + 1) if is_boundary(data, position)]
    for position in range(len(data) + 1):
        assert view.align(position) == max(border for border in borders if border <= position)
    ids = tokenizer.encode(text)
    owners = [token for token, item in enumerate(ids) for _ in tokenizer.decode_bytes([item])]
    assert [view.token_at(position) for position in range(len(data))] == owners
    lines = data.split(b"\n")
    starts = [0, *np.cumsum([len(line) + 1 for line in lines[:-1]]).tolist()]
    assert view.line_starts.tolist() == sorted({*starts, len(data)})
    matches = [match.span() for match in re.finditer(rb"[A-Za-z0-9_\x80-\xff]+", data)]
    assert [view.word(index) for index in range(view.word_count)] == matches
    for position in range(len(data) + 1):
        for skipped in (b" \t", b"\r\n", bytes(range(128))):
            assert view.last_not(skipped, position) == len(data[:position].rstrip(skipped)) - 1
            assert view.first_not(skipped, position) == len(data) - len(data[position:].lstrip(skipped))


@given(text=texts(), data=st.data())
def test_whole_lines(tokenizer: Tokenizer, text: str, data: st.DataObject) -> None:
    view = view_of(tokenizer, text)
    borders = [position for position in range(view.size + 1) if is_boundary(view.data, position)]
    start, end = sorted(data.draw(st.tuples(st.sampled_from(borders), st.sampled_from(borders))))
    first, stop = whole_lines(view, (start, end))
    assert view.data[first:start] == view.data[:start].rpartition(b"\n")[2]
    rest, feed, _ = view.data[end:].partition(b"\n")
    assert view.data[end:stop] == (rest.removesuffix(b"\r") if feed else rest)


INDENTED = re.compile(rb"(?:^|(?<=\n))([ \t]+)(?=[^ \t\r\n])")


@given(text=texts(), data=st.data())
def test_indentation(tokenizer: Tokenizer, text: str, data: st.DataObject) -> None:
    view = view_of(tokenizer, text)
    indents = {place: match.span() for match in INDENTED.finditer(view.data) for place in match.span()}
    borders = [position for position in range(view.size + 1) if is_boundary(view.data, position)]
    places = st.sampled_from(borders) | st.sampled_from([*indents] or borders)
    start, end = sorted(data.draw(st.tuples(places, st.sampled_from(borders))))
    whole, without = (apply_indentation(view, (start, end), Draws(0), share) for share in (1.0, 0.0))
    begin, visible = indents.get(start, (start, start))
    if end <= max(start, visible):
        begin = visible = start
    assert whole == (begin, end)
    assert without == (visible, end)


def test_half_of_the_line_starts_are_indented(tokenizer: Tokenizer) -> None:
    line = "  \t  value = 1\n"
    view = view_of(tokenizer, line * 20)
    for start in (0, 5, 15, 20):
        draws = [apply_indentation(view, (start, 40), Draws(key)) for key in range(2_000)]
        assert set(draws) == {(start - start % 15, 40), (start - start % 15 + 5, 40)}
        assert_share(sum(span[0] % 15 == 0 for span in draws), 2_000, 0.5)
    assert_share(sum(apply_indentation(view, (0, 40), Draws(key), 0.2)[0] == 0 for key in range(2_000)), 2_000, 0.2)
    for span in ((2, 40), (6, 40), (5, 5), (0, 0), (15, 20), (16, 17)):
        assert {apply_indentation(view, span, Draws(key)) for key in range(50)} == {span}
