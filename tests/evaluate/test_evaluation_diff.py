import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.evaluate.evaluation_diff import MOST_CHANGES, Run, diff, shortest_edits

TEXT = st.text(alphabet="ab_ .()\n\t=é\u2028\0", max_size=30) | st.text(max_size=12)


def sides(runs: list[Run]) -> tuple[str, str]:
    """The two texts that the runs were made of."""
    gold = "".join(text for kind, text in runs if kind != "inserted")
    return gold, "".join(text for kind, text in runs if kind != "missing")


def longest_common(left: str, right: str) -> int:
    """The length of a longest common subsequence by the textbook's table: the witness."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for at, one in enumerate(left):
        for to, other in enumerate(right):
            table[at + 1][to + 1] = table[at][to] + 1 if one == other else max(table[at][to + 1], table[at + 1][to])
    return table[-1][-1]


@given(TEXT, TEXT)
def test_both_texts_come_back(gold: str, text: str) -> None:
    runs = diff(gold, text)
    assert sides(runs) == (gold, text)
    assert all(piece for _, piece in runs), "no empty run"
    assert all(first[0] != second[0] for first, second in pairwise(runs))
    assert ("inserted", "missing") not in pairwise(kind for kind, _ in runs)


@given(TEXT)
def test_a_text_differs_from_itself_in_nothing(text: str) -> None:
    assert diff(text, text) == ([("equal", text)] if text else [])


@given(st.text(alphabet="abc", max_size=14), st.text(alphabet="abc", max_size=14))
def test_as_much_is_kept_as_can_be(left: str, right: str) -> None:
    pairs = shortest_edits(left, right, 99)
    assert pairs is not None
    assert len(pairs) == longest_common(left, right)
    assert all(left[x] == right[y] for x, y in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    fewest = len(left) + len(right) - 2 * len(pairs)
    assert shortest_edits(left, right, fewest) == pairs
    assert fewest == 0 or shortest_edits(left, right, fewest - 1) is None


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        ("total", "totals", [("equal", "total"), ("inserted", "s")]),
        ("total", "tot", [("equal", "tot"), ("missing", "al")]),
        ("foo_bar", "baz_bar", [("missing", "foo"), ("inserted", "baz"), ("equal", "_bar")]),
        ("total", "sum", [("missing", "total"), ("inserted", "sum")]),
        ("    return a\n", "    return a", [("equal", "    return a"), ("missing", "\n")]),
        ("\tb()", "    b()", [("missing", "\t"), ("inserted", "    "), ("equal", "b()")]),
        # Brackets that happen to agree amid two changes are no comfort.
        ("first(one)", "second(two)", [("missing", "first(one"), ("inserted", "second(two"), ("equal", ")")]),
        (
            "a == b and c",
            "a == b or c",
            [("equal", "a == b "), ("missing", "and"), ("inserted", "or"), ("equal", " c")],
        ),
    ],
)
def test_differences_as_people_read_them(gold: str, text: str, expected: list[Run]) -> None:
    assert diff(gold, text) == expected
    assert sides(expected) == (gold, text)


def test_hostile_texts_cost_little() -> None:
    """Processor time, not wall time; the limits are far above what is measured (one second at most here)."""
    for gold, text in (
        ("x" * 100_000, "x" * 99_999 + "y"),
        ("a b " * 25_000, "b a " * 25_000),
        ("( " * 50_000, ") " * 40_000),
    ):
        began = time.process_time()
        assert sides(diff(gold, text)) == (gold, text)
        assert time.process_time() - began < 20
    words = [str(n) for n in range(MOST_CHANGES)]
    assert diff(" ".join(words), " ".join(reversed(words)))[0][0] == "missing", "too unlike: replaced as a whole"
