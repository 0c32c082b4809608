"""Equality of texts, as three parties define it. Pure functions of texts; nothing is edited but what a name says."""

import re

from inlay.evaluate.metric import Measure, share
from inlay.evaluate.similarity import edit_similarity

_LINE_END = re.compile(r"\r\n|\r|\n")


def matches(text: str, gold: str, post: str, gold_post: str) -> dict[str, Measure | None]:
    """Exact matches, edit similarities and the first line. `post` and `gold_post` are both sides after the benchmark's
    own rule."""
    # A rule that leaves nothing of the gold would call every answer right that it empties as well.
    target = gold_post if gold_post or not gold else gold
    similarity = edit_similarity(text, gold)
    return {
        "exact": share(text == gold),
        "exact_post": share(post == target),
        "exact_bigcode": share(bigcode_equal(text, gold)),
        "exact_qwen": share(qwen_equal(text, gold) if qwen_equal(gold, gold) else None),
        "edit_similarity": (similarity, 1.0),
        "edit_similarity_post": (
            similarity if (post, target) == (text, gold) else edit_similarity(post, target),
            1.0,
        ),
        "first_line": share(first_line(text) == first_line(gold)),
    }


def first_line(text: str) -> str:
    """Up to the first line end of any kind, without it."""
    return _LINE_END.split(text, maxsplit=1)[0]


def bigcode_equal(text: str, gold: str) -> bool:
    """As bigcode-evaluation-harness compares in its tasks santacoder_fim and starcoder_fim."""
    return text.strip() == gold.strip()


def qwen_line(text: str) -> str:
    """What Qwen's fim-bench keeps of an answer: its first line, or the second after an empty one or a single space,
    stripped."""
    lines = text.split("\n")
    return lines[1 if len(lines) > 1 and lines[0] in ("", " ") else 0].strip()


def qwen_equal(text: str, gold: str) -> bool:
    """As fim-bench compares: the gold is stripped but not cut to a line."""
    return qwen_line(text) == gold.strip()
