"""Identifiers: which words count as one, and where a cut begins inside."""

from collections import Counter

from tests.fim.trees import python_syntax
from tests.fim.witness import assert_follows, assert_share, view_of

from inlay.config import validate
from inlay.fim.draws import Draws
from inlay.fim.span import Syntax, TextView
from inlay.fim.spans.identifiers import Identifiers
from inlay.text.syntax import parse
from inlay.text.tokenizer import Tokenizer


def identifiers_of(view: TextView, options: dict, draws: int = 4_000) -> Counter[bytes]:
    strategy = validate(Identifiers, options)
    spans = [strategy.draw(view, Draws("name", key)) for key in range(draws)]
    return Counter(view.data[slice(*span)] for span in spans if span is not None)


def test_identifiers_are_drawn_alike(tokenizer: Tokenizer) -> None:
    view = view_of(tokenizer, "if 1 + a2 * _x == größe: call(42, 0x1F)")
    names = [name.encode() for name in ("if", "a2", "_x", "größe", "call")]
    found = identifiers_of(view, {"whole": 1.0})
    assert_follows((names.index(name) for name in found.elements()), dict.fromkeys(range(5), 1 / 5))
    # One name among many numbers.
    view = view_of(tokenizer, "1, 2, " * 3 + "x")
    assert identifiers_of(view, {}, 20) == {b"x": 20}
    assert identifiers_of(view_of(tokenizer, "1, 2"), {}, 20) == {}


def test_identifiers_of_syntax_are_no_keywords(tokenizer: Tokenizer) -> None:
    text = "def first(second):\n    return second  # third\n"
    view = TextView(tokenizer, tokenizer.encode_array(text), python_syntax(text))
    found = identifiers_of(view, {"whole": 1.0})
    assert set(found) == {b"first", b"second"}
    assert_share(found[b"second"], 4_000, 2 / 3)


def test_identifiers_of_real_code(tokenizer: Tokenizer, library: list[str]) -> None:
    text = library[0]
    parsed = parse(text.encode(), "python")
    assert parsed is not None
    view = TextView(tokenizer, tokenizer.encode_array(text), Syntax(parsed.nodes, parsed.kinds))
    full = python_syntax(text)
    names = {(start, end) for start, end, kind in full.nodes.tolist() if full.kinds[kind] == "identifier"}
    spans = [Identifiers(whole=1.0).draw(view, Draws("real", key)) for key in range(2_000)]
    # The prepared syntax leaves out what is inside the smallest nodes: a keyword there, and names of one letter.
    assert sum(span in names for span in spans) / len(spans) > 0.9
    assert len(set(spans) & names) > 500


def test_inner_starts_of_identifiers(tokenizer: Tokenizer) -> None:
    name = "parseHTTPResponse_to2Ways"
    view = view_of(tokenizer, f"({name})")
    parts = {b"HTTPResponse_to2Ways", b"Response_to2Ways", b"to2Ways", b"Ways"}
    assert set(identifiers_of(view, {"whole": 0.0, "borders": 1.0})) == parts
    inner = [name[place:].encode() for place in range(1, len(name))]
    law = {place: 0.5 / len(inner) + (0.5 / len(parts) if end in parts else 0.0) for place, end in enumerate(inner)}
    found = identifiers_of(view, {"whole": 0.0})
    assert_follows((inner.index(end) for end in found.elements()), law)
    found = identifiers_of(view, {"whole": 0.25})
    assert_share(found[name.encode()], 4_000, 0.25)
    # A name of one character has no inside.
    assert identifiers_of(view_of(tokenizer, "é"), {"whole": 0.0}, 20) == {"é".encode(): 20}
