"""Cuts by syntax against slow witnesses: trees that know their children, and probabilities summed node by node."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fim.trees import KINDS, Tree, forests, python_syntax, syntax_of
from tests.fim.witness import assert_follows, assert_share

from inlay.config import BadInput, validate
from inlay.config.compose import compose_choice
from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, strategies
from inlay.fim.spans.ast_aligned import AstAligned, aligned_run
from inlay.fim.spans.ast_node import AstNode
from inlay.text.tokenizer import Tokenizer

CODE = '''\
import os


class Table:
    """Rows."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows  # kept
        # the last comment

    def total(self) -> int:
        if not self.rows:
            return 0
        return sum(row for row in self.rows)
'''


def parsed(tokenizer: Tokenizer, text: str = CODE) -> TextView:
    return TextView(tokenizer, tokenizer.encode_array(text), python_syntax(text))


def slow_tokens(view: TextView, start: int, end: int) -> int:
    borders = view.token_offsets.tolist()
    return sum(low < end and high > start for low, high in pairwise(borders))


def overlap(one: Span, two: Span) -> Fraction:
    """Intersection over union of two byte ranges."""
    both = len(set(range(*one)) & set(range(*two)))
    return Fraction(both, len(set(range(*one)) | set(range(*two))))


def slow_runs(forest: list[Tree], span: Span) -> tuple[list[list[Tree]], Tree | None]:
    """Every run of siblings below the deepest node around `span`, and that node (None for the text itself)."""
    siblings, around = forest, None
    while inside := [node for node in siblings if node.start <= span[0] and span[1] <= node.end]:
        around = inside[0]
        siblings = around.children
    runs = [siblings[first:stop] for first in range(len(siblings)) for stop in range(first + 1, len(siblings) + 1)]
    return runs, around


def ends_of(run: list[Tree]) -> Span:
    return run[0].start, run[-1].end


@given(forest=forests(list(range(41))), ends=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_the_run_overlaps_best(forest: list[Tree], ends: tuple[int, int]) -> None:
    left, right = min(ends), max(ends) + 1
    nodes = [node for tree in forest for node in tree.preorder()]
    found = aligned_run(syntax_of(forest), left, right)
    runs, around = slow_runs(forest, (left, right))
    best = max((overlap(ends_of(run), (left, right)) for run in runs), default=Fraction(0))
    if best == 0:
        assert (found is None) == (around is None)
        if found is not None:
            assert [nodes[index] for index in found] == [around]
        return
    assert found is not None
    chosen = [nodes[index] for index in found]
    assert any(len(chosen) == len(run) and all(map(lambda a, b: a is b, chosen, run)) for run in runs)
    assert overlap(ends_of(chosen), (left, right)) == best


@given(forest=forests(list(range(30))), ends=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_within_and_kind_at(forest: list[Tree], ends: tuple[int, int]) -> None:
    start, stop = sorted(ends)
    syntax = syntax_of(forest)
    nodes = [node for tree in forest for node in tree.preorder()]
    inside = [node for node in nodes if start <= node.start and node.end <= stop]
    piece = syntax.within(start, stop)
    assert piece.nodes.tolist() == [[node.start - start, node.end - start, node.kind] for node in inside]
    assert piece.kinds == KINDS
    first = next((node for node in inside if node.start == start), None)
    assert syntax.kind_at(start, stop) == (None if first is None else KINDS[first.kind])


def node_law(view: TextView, lowest: int, share: float, most: int) -> dict[Span, Fraction]:
    """Probability of each span, by its definition."""
    assert view.syntax is not None
    sizes: Counter[Span] = Counter()
    for start, end, _ in view.syntax.nodes.tolist():
        size = end - start
        if size >= lowest and size <= share * view.size and slow_tokens(view, start, end) <= most:
            sizes[start, end] += size  # a node with an only child of its size counts twice
    return {span: Fraction(size, sizes.total()) for span, size in sizes.items()}


def assert_spans_follow(found: Sequence[Span | None], law: dict[Span, Any]) -> None:
    spans = sorted(law)
    assert_follows(
        (spans.index(span) for span in found if span is not None),
        {index: float(law[span]) for index, span in enumerate(spans)},
    )
    assert None not in found


@pytest.mark.parametrize(("lowest", "share", "most"), [(5, 0.5, 100), (1, 1.0, 10**6), (3, 0.9, 4), (5, 0.2, 12)])
def test_node_is_drawn_by_size(tokenizer: Tokenizer, lowest: int, share: float, most: int) -> None:
    view = parsed(tokenizer)
    strategy = AstNode(min_bytes=lowest, max_share=share, max_tokens=most)
    law = node_law(view, lowest, share, most)
    assert 3 < len(law) <= len(view.syntax.nodes)
    assert_spans_follow([strategy.draw(view, Draws("node", key)) for key in range(6_000)], law)


def test_rare_candidates_are_found_exactly(tokenizer: Tokenizer) -> None:
    # Nearly all mass is on nodes above the cap, so the redraws give up and every node's tokens are counted.
    text = "x" + "(" * 200 + "abcdef" + ")" * 200 + "+ ghijklmn"
    view = TextView(tokenizer, tokenizer.encode_array(text))
    large = [(index, 401 + 6 - index, 0) for index in range(1, 195)]
    rows = [*large, (201, 207, 1), (409, 417, 1)]
    view.syntax = Syntax(np.array(rows, dtype=np.int32), ("large", "small"))
    strategy = AstNode(max_share=1.0, max_tokens=8)
    law = node_law(view, 5, 1.0, 8)
    assert set(law) == {(201, 207), (409, 417)}
    assert_spans_follow([strategy.draw(view, Draws(key)) for key in range(1_000)], law)


def test_nothing_to_draw(tokenizer: Tokenizer) -> None:
    view = parsed(tokenizer)
    assert AstNode(min_bytes=10_000).draw(view, Draws(0)) is None
    assert AstNode(max_tokens=1, min_bytes=200, max_share=1.0).draw(view, Draws(0)) is None
    assert AstNode(weights={"no_such_kind": 1.0}).draw(view, Draws(0)) is None
    empty = Syntax(np.zeros((0, 3), dtype=np.int32), ())
    huge = Syntax(np.array([[0, view.size, 0]], dtype=np.int32), ("module",))
    for strategy in (AstNode(), AstAligned()):
        assert strategy.needs_syntax
        for syntax in (None, empty, huge):
            assert strategy.draw(TextView(tokenizer, view.tokens, syntax), Draws(0)) is None
        assert strategy.draw(TextView(tokenizer, view.tokens[:0], empty), Draws(0)) is None
    needing = {kind for kind, cls in strategies.members().items() if getattr(cls, "needs_syntax", False)}
    assert needing == {"ast_node", "ast_aligned"}


def test_weights_of_kinds(tokenizer: Tokenizer) -> None:
    view = parsed(tokenizer)
    assert view.syntax is not None
    # The first pattern that matches counts: `return_statement` is not drawn as a statement.
    weights = {"return_*": 3.0, "*_statement": 1.0, "comment": 2.0, "goto_*": 9.0, "block": 0.0}
    sizes: dict[str, Counter[Span]] = {name: Counter() for name in weights}
    for start, end, kind in view.syntax.nodes.tolist():
        name = view.syntax.kinds[kind]
        group = (
            "return_*" if name == "return_statement"
            else "*_statement" if name.endswith("_statement")
            else "comment" if name == "comment"
            else None
        )  # fmt: skip
        if group and 5 <= end - start <= view.size * 0.5 and slow_tokens(view, start, end) <= 40:
            sizes[group][start, end] += end - start
    assert all(sizes[group] for group in ("return_*", "*_statement", "comment"))
    law: dict[Span, float] = {}
    for group, share in (("return_*", 0.5), ("*_statement", 1 / 6), ("comment", 1 / 3)):
        for span, size in sizes[group].items():
            law[span] = law.get(span, 0.0) + share * size / sizes[group].total()
    strategy = AstNode(weights=weights, max_tokens=40)
    assert_spans_follow([strategy.draw(view, Draws("kind", key)) for key in range(6_000)], law)


@pytest.mark.parametrize("weights", [{"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": "1"}])
def test_bad_weights_of_kinds(weights: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="weights") as caught:
        validate(AstNode, {"weights": weights})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"min_bytes": 0}, {"max_share": 0.0}, {"max_share": 1.1}, {"max_tokens": 0}, {"max_tokens": 1.5}]
)
def test_bad_limits(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))):
        validate(AstNode, options)


def tree_of(syntax: Syntax) -> list[Tree]:
    """Nested nodes from preorder by a stack, one at a time."""
    roots: list[Tree] = []
    stack: list[Tree] = []
    for start, end, kind in syntax.nodes.tolist():
        while stack and stack[-1].end <= start:
            stack.pop()
        node = Tree(start, end, kind)
        (stack[-1].children if stack else roots).append(node)
        stack.append(node)
    return roots


def aligned_law(view: TextView, longest: int, most: int) -> tuple[dict[Span, float], float]:
    """Probability of each span: every length alike, then every start with so much behind it, each aligned by trying all
    runs. And the share of draws that give a span at all."""
    assert view.syntax is not None
    forest = tree_of(view.syntax)
    borders = view.token_offsets.tolist()
    chances: dict[Span, float] = defaultdict(float)
    for left in range(view.size):
        token = next(index for index in range(len(borders)) if borders[index + 1] > left)
        for length in range(1, longest + 1):
            if token + length >= len(borders):
                continue
            span = (left, borders[token + length])
            runs, around = slow_runs(forest, span)
            # Of equals the longest run, then the first.
            order = [(overlap(ends_of(run), span), len(run), -run[0].start) for run in runs]
            run = runs[order.index(max(order))] if runs else []
            if not run or overlap(ends_of(run), span) == 0:
                run = [around] if around else []
            while len(run) > 1 and "comment" in view.syntax.kinds[run[-1].kind]:
                run = run[:-1]
            if run and slow_tokens(view, *ends_of(run)) <= most and ends_of(run) != (0, view.size):
                chances[ends_of(run)] += 1.0 / longest / borders[len(borders) - length]
    share = sum(chances.values())
    return {span: chance / share for span, chance in chances.items()}, share


@pytest.mark.parametrize("most", [100, 9])
def test_aligned_spans_follow_their_law(tokenizer: Tokenizer, most: int) -> None:
    text = "def f(one, two):\n    call(one)\n    # why\n    two = [1, one]\n    # end\n\nf(10, 20)\n"
    view = parsed(tokenizer, text)
    strategy = validate(AstAligned, {"length": {"kind": "uniform", "low": 1, "high": 12}, "max_tokens": most})
    law, share = aligned_law(view, 12, most)
    assert len(law) > 8
    found = [strategy.draw(view, Draws("aligned", key)) for key in range(6_000)]
    assert_spans_follow([span for span in found if span is not None], law)
    # Eight draws in a row without a run give none.
    assert_share(found.count(None), 6_000, (1.0 - share) ** 8)


def siblings(forest: list[Tree]) -> Iterator[list[Tree]]:
    yield forest
    for node in forest:
        yield from siblings(node.children)


def test_cuts_of_real_code(tokenizer: Tokenizer, library: list[str]) -> None:
    text = library[0]
    whole = TextView(tokenizer, tokenizer.encode_array(text), python_syntax(text))
    assert whole.syntax is not None
    # A piece without its document's top node: what is left is a forest.
    first, last = (len(whole.tokens) // 4, 3 * len(whole.tokens) // 4)
    start, stop = (int(whole.token_offsets[token]) for token in (first, last))
    view = TextView(tokenizer, whole.tokens[first:last], whole.syntax.within(start, stop))
    assert view.syntax is not None
    runs = list(siblings(tree_of(view.syntax)))
    allowed = {(one.start, two.end) for row in runs for index, one in enumerate(row) for two in row[index:]}
    aligned: list[SpanStrategy] = [AstNode(), AstAligned()]
    for strategy in aligned:
        spans = [strategy.draw(view, Draws(key)) for key in range(500)]
        assert None not in spans
        assert set(spans) <= allowed
        assert len(set(spans)) > 100
        for span in spans:
            assert span is not None
            assert view.tokens_in(*span) == slow_tokens(view, *span) <= 100
            assert view.syntax.kind_at(*span) is not None
    single = {(node.start, node.end) for row in runs for node in row}
    assert {AstNode().draw(view, Draws(key)) for key in range(500)} <= single


def test_cuts_do_not_decode_the_piece(tokenizer: Tokenizer) -> None:
    view = parsed(tokenizer)
    for kind, cls in strategies.members().items():
        strategy = cls()
        assert isinstance(strategy, SpanStrategy)
        for key in range(50):
            strategy.draw(view, Draws(kind, key))
    assert "data" not in vars(view)


def test_presets() -> None:
    default = compose_choice("fim", "default")
    kinds: Counter[str] = Counter()
    for options in default["spans"].values():
        kinds[options["kind"]] += options["weight"]
    assert kinds == pytest.approx({"ast_node": 0.45, "ast_aligned": 0.45, "sized": 0.08, "empty": 0.02})
    assert (default["rate"], default["orders"]) == (0.75, {"psm": 0.5, "spm": 0.5})
    lengths = [options["length"] for options in default["spans"].values() if "length" in options]
    assert lengths == [{"kind": "uniform", "low": 1, "high": 100}] * 2
    weights = compose_choice("fim", "exec-repo")["spans"]["ast_node"]["weights"]
    assert sum(weights.values()) == pytest.approx(1.0)


def test_the_preset_of_kinds_finds_statements_of_code(tokenizer: Tokenizer, library: list[str]) -> None:
    strategy = validate(AstNode, compose_choice("fim", "exec-repo")["spans"]["ast_node"])
    view = parsed(tokenizer, max(library, key=len)[:40_000])
    assert view.syntax is not None
    seen: Counter[str | None] = Counter()
    for key in range(3_000):
        span = strategy.draw(view, Draws(key))
        assert span is not None
        seen[view.syntax.kind_at(*span)] += 1
    assert {"if_statement", "for_statement", "return_statement", "import_statement", "comment"} <= set(seen)
    assert_share(seen["if_statement"], 3_000, 0.15)
