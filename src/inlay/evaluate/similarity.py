"""Edit similarity: 1 minus the Levenshtein distance over the longer length, by characters.

The distance is the classic dynamic programme (Wagner and Fischer, 1974), a row at a time in numpy: the in-row
recurrence `d[j] = min(d[j], d[j - 1] + 1)` is a running minimum of `d[j] - j`.
"""

import numpy as np


def edit_distance(left: str, right: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn `left` into `right`."""
    left, right = _without_common_ends(left, right)
    if len(left) > len(right):
        left, right = right, left
    if not left:
        return len(right)
    target = np.frombuffer(right.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    ramp = np.arange(len(right) + 1)
    row = ramp
    for count, character in enumerate(left, start=1):
        following = np.empty_like(row)
        following[0] = count
        np.minimum(row[:-1] + (target != ord(character)), row[1:] + 1, out=following[1:])
        row = np.minimum.accumulate(following - ramp) + ramp
    return int(row[-1])


def edit_similarity(left: str, right: str) -> float:
    """1 for equal texts, 0 for texts that share nothing; two empty texts are equal."""
    longest = max(len(left), len(right))
    return 1.0 if longest == 0 else 1.0 - edit_distance(left, right) / longest


def _without_common_ends(left: str, right: str) -> tuple[str, str]:
    shortest = min(len(left), len(right))
    start = 0
    while start < shortest and left[start] == right[start]:
        start += 1
    stop = 0
    while stop < shortest - start and left[-1 - stop] == right[-1 - stop]:
        stop += 1
    return left[start : len(left) - stop], right[start : len(right) - stop]
