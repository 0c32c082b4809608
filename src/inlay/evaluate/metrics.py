"""Scores one completion against its gold: text measures on the raw text, and whether and where it stopped.

Nothing is stripped or cut before scoring, because light editing decides the score (dropping one newline breaks half of
the gold answers of a public benchmark). `first_line` is the one post-processed score: both sides cut at their first
line end. `syntax_valid` is measured for Python alone and only where the gold document compiles; elsewhere it is None,
which means "not measured" and never counts as wrong.
"""

import math
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

from inlay.evaluate.similarity import edit_similarity
from inlay.evaluate.task import Example
from inlay.infer.engine import Generation

Measure = tuple[float, float]
"""A summand and its weight; a score is the sum of summands over the sum of weights, over all examples at once."""

LOOP_REPEATS = 3
"""A completion that reached its budget in this many repetitions of one piece (or more) was caught in a loop."""


@dataclass(frozen=True)
class Metric:
    """How a score is read. `better` is "high", "low", or None where neither is better; `share` scores lie in 0 to 1."""

    name: str
    title: str
    meaning: str
    better: str | None
    share: bool = True


METRICS: tuple[Metric, ...] = (
    Metric("exact", "exact", "the raw text equals the gold", "high"),
    Metric("edit_similarity", "edit sim.", "1 - character edit distance / longer length, raw text", "high"),
    Metric("first_line", "first line", "post-processed: equal up to the first line end", "high"),
    Metric("syntax_valid", "valid", "Python that compiles with the completion in place, where the gold does", "high"),
    Metric("stopped", "stops", "ended with its terminator inside the budget", "high"),
    Metric("overrun_tokens", "overrun", "mean tokens beyond the gold's length", "low", share=False),
    Metric("continued", "runs on", "begins with the gold and continues", "low"),
    Metric("underrun", "too short", "stopped at a proper beginning of the gold", "low"),
    Metric("empty", "empty", "stopped without any text", "low"),
    Metric("suffix_copied", "copies suffix", "ends with the suffix's first line where the gold does not", "low"),
    Metric("looped", "loops", "reached the budget repeating itself", "low"),
    Metric(
        "leaked",
        "leaks",
        "contains a special token or broken UTF-8, or ended at a stop token that is not the terminator",
        "low",
    ),
    Metric(
        "middle_nats",
        "nats/token",
        "loss of the gold middle per token, teacher-forced, without terminator",
        "low",
        share=False,
    ),
    Metric("middle_bpb", "bits/byte", "the same loss in bits per byte of the middle", "low", share=False),
    Metric("terminator_nats", "end nats", "loss of the terminator after the gold middle", "low", share=False),
)


@dataclass(frozen=True)
class Scored:
    """An example, what a model made of it, and the measures by metric name (None: not measured)."""

    example: Example
    generation: Generation
    measures: dict[str, Measure | None]

    @property
    def exact(self) -> bool:
        """Whether the raw text equals the gold."""
        return self.generation.text == self.example.middle


class Judge:
    """Scores completions; remembers which gold documents compile."""

    def __init__(self, special_ids: frozenset[int]) -> None:
        """`special_ids`: every special token of the tokenizer, none of which belongs into code."""
        self._special_ids = special_ids
        self._clean: dict[str, bool | None] = {}

    def clean(self, example: Example) -> bool | None:
        """Whether the untouched document compiles; None where that is not measured."""
        document = example.document
        if document.id not in self._clean:
            self._clean[document.id] = compiles(document.text, document.path) if document.language == "python" else None
        return self._clean[document.id]

    def score(self, example: Example, generation: Generation) -> Scored:
        """All measures of one completion."""
        gold, text = example.middle, generation.text
        stopped = generation.stopped == "eot"
        proper_beginning = gold.startswith(text) and text != gold
        measures: dict[str, Measure | None] = {
            "exact": _share(text == gold),
            "edit_similarity": (edit_similarity(text, gold), 1.0),
            "first_line": _share(_first_line(text) == _first_line(gold)),
            "syntax_valid": self._valid(example, text),
            "stopped": _share(stopped),
            "overrun_tokens": (float(max(0, len(generation.ids) - example.tokens)), 1.0),
            "continued": _share(text.startswith(gold) and text != gold),
            "underrun": _share(stopped and proper_beginning),
            "empty": _share(not text and bool(gold)),
            "suffix_copied": _share(_copies_suffix(text, gold, example.suffix)),
            "looped": _share(generation.stopped == "limit" and loops(text)),
            "leaked": _share(self._leaks(generation)),
            **_loss(example, generation),
        }
        return Scored(example, generation, measures)

    def _valid(self, example: Example, text: str) -> Measure | None:
        if not self.clean(example):
            return None
        if text == example.middle:
            return 1.0, 1.0
        return _share(compiles(example.prefix + text + example.suffix, example.document.path))

    def _leaks(self, generation: Generation) -> bool:
        broken = generation.invalid_bytes > 0 or (generation.stopped == "eot" and generation.dropped_bytes > 0)
        return broken or generation.stopped == "sentinel" or any(i in self._special_ids for i in generation.ids)


@lru_cache(maxsize=4096)
def compiles(text: str, path: str) -> bool:
    """Whether `text` is a Python module that compiles. Warnings (invalid escapes and the like) do not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            compile(text, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            return False
    return True


def loops(text: str) -> bool:
    """Whether the end of `text` is one piece of 4 to 80 characters at least LOOP_REPEATS times over."""
    for period in range(4, min(80, len(text) // LOOP_REPEATS) + 1):
        tail = text[-LOOP_REPEATS * period :]
        if tail[period:] == tail[:-period]:
            return True
    return False


def _share(fact: bool) -> Measure:
    return float(fact), 1.0


def _first_line(text: str) -> str:
    return re.split(r"\r\n|\r|\n", text, maxsplit=1)[0]


def _copies_suffix(text: str, gold: str, suffix: str) -> bool:
    line = next((line.strip() for line in suffix.splitlines() if line.strip()), "")
    # A closing bracket or quote is no copy worth the name.
    return len(line) >= 4 and text.rstrip().endswith(line) and not gold.rstrip().endswith(line)


def _loss(example: Example, generation: Generation) -> dict[str, Measure | None]:
    """The gold's loss from the log-probabilities of its ids and of the terminator after them."""
    if generation.reference_logprobs is None:
        return {"middle_nats": None, "middle_bpb": None, "terminator_nats": None}
    *middle, terminator = generation.reference_logprobs
    nats = -math.fsum(middle)
    return {
        "middle_nats": (nats, float(len(middle))),
        "middle_bpb": (nats / math.log(2.0), float(len(example.middle.encode("utf-8")))),
        "terminator_nats": (-terminator, 1.0),
    }
