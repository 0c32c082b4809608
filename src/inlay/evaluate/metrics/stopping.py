"""Whether and where an answer ended: the faults that decide how an infilling model feels in an editor.

Works on the raw text and on what the subject said of its end. What nobody said (a file of completions) is None.
"""

from functools import cache
from re import compile as pattern

from inlay.evaluate.answer import Answer
from inlay.evaluate.metric import Measure, share
from inlay.evaluate.task import Example
from inlay.fim.family import all_families

LOOP_REPEATS = 3
"""A text whose end is this many repetitions of one piece (or more) was caught in a loop."""
LOOP_PIECE = (4, 80)
"""Shortest and longest piece, in characters."""
COPIED_CHARACTERS = 4
"""A shorter line of the suffix, such as a closing bracket, is no copy worth the name."""

# "</s>", "<pad>" and "[SUFFIX]" stand in honest HTML and prose.
_ORDINARY = pattern(r"[<\[]/?[A-Za-z]+[>\]]")


def stopping(example: Example, answer: Answer, gold_tokens: int | None) -> dict[str, Measure | None]:
    """All measures of ending, for an answer to an example whose gold has `gold_tokens` tokens (None: unknown)."""
    gold, text = example.middle, answer.text
    by_itself = None if answer.stopped == "unknown" else answer.stopped == "eot"
    ran_out = None if answer.stopped == "unknown" else answer.stopped in ("limit", "deadline")
    beyond = None if gold_tokens is None or answer.tokens is None else answer.tokens - gold_tokens
    beginning = gold.startswith(text) and text != gold
    return {
        "stopped": share(by_itself),
        "overrun_tokens": None if beyond is None else (float(max(0, beyond)), 1.0),
        "underrun_tokens": None if beyond is None else (float(max(0, -beyond)), 1.0),
        "continued": share(text.startswith(gold) and text != gold),
        "underrun": share(None if by_itself is None or not gold else by_itself and beginning),
        "empty": share(not text if gold else None),
        "empty_right": share(None if gold else not text),
        "suffix_copied": share(copies_suffix(text, gold, example.suffix)),
        "looped": share(None if ran_out is None else ran_out and loops(text)),
        "leaked": share(leaks(example, answer)),
    }


def loops(text: str) -> bool:
    """Whether the end of `text` is one piece of LOOP_PIECE characters at least LOOP_REPEATS times over."""
    shortest, longest = LOOP_PIECE
    for period in range(shortest, min(longest, len(text) // LOOP_REPEATS) + 1):
        tail = text[-LOOP_REPEATS * period :]
        if tail[period:] == tail[:-period]:
            return True
    return False


def copies_suffix(text: str, gold: str, suffix: str) -> bool | None:
    """Whether `text` ends with the suffix's first line that is not blank; None where that says nothing: the line is
    shorter than COPIED_CHARACTERS, or the gold ends with it too."""
    line = next((line.strip() for line in suffix.splitlines() if line.strip()), "")
    if len(line) < COPIED_CHARACTERS or gold.rstrip().endswith(line):
        return None
    return text.rstrip().endswith(line)


def leaks(example: Example, answer: Answer) -> bool:
    """Whether something stands in the answer that belongs into no file: the subject says so, bytes are broken, or the
    text spells a sentinel that the example does not have."""
    if answer.leaked or answer.broken_bytes:
        return True
    spelled = [one for one in sentinel_texts() if one in answer.text]
    return any(one not in example.document for one in spelled)


@cache
def sentinel_texts() -> tuple[str, ...]:
    """Control strings of every format family, but for those that ordinary text may contain."""
    strings = {text for family in all_families().values() for text in family.strings().values()}
    return tuple(sorted(text for text in strings if not _ORDINARY.fullmatch(text)))
