"""The contract of a document source, the registry of its kinds, and the count of what was left out.

A source yields documents in a fixed order and can go on from a position, the number of documents already yielded. It
decides only what cannot be judged from text alone: names, sizes, bytes that are no text. Filters on content come after
(`inlay.text.filters`). Nothing is left out silently: each file that is skipped is counted in `Drops` under a reason.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inlay.config import Config, Registry
from inlay.config.files import open_regular
from inlay.text.document import Document
from inlay.text.tokenizer import endless_run

sources = Registry("source", "inlay.text.sources")

EXAMPLES_PER_REASON = 5


class Drops:
    """What was left out: for each reason a count and the first few paths."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._paths: dict[str, list[str]] = {}

    def add(self, reason: str, path: str, count: int = 1) -> None:
        """Counts `count` items dropped for `reason`; keeps `path` if it is among the first."""
        self._counts[reason] = self._counts.get(reason, 0) + count
        paths = self._paths.setdefault(reason, [])
        if len(paths) < EXAMPLES_PER_REASON:
            # Of a name that is no UTF-8, the bytes that are none as `\\xe9`: no file of ours could hold it.
            paths.append(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))

    def absorb(self, other: "Drops") -> None:
        """Adds what `other` counted and empties it."""
        for reason, count in other._counts.items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            paths = self._paths.setdefault(reason, [])
            paths.extend(other._paths[reason][: EXAMPLES_PER_REASON - len(paths)])
        other.clear()

    def clear(self) -> None:
        self._counts.clear()
        self._paths.clear()

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def count(self, reason: str) -> int:
        return self._counts.get(reason, 0)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """`{reason: {"count": n, "paths": [first few]}}`, by reason."""
        return {
            reason: {"count": self._counts[reason], "paths": self._paths[reason]} for reason in sorted(self._counts)
        }

    def summary(self) -> str:
        """One line such as `3 binary, 1 too large`; `nothing` when all was taken."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {reason}" for reason, count in ordered) or "nothing"


def left_out_line(dropped: Mapping[str, Any], taken: int) -> str | None:
    """One line about what was left out, from `Drops.to_dict` as a manifest keeps it; None when all was taken."""
    counts = {reason: int(entry["count"]) for reason, entry in dropped.items()}
    total = sum(counts.values())
    if not total:
        return None
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in ordered)
    return f"left out {total:,} of {total + taken:,} files and folders: {reasons}"


class Source(Config):
    """Base of all sources. A member adds `kind: Literal[...]`, its options and `_documents`."""

    def documents(self, dropped: Drops, start: int = 0) -> Iterator[Document]:
        """Documents in a fixed order, without the first `start` of them.

        `dropped` receives what was skipped on the way to each document that is yielded (and after the last), so counts
        of a run that was cut and one that goes on from there add up. Raises BadInput when the source cannot be read at
        all.
        """
        skipped = Drops()
        for position, item in enumerate(self._documents(skipped)):
            if position < start:
                skipped.clear()
                continue
            dropped.absorb(skipped)
            yield item
        dropped.absorb(skipped)

    def _documents(self, dropped: Drops) -> Iterator[Document]:
        raise TypeError(f"{type(self).__name__} must define _documents")


class Skipped(Exception):
    """A file that is no document; the message is the reason as counted in `Drops`."""


def read_text(path: Path, max_bytes: int) -> str:
    """The text of one file, without a leading byte-order mark; line ends stay as they are.

    Raises Skipped with the reason: `unreadable`, `too large`, `binary` (holds a NUL byte), `not UTF-8`,
    `endless run of one kind` (see `inlay.text.tokenizer.endless_run`).
    """
    try:
        with open_regular(path) as file:
            data = file.read(max_bytes + 1)
    except OSError:
        raise Skipped("unreadable") from None
    if len(data) > max_bytes:
        raise Skipped("too large")
    if b"\0" in data:
        raise Skipped("binary")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Skipped("not UTF-8") from None
    if endless_run(text) is not None:
        raise Skipped("endless run of one kind")
    return text
