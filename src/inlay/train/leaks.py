"""Whether held-out documents are in the training text: exactly, or for the most part.

`inlay prepare` takes copies of training documents out of what it holds out. Stores that were made otherwise, or mixed
later, may still share text, and validation then measures memory. Equal documents are found wherever they are. Copies
are found through runs of WINDOW tokens: those of training at every WINDOW-th token of a document, those of a held-out
document at every token, so that no common run of 2 WINDOW - 1 tokens is missed. Both sides are bounded: so many
held-out documents, so many training tokens, spread evenly.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inlay.text.store import StoreSplit
from inlay.train.guards import Finding

WINDOW = 32
FEWEST_TOKENS = 4 * WINDOW
"""Of a held-out document: a shorter one (an empty `__init__.py`, a re-export) may well be there twice."""
DOCUMENTS = 64
"""Held-out documents that are looked for."""
TOKENS = 4096
"""Of a held-out document, from its beginning."""
SCANNED = 1 << 24
"""Training tokens: less than a second."""
COPIED = 0.7
"""Share of a document's tokens in runs that training has too."""
LEAKED = 0.1
"""Share of the held-out text in such documents that stops a run."""
EXAMPLES = 3

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers stay invertible modulo 2^64


@dataclass(frozen=True)
class Leaks:
    """What was found. `share`: of the tokens of the held-out sample; `coverage`: of the training tokens, scanned."""

    documents: int
    share: float
    coverage: float
    copies: tuple[tuple[str, str], ...]
    """Paths of held-out documents and of training documents that they share most with."""


def find_leaks(
    held_out: StoreSplit, training: Sequence[StoreSplit], documents: int = DOCUMENTS, scanned: int = SCANNED
) -> Leaks:
    """Looks for up to `documents` of `held_out` in up to `scanned` tokens of `training`, splits of one tokenizer."""
    long = np.flatnonzero(np.asarray(held_out.lengths) >= FEWEST_TOKENS)
    chosen = long[np.linspace(0, len(long) - 1, min(documents, len(long))).round().astype(int)] if len(long) else long
    texts = [_tokens(held_out, int(index), TOKENS) for index in chosen]
    marked = [np.zeros(len(text), dtype=bool) for text in texts]
    sources: list[Counter[tuple[int, int]]] = [Counter() for _ in texts]
    known = _known(texts)
    total = sum(split.token_count for split in training)
    read = 0
    for number, split in enumerate(training):
        for index in _equal(held_out, chosen, split):
            place = int(index[0])
            marked[place][:] = True
            sources[place][number, int(index[1])] += len(texts[place])
        budget = scanned * split.token_count // max(1, total)
        for index in _spread(split, budget):
            read += int(split.lengths[index])
            for place, offset in known.find(_strided(_tokens(split, index))):
                marked[place][offset : offset + WINDOW] = True
                sources[place][number, index] += WINDOW
    leaked = [place for place, mark in enumerate(marked) if mark.mean() >= COPIED]
    copies = []
    for place in leaked[:EXAMPLES]:
        number, index = sources[place].most_common(1)[0][0]
        copies.append((held_out.document(int(chosen[place])).path, training[number].document(index).path))
    size = sum(map(len, texts))
    share = sum(len(texts[place]) for place in leaked) / size if size else 0.0
    return Leaks(len(texts), share, min(1.0, read / total) if total else 1.0, tuple(copies))


def leaking_validation(leaks: Leaks, store: str) -> Finding | None:
    """What `leaks` mean for the validation split of `store`."""
    if not leaks.copies:
        return None
    pairs = ", ".join(f"{one} (as {other})" if one != other else one for one, other in leaks.copies)
    scanned = "" if leaks.coverage > 0.99 else f" in the {leaks.coverage:.0%} of it that was searched"
    return Finding(
        "leaking_validation",
        f"{leaks.share:.0%} of the held-out text of {store} is in the training text{scanned}, such as {pairs}: prepare"
        " the store again from all sources together, or choose another split",
        stops=leaks.share > LEAKED * leaks.coverage,
    )


class _Known:
    """Where each run of WINDOW tokens stands in the held-out texts."""

    def __init__(self, hashes: np.ndarray, places: np.ndarray, offsets: np.ndarray) -> None:
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places, self._offsets = hashes[order], places[order], offsets[order]

    def find(self, hashes: np.ndarray) -> list[tuple[int, int]]:
        """(text, offset) of every run whose hash is among `hashes`."""
        first = np.searchsorted(self._hashes, hashes, side="left")
        end = np.searchsorted(self._hashes, hashes, side="right")
        return [
            (int(self._places[at]), int(self._offsets[at]))
            for hit in np.flatnonzero(end > first)
            for at in range(first[hit], end[hit])
        ]


def _known(texts: Sequence[np.ndarray]) -> _Known:
    found = [np.lib.stride_tricks.sliding_window_view(text, WINDOW) @ _powers() for text in texts]
    sizes = [len(hashes) for hashes in found]
    return _Known(
        np.concatenate(found) if found else np.zeros(0, np.uint64),
        np.repeat(np.arange(len(texts)), sizes),
        np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, int),
    )


def _strided(tokens: np.ndarray) -> np.ndarray:
    whole = len(tokens) // WINDOW
    return np.unique(tokens[: whole * WINDOW].reshape(whole, WINDOW) @ _powers())


def _powers() -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.cumprod(np.full(WINDOW, _BASE, dtype=np.uint64))


def _tokens(split: StoreSplit, index: int, most: int | None = None) -> np.ndarray:
    # One up, so that runs of the id 0 do not all hash to 0.
    tokens = split.tokens(index)[:most].astype(np.uint64)
    return tokens + np.uint64(1)


def _equal(held_out: StoreSplit, chosen: np.ndarray, training: StoreSplit) -> list[tuple[int, int]]:
    """(place among `chosen`, index in training) of documents that are the same from end to end."""
    lengths, sizes = np.asarray(training.lengths), np.asarray(training.byte_lengths)
    found = []
    for place, index in enumerate(chosen.tolist()):
        tokens = held_out.tokens(index)
        alike = np.flatnonzero((lengths == len(tokens)) & (sizes == held_out.byte_lengths[index]))
        found += [(place, int(other)) for other in alike if np.array_equal(tokens, training.tokens(int(other)))]
    return found


def _spread(split: StoreSplit, budget: int) -> list[int]:
    """Documents of about `budget` tokens in all, spread evenly over the split."""
    lengths = np.asarray(split.lengths)
    total = int(lengths.sum())
    if total <= budget:
        return list(range(len(lengths)))
    count = max(1, len(lengths) * budget // total)
    return np.linspace(0, len(lengths) - 1, count).round().astype(int).tolist()
