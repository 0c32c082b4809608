"""What the tests of this folder share: awkward texts, a text as strategies see it, and a chi-square limit."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from hypothesis import strategies as st

from inlay.fim.span import TextView
from inlay.text.tokenizer import Tokenizer

SNIPPETS = (
    "def add(first, second):\n    return first + second\n",
    "    if x:\r\n\t\tpass\r\n",
    "\r\n",
    "\n",
    "\n\n\n",
    "\r",
    "\t",
    " " * 17,
    "x",
    "_private_9",
    "e\u0301a\u0308",
    "日本語",
    "👩‍👩‍👧‍👦",
    "🙂🙂",
    "\ufeff",
    "\x00\x1b[0m",
    "31415926535897932384",
    "-" * 40,
    "<|fim_prefix|><|fim_middle|>",
    "<|endoftext|>",
    "<|fim_suffix|> <|fim_pad|><|file_sep|>",
)


def texts(max_pieces: int = 12) -> st.SearchStrategy[str]:
    """Texts of code, of every line end, of characters that take several tokens, and of sentinel strings."""
    return st.lists(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=12)), max_size=max_pieces).map("".join)


def view_of(tokenizer: Tokenizer, text: str) -> TextView:
    return TextView(tokenizer, tokenizer.encode_array(text))


def is_boundary(data: bytes, position: int) -> bool:
    """Whether both sides of a cut are valid UTF-8, found by decoding and not by looking at bits."""
    try:
        data[:position].decode()
        data[position:].decode()
    except UnicodeDecodeError:
        return False
    return True


def assert_follows(observed: Iterable[int], law: Mapping[int, float], deviations: float = 4.5) -> None:
    """Chi-square test of draws against probabilities by value. Keys are fixed, so a pass today is a pass always.

    Values that are expected less than five times are counted as one. The limit is Wilson and Hilferty's approximation.
    """
    assert math.isclose(sum(law.values()), 1.0, abs_tol=1e-9)
    counts = Counter(observed)
    total = sum(counts.values())
    assert set(counts) <= set(law), sorted(set(counts) - set(law))
    common = [value for value, chance in law.items() if chance * total >= 5.0]
    cells = [(counts[value], law[value] * total) for value in common]
    rest = total - sum(expected for _, expected in cells)
    if rest >= 5.0:
        cells.append((total - sum(found for found, _ in cells), rest))
    freedom = len(cells) - 1
    assert freedom > 0
    found = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    share = 2.0 / (9.0 * freedom)
    assert found < freedom * (1.0 - share + deviations * math.sqrt(share)) ** 3, (found, freedom)


def assert_share(count: int, total: int, chance: float, deviations: float = 4.5) -> None:
    """Whether `count` of `total` is within binomial bounds of `chance`."""
    assert abs(count - total * chance) <= deviations * math.sqrt(total * chance * (1.0 - chance)), (
        count,
        total,
        chance,
    )
