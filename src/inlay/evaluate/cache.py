"""Answers, losses and outcomes on disk, so that an evaluation that was killed asks only for what is missing.

An entry is found again under what was asked (surroundings, other files, example id, order, budget, decoding; for losses
the gold, for outcomes the program) of whom (`Subject.key`; the sandbox, system and toolchains). Whatever of that
changes, the entry is simply not found. What is known of nobody (a key of None) is never kept, and nor is an outcome
that may be the machine's fault: out of time, a signal, no toolchain.

A file holds one kind of entry of one subject, order, budget and decoding, a JSON object a line with its own checksum.
Lines are only ever added, each in one write that begins with a line end: a line that a kill or a full disk cut short
spoils itself alone, and several processes may write at once (where two answer the same, the first counts). It grows by
300 to 700 bytes an answer, 120 a loss, 150 an outcome, and never by what it has; remove files, or the folder, at will.
"""

import errno
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import xxhash

from inlay.config import InlayError
from inlay.config.files import disk_errors, json_lines
from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.sandbox.program import Outcome, Program
from inlay.evaluate.subject import Decoding, Subject
from inlay.evaluate.task import Example

VERSION = 1
"""Of the entries' form and of what decides them beside the keys; a new one finds no old entry."""
NOT_KEPT = frozenset({"timeout", "crash", "unavailable"})
"""Causes that another run, or another moment, may not see again."""
NAMED = 3
"""Ids that an error message names."""

T = TypeVar("T")
Progress = Callable[[int], Any]


class RunsPrograms(Protocol):
    """What is asked of a sandbox here."""

    @property
    def name(self) -> str:
        """Of its kind."""
        ...

    def run_many(self, programs: Sequence[Program]) -> Iterable[tuple[int, Outcome]]:
        """Yields (index, outcome) in any order."""
        ...


class Entries:
    """One file of entries: a key and a JSON value each."""

    def __init__(self, path: Path) -> None:
        """Reads what is there, and makes the folder: one that cannot be is better known before the work than after."""
        self.path = path
        self._values: dict[str, Any] = {}
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for line in json_lines(path, quiet=True):  # each has a checksum, and a killed run breaks some
                key, value = line.get("key"), line.get("value")
                if isinstance(key, str) and line.get("sum") == _checksum(key, value):
                    self._values.setdefault(key, value)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of the value; None when there is none, or it is of another form."""
        if key not in self._values:
            return None
        try:
            return read(self._values[key])
        except (TypeError, ValueError, KeyError, AttributeError):
            return None

    def add(self, key: str, value: Any) -> None:
        """Writes an entry at once. Raises InlayError or BadInput, one line, when the disk refuses."""
        line = json.dumps({"key": key, "value": value, "sum": _checksum(key, value)})
        data = f"\n{line}\n".encode("ascii")
        with disk_errors(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                written = os.write(descriptor, data)
                if written < len(data):
                    raise OSError(errno.ENOSPC, "no space left")  # what was cut short is passed over by the next reader
            finally:
                os.close(descriptor)
        self._values.setdefault(key, value)


def cached_answers(
    subject: Subject,
    examples: Sequence[Example],
    order: str,
    max_tokens: int,
    decoding: Decoding,
    folder: Path | None,
    progress: Progress | None = None,
) -> list[list[Answer]]:
    """Each example's `decoding.samples` answers, asking `subject` only for those that `folder` has not.

    `folder` None keeps nothing. `progress` is called with the number of examples that are done since the last call.
    Raises InlayError when the subject leaves an example without its answers.
    """
    asked = [_ask(example) for example in examples]
    whom = ["answers", subject.key, order, max_tokens, decoding.to_dict()]
    entries = _entries(folder, "answers", subject.key, whom)

    def read(value: Any) -> list[Answer]:
        found = [Answer.from_dict(one) for one in value]
        if len(found) != decoding.samples:
            raise ValueError("another number of samples")
        return found

    def missing(indices: list[int]) -> Iterable[tuple[int, list[Answer]]]:
        for at, found in subject.answers([examples[index] for index in indices], order, max_tokens, decoding):
            if len(found) != decoding.samples:
                name = examples[indices[at]].id
                raise InlayError(f"example '{name}' has {len(found)} answers where {decoding.samples} were asked for")
            yield indices[at], found

    found = _collect(asked, entries, read, missing, lambda answers: [one.to_dict() for one in answers], progress)
    return _all(found, examples)


def cached_losses(
    subject: Subject,
    examples: Sequence[Example],
    order: str,
    max_tokens: int,
    folder: Path | None,
    progress: Progress | None = None,
) -> list[Losses | None]:
    """Each example's losses, None where the subject cannot know them; arguments as `cached_answers`."""
    asked = [_digest([_ask(example), example.middle]) for example in examples]
    entries = _entries(folder, "losses", subject.key, ["losses", subject.key, order, max_tokens])

    def missing(indices: list[int]) -> Iterable[tuple[int, Losses]]:
        for at, found in subject.losses([examples[index] for index in indices], order, max_tokens):
            yield indices[at], found

    return _collect(asked, entries, lambda value: Losses.from_dict(value), missing, Losses.to_dict, progress)


def cached_outcomes(
    sandbox: RunsPrograms,
    programs: Sequence[Program | None],
    folder: Path | None,
    progress: Progress | None = None,
    toolchains: dict[str, str] | None = None,
) -> list[Outcome | None]:
    """What became of each program, None where there is none to run; arguments as `cached_answers`.

    `toolchains`: versions by language, where they are known: an outcome is of the versions that made it, as it is of
    the system and of Python. Raises InlayError when the sandbox leaves a program without an outcome.
    """
    versions = toolchains or {}
    asked = [None if one is None else _digest([asdict(one), versions.get(one.language)]) for one in programs]
    entries = _entries(folder, "outcomes", sandbox.name, ["outcomes", sandbox.name, platform.platform(), sys.version])

    def missing(indices: list[int]) -> Iterable[tuple[int, Outcome]]:
        wanted = [program for program in (programs[index] for index in indices) if program is not None]
        for at, found in sandbox.run_many(wanted):
            yield indices[at], found

    found = _collect(
        asked,
        entries,
        Outcome.from_dict,
        missing,
        lambda outcome: None if outcome.cause in NOT_KEPT else outcome.to_dict(),
        progress,
    )
    lost = sum(one is not None and outcome is None for one, outcome in zip(programs, found, strict=True))
    if lost:
        raise InlayError(f"the sandbox '{sandbox.name}' left {lost} of {len(programs)} programs without an outcome")
    return found


def _collect(
    asked: Sequence[str | None],
    entries: Entries | None,
    read: Callable[[Any], T],
    missing: Callable[[list[int]], Iterable[tuple[int, T]]],
    plain: Callable[[T], Any],
    progress: Progress | None,
) -> list[T | None]:
    """What `entries` have, and then what `missing` finds for the other indices, which is written as it comes. What is
    asked as None is not asked; what `plain` makes None of is not written."""
    found: list[T | None] = [None if entries is None or key is None else entries.get(key, read) for key in asked]
    wanted = [index for index, key in enumerate(asked) if key is not None and found[index] is None]
    if progress is not None and len(wanted) < len(asked):
        progress(len(asked) - len(wanted))
    if not wanted:
        return found
    for index, value in missing(wanted):
        if found[index] is not None:
            continue
        found[index] = value
        key, kept = asked[index], plain(value)
        if entries is not None and key is not None and kept is not None:
            entries.add(key, kept)
        if progress is not None:
            progress(1)
    return found


def _all(found: list[list[Answer] | None], examples: Sequence[Example]) -> list[list[Answer]]:
    lost = [example.id for example, answers in zip(examples, found, strict=True) if answers is None]
    if lost:
        names = ", ".join(lost[:NAMED]) + (" ..." if len(lost) > NAMED else "")
        raise InlayError(f"{len(lost)} of {len(examples)} examples have no answer: {names}")
    return [answers for answers in found if answers is not None]


def _entries(folder: Path | None, kind: str, key: str | None, whom: Any) -> Entries | None:
    if folder is None or key is None:
        return None
    return Entries(folder / f"{kind}-{_digest(whom)[:20]}.jsonl")


def _ask(example: Example) -> str:
    """Names what an example shows a model. Its id is part of it, for draws are keyed by it."""
    files = [[file.path, file.text] for file in example.context]
    return _digest([example.id, example.prefix, example.suffix, example.path, example.language, example.repo, files])


def _digest(value: Any) -> str:
    """SHA-256 of plain JSON types, hexadecimal. ASCII escapes hold any string, lone surrogates too."""
    return hashlib.sha256(json.dumps([VERSION, value], sort_keys=True).encode("ascii")).hexdigest()


def _checksum(key: str, value: Any) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps([key, value], sort_keys=True).encode("ascii"))
