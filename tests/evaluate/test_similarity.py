from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from inlay.evaluate.similarity import edit_distance, edit_similarity

SHORT = st.text(alphabet="abc \n日🙂", max_size=9)


def witness(left: str, right: str) -> int:
    """The textbook recursion."""

    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        substituted = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(substituted, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(left), len(right))


@given(left=SHORT, right=SHORT)
def test_distance_equals_the_textbook_recursion(left: str, right: str) -> None:
    assert edit_distance(left, right) == witness(left, right)
    longest = max(len(left), len(right))
    assert edit_similarity(left, right) == (1.0 if longest == 0 else 1 - witness(left, right) / longest)


def test_known_pairs() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
    assert edit_similarity("", "") == 1.0
    assert edit_similarity("abc", "xyz") == 0.0
    assert edit_distance("a" * 2000, "a" * 1000 + "b" + "a" * 1000) == 1


@given(left=SHORT, right=SHORT)
def test_similarity_is_a_symmetric_share(left: str, right: str) -> None:
    assert edit_similarity(left, right) == edit_similarity(right, left)
    assert 0.0 <= edit_similarity(left, right) <= 1.0
    assert (edit_similarity(left, right) == 1.0) == (left == right)


@given(left=st.text(alphabet="ab", min_size=60, max_size=90), right=st.text(alphabet="ab", min_size=60, max_size=140))
def test_distance_beyond_a_machine_word(left: str, right: str) -> None:
    assert edit_distance(left, right) == witness(left, right)
