"""The transform's options: syntax and its stand-in, joint encoding, line hints, headers, indentation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.witness import assert_share, texts

from inlay.config import BadInput, validate
from inlay.fim.draws import Draws
from inlay.fim.families.inlay import InlayFamily
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.span import Syntax, TextView
from inlay.fim.transform import Example, FimConfig, Transform
from inlay.text.tokenizer import Tokenizer

CODE = "def add(first, second):\n    total = first + second  # größer 🙂\n    return total\n"
TREE = Syntax(
    np.array([[0, 82, 0], [0, 82, 1], [4, 7, 2], [28, 82, 3], [28, 50, 4], [28, 33, 2]], dtype=np.int32),
    ("module", "function_definition", "identifier", "block", "assignment"),
)


def made_by(form: FimFormat, **options: Any) -> Transform:
    return Transform(validate(FimConfig, {"rate": 1.0, "orders": {"spm": 1.0}, **options}), form)


def pieces(form: FimFormat, text: str) -> np.ndarray:
    return form.tokenizer.encode_array(text)


def part(form: FimFormat, example: Example, region: Region) -> bytes:
    return form.tokenizer.decode_bytes(example.row.tokens[example.row.regions == region].tolist())


def test_syntax_is_cut_and_named(form: FimFormat) -> None:
    transform = made_by(form, spans={"nodes": {"kind": "ast_node", "max_share": 1.0}}, indentation=0.0)
    assert transform.needs_syntax
    kinds = set()
    for key in range(60):
        example = transform(pieces(form, CODE), 200, Draws(key), syntax=TREE)
        assert example.strategy == "nodes"
        assert example.fallback is None
        assert example.span in {(start, end) for start, end, _ in TREE.nodes.tolist()}
        kinds.add(example.node_kind)
    assert "assignment" in kinds


def test_a_text_without_syntax_is_cut_under_the_law_of_its_strategy(form: FimFormat, library: list[str]) -> None:
    """Counted as a stand-in, and never as a node: whole lines where they are near the drawn length, else tokens."""
    law = {"kind": "uniform", "low": 1, "high": 40}
    spans = {"nodes": {"kind": "ast_node", "max_tokens": 40}, "runs": {"kind": "ast_aligned", "length": law}}
    spans["runs"]["max_tokens"] = 40
    transform = made_by(form, spans=spans, indentation=0.0)
    text = next(text for text in library if text.isascii() and len(text) > 3000)[:3000]
    ids, data = pieces(form, text), text.encode()
    view = TextView(form.tokenizer, ids)
    lengths, lines = [], 0
    for key in range(1_000):
        example = transform(ids, 10**6, Draws(key))
        assert example.fallback == "no syntax"
        assert example.node_kind is None
        assert example.span is not None
        start, end = example.span
        assert view.tokens_in(start, end) <= 40
        if example.strategy == "runs":
            lengths.append(view.tokens_in(start, end))
        lines += (not start or data[start - 1] == 0x0A) and data[end : end + 1] in (b"", b"\n")
    # U(1, 40) has its mean at 20.5; where lines are taken they miss it by the fourth part at most.
    assert 18.5 < float(np.mean(lengths)) < 22.5
    assert lines > 10


def test_syntax_without_a_candidate_gives_way_to_another_strategy(form: FimFormat) -> None:
    transform = made_by(form, spans={"nodes": {"kind": "ast_node"}, "any": {"kind": "random", "weight": 0.01}})
    nothing = Syntax(np.zeros((0, 3), dtype=np.int32), ())
    example = transform(pieces(form, CODE), 200, Draws(1), syntax=nothing)
    assert (example.strategy, example.fallback) == ("any", None)


@given(text=texts(), capacity=st.integers(1, 90), key=st.integers(0, 10**9))
def test_joint_order_encodes_prefix_and_middle_as_one_text(form: FimFormat, text: str, capacity: int, key: int) -> None:
    transform = made_by(form, orders={"spm_joint": 1.0}, spans={"any": {"kind": "random"}})
    example = transform(pieces(form, text), capacity, Draws(key))
    assert len(example.row.tokens) <= capacity
    if example.span is None:
        assert example.row.kind == Kind.L2R
        return
    data, (start, end) = text.encode(), example.span
    before, middle, after = (part(form, example, region) for region in (Region.PREFIX, Region.MIDDLE, Region.SUFFIX))
    # The sub-token that the cut falls into belongs to the middle.
    assert data[:end].endswith(before + middle)
    assert len(middle) >= end - start
    assert data[end:].startswith(after)
    if not example.trimmed:
        together = example.row.tokens[(example.row.regions == Region.PREFIX) | (example.row.regions == Region.MIDDLE)]
        assert together.tolist() == form.tokenizer._reference.encode(data[:end].decode()).ids
        assert form.restore(example.row) == data


@given(text=texts(), capacity=st.integers(1, 120), key=st.integers(0, 10**9))
def test_hints_make_the_middle_whole_lines(form: FimFormat, text: str, capacity: int, key: int) -> None:
    hints = {"rate": 1.0, "blank": 0.0}
    transform = made_by(form, orders={"spm": 1.0, "psm": 1.0}, spans={"any": {"kind": "random"}}, hints=hints)
    plain = made_by(form, orders={"spm": 1.0, "psm": 1.0}, spans={"any": {"kind": "random"}})
    example = transform(pieces(form, text), capacity, Draws(key))
    assert len(example.row.tokens) <= capacity
    if example.span is None:
        return
    data, (start, end) = text.encode(), example.span
    assert part(form, example, Region.MIDDLE) == data[start:end]
    if form.hint_start not in example.row.tokens:
        assert plain(pieces(form, text), 10**6, Draws(key)).span == (start, end)
        return
    assert start == 0 or data[start - 1] == 0x0A
    assert end == len(data) or data[end : end + 1] in (b"\n", b"\r")
    cut = plain(pieces(form, text), 10**6, Draws(key)).span
    assert cut is not None
    assert part(form, example, Region.HINT) == data[start : cut[0]] + data[cut[1] : end]
    if not example.trimmed:
        assert form.restore(example.row) == data


def test_a_share_of_the_examples_has_hints_and_a_share_of_those_is_blank(form: FimFormat) -> None:
    transform = made_by(form, spans={"any": {"kind": "sized"}}, hints={"rate": 0.4, "blank": 0.25})
    draws = 2000
    examples = [transform(pieces(form, "x = first + 12\n" * 9), 400, Draws(key)) for key in range(draws)]
    hinted = [example for example in examples if form.hint_start in example.row.tokens]
    assert_share(len(hinted), draws, 0.4)
    # A blank hint: nothing between its sentinel and the next one. Cuts at a line's border are blank anyway.
    blank = sum(
        example.row.tokens[list(example.row.tokens).index(form.hint_start) + 1] == form.hint_end for example in hinted
    )
    assert len(hinted) * 0.25 < blank < len(hinted) * 0.5


def test_hints_without_their_tokens_are_refused_before_any_row(tokenizer: Tokenizer) -> None:
    class Bare(InlayFamily):
        hint_start: str | None = None

    with pytest.raises(BadInput, match="hints"):
        made_by(FimFormat(Bare(), tokenizer), hints={"rate": 0.1})


def test_a_header_takes_its_place_from_the_outer_context(form: FimFormat) -> None:
    transform = made_by(form, spans={"any": {"kind": "sized", "length": {"kind": "fixed", "length": 4}}})
    header = form.repository("demo", [("a.py", form.tokenizer.encode("x = 1\n"))], "b.py")
    whole = transform(pieces(form, CODE), 10**6, Draws(3), header=header)
    assert whole.trimmed == 0
    assert form.restore(whole.row) == CODE.encode()
    assert whole.row.tokens[: len(header.tokens)].tolist() == header.tokens.tolist()
    capacity = len(whole.row.tokens) - 5
    less = transform(pieces(form, CODE), capacity, Draws(3), header=header)
    assert len(less.row.tokens) <= capacity
    assert less.trimmed >= 5
    assert part(form, less, Region.MIDDLE) == part(form, whole, Region.MIDDLE)
    for rate in (0.0, 1.0):
        with pytest.raises(ValueError, match="terminator"):
            made_by(form, rate=rate)(pieces(form, CODE), len(header.tokens), Draws(3), header=header)


def test_the_indentation_rule_reaches_every_strategy(form: FimFormat) -> None:
    text = "if x:\n    first()\n"
    for share in (0.0, 1.0):
        transform = made_by(form, spans={"line": {"kind": "line"}}, indentation=share)
        starts = {transform(pieces(form, text), 99, Draws(key)).span for key in range(40)}
        assert ((6, 17) in starts) == (share == 1.0)
        assert ((10, 17) in starts) == (share == 0.0)


def test_a_broken_piece_takes_the_slow_way(form: FimFormat) -> None:
    """A piece that starts inside a pre-token: its parts are still encoded as if alone."""
    ids = form.tokenizer.encode_array("x" * 40 + " = 1\n")[1:]
    text = form.tokenizer.decode_bytes(ids.tolist()).decode()
    transform = made_by(form, spans={"any": {"kind": "random"}})
    for key in range(30):
        example = transform(ids, 400, Draws(key), whole=False)
        assert example.span is not None
        for region, piece in (
            (Region.PREFIX, text[: example.span[0]]),
            (Region.MIDDLE, text[slice(*example.span)]),
            (Region.SUFFIX, text[example.span[1] :]),
        ):
            found = example.row.tokens[example.row.regions == region].tolist()
            assert found == form.tokenizer._reference.encode(piece).ids


def test_a_piece_without_a_node_of_its_own_is_cut_by_lines_where_nothing_else_may(form: FimFormat) -> None:
    transform = made_by(form, spans={"nodes": {"kind": "ast_node"}, "runs": {"kind": "ast_aligned", "weight": 0.0}})
    example = transform(pieces(form, CODE), 200, Draws(1), syntax=Syntax(np.zeros((0, 3), dtype=np.int32), ()))
    assert (example.strategy, example.fallback, example.node_kind) == ("nodes", "no node", None)
    assert example.span is not None
