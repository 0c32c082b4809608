import ast
import re
from pathlib import Path

import pytest
from experiments.gaps import Category, draw_gaps, nodes
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.fim.span import TextView
from inlay.text.store import TokenStore

CATEGORIES = (
    Category("token", 1, 3, 12),
    Category("token", 4, 9, 12),
    Category("inside", 1, 3, 12),
    Category("inside", 4, 9, 12),
    Category("byte", 2, 6, 12),
    Category("line", 1, 30, 12),
    Category("node", 1, 8, 12),
)


def test_gaps_are_what_their_category_says(store: Path) -> None:
    opened = TokenStore.open(store)
    tokenizer, split = opened.tokenizer, opened.split("validation")
    gaps = draw_gaps(split, tokenizer, CATEGORIES, (4, 20))
    by_name = {category.name: category for category in CATEGORIES}
    assert {gap.category for gap in gaps} == set(by_name)
    assert [gap.category for gap in gaps[: len(CATEGORIES)]] == list(by_name)
    assert len({(gap.category, gap.document, gap.start, gap.end) for gap in gaps}) == len(gaps)
    assert sum(gap.category == "inside_4_9" for gap in gaps) == 12
    for gap in gaps:
        category, data = by_name[gap.category], split.text(gap.document).encode()
        middle = data[gap.start : gap.end]
        assert category.low <= len(gap.middle) <= category.high
        for part, text in (
            (gap.prefix, data[: gap.start]),
            (gap.middle, middle),
            (gap.suffix, data[gap.end :]),
        ):
            decoded = tokenizer.decode_bytes(part)
            assert text.endswith(decoded) if part is gap.prefix else text.startswith(decoded)
            assert tokenizer.encode(decoded.decode()) == part
        borders = set(TextView(tokenizer, split.tokens(gap.document)).token_offsets.tolist())
        if category.unit == "token":
            assert {gap.start, gap.end} <= borders
        if category.unit == "inside":
            assert not {gap.start, gap.end} & borders
        if category.unit == "line":
            assert middle == middle.strip()
            assert b"\n" not in middle
            assert not data[: gap.start].rpartition(b"\n")[2].strip()
            assert not data[gap.end :].partition(b"\n")[0].strip()
        if category.unit == "node":
            text = data.decode()
            known = {ast.get_source_segment(text, node) for node in ast.walk(ast.parse(text))}
            assert middle.decode() in known
    assert draw_gaps(split, tokenizer, CATEGORIES, (4, 20)) == gaps


def test_a_category_without_gaps_is_named(store: Path) -> None:
    opened = TokenStore.open(store)
    with pytest.raises(BadInput, match="token_900_901"):
        draw_gaps(opened.split("validation"), opened.tokenizer, [Category("token", 900, 901, 3)], (4, 20))


@given(
    st.lists(st.sampled_from(["x = 'é日'", "if a:\n    b(1)", "", "# größer", "y = (\n  2)"]), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_nodes_match_the_source_segments_of_ast(lines: list[str], end: str) -> None:
    text = end.join(line.replace("\n", end) for line in ["first = 1", *lines, "last = 2"])
    data = text.encode()
    rows = [row.encode() for row in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)]
    known: dict[tuple[int, int], str | None] = {}
    for node in ast.walk(ast.parse(data)):
        if isinstance(node, ast.expr | ast.stmt):
            start = sum(map(len, rows[: node.lineno - 1])) + node.col_offset
            stop = sum(map(len, rows[: (node.end_lineno or 0) - 1])) + (node.end_col_offset or 0)
            known[start, stop] = ast.get_source_segment(text, node)
    # A gap needs something on both sides.
    assert nodes(data) == sorted(span for span in known if span[0] > 0 and span[1] < len(data))
    for start, stop in nodes(data):
        assert data[start:stop].decode() == known[start, stop]


def test_text_that_does_not_parse_has_no_nodes() -> None:
    assert nodes(b"def (:\n") == []
