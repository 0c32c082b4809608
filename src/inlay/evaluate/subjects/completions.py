"""Answers that were made elsewhere, from a file of JSON lines: anybody's outputs, scored by this harness.

A line is {"task_id", "completion"}, the sample format of HumanEval-Infilling (2207.14255), where several lines of one
id are its samples in file order; or {"id", "completion" or "middle" or "text"} with, where they are known, "stopped",
"tokens", "logprob" (nats, with the terminator's) and "sample" (0, 1, ...). The items file that an evaluation writes
reads back as well, each of its orders apart. Other fields are passed over.

It refuses what would make part of a result look like a whole one: ids that the task does not have, examples without an
answer, more answers to one example than to another. With a limit only the examples asked for need an answer.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from inlay.config import BadInput
from inlay.evaluate.answer import Answer, Ended
from inlay.evaluate.rows import Row, read_rows
from inlay.evaluate.subject import Decoding, Subject
from inlay.evaluate.task import Example, Examples, Place

GIVEN = "given"
"""The order of answers that do not say in which they were made."""

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_TEXTS = ("completion", "middle", "text")
_BEST_OF = re.compile(r" best of \d+$")
_NAMED = 3


class Given(Decoding):
    """How answers were made that nobody asked for here: only their number is known."""

    @property
    def title(self) -> str:
        """For people."""
        return "as given" if self.samples == 1 else f"as given, {self.samples} samples"

    def to_dict(self) -> dict[str, Any]:
        """What is known."""
        return {"samples": self.samples}


class CompletionsSubject(Subject):
    """The answers of one file. `samples` says how many each example has; the decoding that is asked for has no say."""

    samples: int

    def __init__(self, path: str | Path) -> None:
        """Raises BadInput in one line when the file cannot be read or any line is not an answer."""
        self.path = Path(path)
        if not self.path.is_file():
            what = "is a folder, not a file" if self.path.is_dir() else "is not there"
            raise BadInput(f"the completions file '{self.path}' {what}: give a file of JSON lines")
        if not self.path.name.endswith(ENDINGS):
            raise BadInput(f"the completions file '{self.path}' is none of {', '.join(ENDINGS)}")
        rows = read_rows(Place(data=str(self.path.absolute())), sample="")
        self._hash = rows.hash
        self._lines = len(rows.rows)
        self._answers: dict[str, dict[str, list[Answer]]] = {}
        for order, found in _by_order(rows.rows).items():
            self._answers[order] = {name: _in_order(lines) for name, lines in found.items()}
        self.orders = tuple(self._answers)
        self.samples = self._count()
        self._matched = False

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.path.name,
            "kind": "completions",
            "step": None,
            "weights_hash": None,
            "completions_hash": self._hash,
            "lines": self._lines,
            "samples": self.samples,
        }

    @property
    def key(self) -> str | None:
        """None: reading the file again is cheaper than a cache."""
        return None

    def decoding(self, asked: Decoding, examples: Examples) -> Decoding:
        """As many samples as the file has; `examples` are matched first, see `match`."""
        self.match(examples)
        self._check_samples(asked)
        # Several samples at an unknown temperature: nothing to validate.
        return Given.model_construct(samples=self.samples)

    def match(self, examples: Examples) -> None:
        """Compares the file's ids with a task's list; with a limit (`examples.of` is more than its items) ids beyond it
        are taken to be the task's. Raises BadInput that names and counts what is missing or unknown."""
        self._check(examples.items, examples.of, whole=len(examples.items) == examples.of)
        self._matched = True

    def answers(
        self, examples: Sequence[Example], order: str, max_tokens: int, decoding: Decoding
    ) -> Iterator[tuple[int, list[Answer]]]:
        """As `Subject.answers`, `samples` of them each. Without a `match` before, `examples` is taken for the whole
        list, and ids beyond it are refused."""
        if order not in self._answers:
            raise BadInput(f"'{self.path}' has no answers in order '{order}'; it has {', '.join(self.orders)}")
        self._check_samples(decoding)
        if not self._matched:
            self._check(examples, len(examples), whole=True)
        self._refuse_missing(order, [example.id for example in examples], len(examples))
        found = self._answers[order]
        return iter([(index, list(found[example.id])) for index, example in enumerate(examples)])

    def _check_samples(self, asked: Decoding) -> None:
        if asked.samples not in (1, self.samples):
            raise BadInput(f"samples = {asked.samples}: '{self.path}' has {self.samples} of each; leave samples out")

    def _check(self, examples: Sequence[Example], of: int, *, whole: bool) -> None:
        ids = [example.id for example in examples]
        asked = set(ids)
        for order, found in self._answers.items():
            unknown = [name for name in found if name not in asked] if whole else []
            if unknown:
                hint = "" if len(unknown) < len(found) else ": none is the task's, so this is another task's file"
                raise BadInput(
                    f"'{self.path}'{_in(order)} answers {len(unknown)} ids that the task does not have"
                    f" ({_some(unknown)}){hint}"
                )
            self._refuse_missing(order, ids, of)

    def _refuse_missing(self, order: str, ids: Sequence[str], of: int) -> None:
        found = self._answers[order]
        missing = [name for name in ids if name not in found]
        if missing:
            first = ids.index(missing[0])
            hint = f", or score the first {first} alone with --limit {first}" if first else ""
            raise BadInput(
                f"'{self.path}'{_in(order)} lacks answers to {len(missing)} of {len(ids)} examples"
                f"{'' if of == len(ids) else f' (the first of {of})'}: {_some(missing)}; complete the file{hint}"
            )

    def _count(self) -> int:
        counts: dict[int, list[str]] = {}
        for order, found in self._answers.items():
            for name, answers in found.items():
                counts.setdefault(len(answers), []).append(f"{name}{_in(order)}")
        usual = max(counts, key=lambda count: len(counts[count]))
        odd = {count: names for count, names in counts.items() if count != usual}
        if odd:
            total = sum(map(len, odd.values()))
            count, names = max(odd.items(), key=lambda item: len(item[1]))
            raise BadInput(
                f"'{self.path}' has {usual} answers to most examples and another number to {total}: {count} to"
                f" {_some(names)}; give each as many (a line that stands twice counts twice)"
            )
        return usual


def _by_order(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[Row, Answer]]]]:
    found: dict[str, dict[str, list[tuple[Row, Answer]]]] = {}
    for row in rows:
        # A line of best-of-n repeats a sample that has a line of its own.
        if _BEST_OF.search(row.text_or("row", "")):
            continue
        order = row.text_or("order", GIVEN)
        found.setdefault(order, {}).setdefault(_id(row), []).append((row, _answer(row)))
    if len(found) > 1 and GIVEN in found:
        row = next(iter(found[GIVEN].values()))[0][0]
        row.refuse("order", "is missing, and other lines have one")
    if not found:
        raise BadInput(f"{rows[0].where}: only lines of best-of-n, which repeat answers that are not there")
    return found


def _id(row: Row) -> str:
    keys = [key for key in ("id", "task_id") if row.data.get(key) is not None]
    if len(keys) == 2 and row.data["id"] != row.data["task_id"]:
        row.refuse("id", "and field 'task_id' differ; leave one out")
    return row.filled(keys[0] if keys else "task_id")


def _answer(row: Row) -> Answer:
    keys = [key for key in _TEXTS if key in row.data]
    if len(keys) > 1:
        row.refuse(keys[0], f"and field '{keys[1]}' both stand there; keep the completion")
    text = row.text(keys[0] if keys else _TEXTS[0])
    stopped: Ended = "unknown"
    if row.data.get("stopped") is not None:
        named = row.text("stopped")
        if named not in get_args(Ended):
            row.refuse("stopped", f"is '{named[:40]}', not one of {', '.join(get_args(Ended))}")
        stopped = named  # type: ignore[assignment]
    tokens = None if row.data.get("tokens") is None else row.integer("tokens")
    if tokens is not None and tokens < 0:
        row.refuse("tokens", f"is {tokens}, less than none")
    logprob = None if row.data.get("logprob") is None else row.number("logprob")
    if logprob is not None and logprob > 0.0:
        row.refuse("logprob", f"is {logprob:g}, and no logarithm of a probability is above 0")
    return Answer(text=text, stopped=stopped, tokens=tokens, logprob=logprob)


def _in_order(lines: list[tuple[Row, Answer]]) -> list[Answer]:
    """The samples of one example: in file order, or by their numbers where they have some."""
    numbered = [row.data.get("sample") is not None for row, _ in lines]
    if not any(numbered):
        return [answer for _, answer in lines]
    found: dict[int, Answer] = {}
    for row, answer in lines:
        number = row.integer("sample")
        if number in found:
            row.refuse("sample", f"is {number}, which another line of the same id has")
        if not 0 <= number < len(lines):
            row.refuse("sample", f"is {number}, and its id has {len(lines)} lines: number them from 0")
        found[number] = answer
    return [found[number] for number in range(len(lines))]


def _in(order: str) -> str:
    return "" if order == GIVEN else f" (order {order})"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in islice(names, _NAMED))
    return shown if len(names) <= _NAMED else f"{shown}, ..."
