"""What a model wrote against what stood there, as runs of equal, missing and inserted text.

The texts are compared by words, spaces one by one and signs one by one (the greedy O(ND) search of Myers, 1986), then
a changed word by its characters where most of it is kept. It refuses to look for order where there is none: beyond
MOST_CHANGES differing pieces the texts count as replaced, which also bounds its time on hostile text.
"""

import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["equal", "missing", "inserted"]
Run = tuple[Kind, str]
"""Equal and missing runs joined are the gold; equal and inserted runs joined are the model's text."""

MOST_CHANGES = 300
_PIECES = re.compile(r"\w+|\s|[^\w\s]")
_WORD = re.compile(r"\w")


def diff(gold: str, text: str) -> list[Run]:
    """The way from `gold` to `text`: runs in reading order, none empty, missing before inserted in one place."""
    start = _shared(gold, text)
    # A border inside a word would tell a longer name as "the same, then more" where another word was written.
    while start > 0 and _inside_word(gold, text, start):
        start -= 1
    before, gold, text = gold[:start], gold[start:], text[start:]
    left, right = _PIECES.findall(gold), _PIECES.findall(text)
    pairs = shortest_edits(left, right, MOST_CHANGES)
    runs: list[Run] = [("equal", before)]
    if pairs is None:
        runs.extend((("missing", gold), ("inserted", text)))
    else:
        at_left = at_right = 0
        for x, y in [*pairs, (len(left), len(right))]:
            runs.extend((("missing", "".join(left[at_left:x])), ("inserted", "".join(right[at_right:y]))))
            if x < len(left):
                runs.append(("equal", left[x]))
            at_left, at_right = x + 1, y + 1
    return _joined([run for group in _refined(_bridged(_joined(runs))) for run in group])


def shortest_edits(left: Sequence[str], right: Sequence[str], most: int) -> list[tuple[int, int]] | None:
    """Index pairs of a longest common subsequence, rising; None when more than `most` pieces differ.

    O((N + M) D) time and O(D^2) memory for D differing pieces (Myers, "An O(ND) difference algorithm and its
    variations", 1986, the basic greedy search).
    """
    total = len(left) + len(right)
    furthest = {1: 0}
    trail: list[dict[int, int]] = []
    for changes in range(min(most, total) + 1):
        trail.append(dict(furthest))
        for k in range(-changes, changes + 1, 2):
            down = k == -changes or (k != changes and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            y = x - k
            while x < len(left) and y < len(right) and left[x] == right[y]:
                x, y = x + 1, y + 1
            furthest[k] = x
            if x >= len(left) and y >= len(right):
                return _walk_back(trail, len(left), len(right))
    return None


def _walk_back(trail: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs = []
    for changes in range(len(trail) - 1, -1, -1):
        furthest, k = trail[changes], x - y
        down = k == -changes or (k != changes and furthest[k - 1] < furthest[k + 1])
        before_k = k + 1 if down else k - 1
        before_x = furthest[before_k] if changes else 0
        before_y = before_x - before_k if changes else 0
        while x > before_x and y > before_y:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = before_x, before_y
    return pairs[::-1]


def _joined(runs: list[Run]) -> list[Run]:
    """Changes between two equal runs as one missing and one inserted run; equal runs in one piece; none empty."""
    done: list[Run] = []
    missing = inserted = ""
    for kind, text in [*runs, ("equal", "")]:
        if kind == "missing":
            missing += text
        elif kind == "inserted":
            inserted += text
        elif text or (missing or inserted):
            if missing:
                done.append(("missing", missing))
            if inserted:
                done.append(("inserted", inserted))
            if text and done and done[-1][0] == "equal":
                done[-1] = ("equal", done[-1][1] + text)
            elif text:
                done.append(("equal", text))
            # Only an equal run that stands between closes a change; the last, empty one closes the text.
            missing = inserted = ""
    return done


def _bridged(runs: list[Run]) -> list[Run]:
    """A bracket or a space that happens to be equal between two changes is part of the change: easier to read."""
    changed: list[Run] = []
    for index, (kind, text) in enumerate(runs):
        amid = 0 < index < len(runs) - 1
        if kind == "equal" and amid and len(text) <= 2 and not _WORD.search(text) and "\n" not in text:
            changed.extend((("missing", text), ("inserted", text)))
        else:
            changed.append((kind, text))
    return _joined(changed)


def _refined(runs: list[Run]) -> list[list[Run]]:
    """A missing word with an inserted one after it, split where they begin or end alike for at least half."""
    groups: list[list[Run]] = []
    index = 0
    while index < len(runs):
        pair = runs[index : index + 2]
        if [kind for kind, _ in pair] == ["missing", "inserted"]:
            groups.append(_split_pair(pair[0][1], pair[1][1]))
            index += 2
        else:
            groups.append([runs[index]])
            index += 1
    return groups


def _split_pair(gold: str, text: str) -> list[Run]:
    start = _shared(gold, text)
    end = min(_shared(gold[::-1], text[::-1]), min(len(gold), len(text)) - start)
    if 2 * (start + end) < max(len(gold), len(text)):
        return [("missing", gold), ("inserted", text)]
    runs: list[Run] = [
        ("equal", gold[:start]),
        ("missing", gold[start : len(gold) - end]),
        ("inserted", text[start : len(text) - end]),
        ("equal", gold[len(gold) - end :]),
    ]
    return [run for run in runs if run[1]]


def _shared(first: str, second: str) -> int:
    """Characters at the beginning that are equal; halving keeps it quick on a text of one long line."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _inside_word(gold: str, text: str, at: int) -> bool:
    before = bool(_WORD.match(gold[at - 1]))
    return before and any(at < len(one) and _WORD.match(one[at]) for one in (gold, text))
