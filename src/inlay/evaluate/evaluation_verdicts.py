"""What became of an answer, in the words that people filter by: passed, wrong, ran on, copied the suffix ...

An answer has any number of marks, the one that says most first. It decides which answers count as failures: those whose
tests did not pass, or where nothing ran, those that are not the gold; what nothing judged is neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["good", "bad", "warn", "plain"]


@dataclass(frozen=True)
class Mark:
    """A mark as the page shows it."""

    name: str
    title: str
    tone: Tone
    meaning: str


MARKS: tuple[Mark, ...] = (
    Mark("passed", "passed", "good", "its tests passed"),
    Mark("wrong", "wrong", "bad", "a test said no"),
    Mark("error", "error", "bad", "an exception, or a status other than 0"),
    Mark("compile", "does not compile", "bad", "the compiler or parser refused the file"),
    Mark("left_early", "left early", "bad", "the program ended before its tests did"),
    Mark("timeout", "timeout", "bad", "out of time"),
    Mark("memory", "out of memory", "bad", "out of memory"),
    Mark("output", "too much output", "bad", "printed too much"),
    Mark("file_size", "too large a file", "bad", "wrote too much"),
    Mark("processes", "too many processes", "bad", "started too many processes"),
    Mark("crash", "crash", "bad", "ended by a signal"),
    Mark("passed_post", "passes after post", "warn", "its tests passed only after the benchmark's post-processing"),
    Mark("not_run", "not run", "plain", "no toolchain here for its language: not counted"),
    Mark("exact", "exact", "good", "equals the gold, character for character"),
    Mark("exact_post", "exact after post", "warn", "equals the gold only after the benchmark's post-processing"),
    Mark("different", "not the gold", "bad", "does not equal the gold (it may still be right)"),
    Mark("invalid", "invalid", "bad", "the file no longer parses with it, and does with the gold"),
    Mark("valid", "valid", "plain", "the file parses with it"),
    Mark("empty", "empty", "bad", "nothing was written where something is missing"),
    Mark("overran", "ran on", "warn", "begins with the gold and goes on"),
    Mark("short", "stopped short", "warn", "stopped at a proper beginning of the gold"),
    Mark("no_stop", "did not stop", "warn", "reached its budget without its terminator"),
    Mark("looped", "loops", "warn", "reached its budget repeating itself"),
    Mark("stray", "stray token", "warn", "ended at a stop token that is not its terminator"),
    Mark("deadline", "out of time", "warn", "the time budget ended it"),
    Mark("leaked", "leaks", "warn", "contains a special token, or broken UTF-8"),
    Mark("suffix_copied", "copies suffix", "warn", "ends with the beginning of the suffix"),
    Mark("indentation", "indentation", "warn", "its lines are not indented as the gold's"),
)
BY_NAME = {mark.name: mark for mark in MARKS}
_STOPS = {"limit": "no_stop", "sentinel": "stray", "deadline": "deadline"}
_FACTS = {
    "empty": "empty", "continued": "overran", "underrun": "short", "looped": "looped", "leaked": "leaked",
    "suffix_copied": "suffix_copied",
}  # fmt: skip


def failed(item: Mapping[str, Any]) -> bool | None:
    """Whether an answer's own text failed; None where nothing judged it."""
    measures = item.get("measures") or {}
    passed, exact = measures.get("passed"), measures.get("exact")
    if passed is not None:
        return passed < 1.0
    return None if exact is None else exact < 1.0


def marks_of(item: Mapping[str, Any]) -> list[str]:
    """The names of an answer's marks, in the order of MARKS."""
    measures = item.get("measures") or {}
    found = set(_run_marks(item.get("outcome"), item.get("post_outcome")))
    if measures.get("exact") is not None:
        exact = measures["exact"] >= 1.0
        found.add("exact" if exact else "different")
        if not exact and (measures.get("exact_post") or 0.0) >= 1.0:
            found.add("exact_post")
    if measures.get("syntax_valid") is not None:
        found.add("valid" if measures["syntax_valid"] >= 1.0 else "invalid")
    found |= {mark for name, mark in _FACTS.items() if measures.get(name)}
    if measures.get("indentation") is not None and measures["indentation"] < 1.0:
        found.add("indentation")
    if item.get("stopped") in _STOPS:
        found.add(_STOPS[str(item["stopped"])])
    # A test that passed says more than that the text is another one.
    found -= {"different"} if "passed" in found else set()
    return [mark.name for mark in MARKS if mark.name in found]


def _run_marks(outcome: Mapping[str, Any] | None, post: Mapping[str, Any] | None) -> list[str]:
    if outcome is None:
        return []
    verdict, cause = outcome.get("verdict"), str(outcome.get("cause"))
    if verdict == "unavailable":
        return ["not_run"]
    if verdict == "passed":
        return ["passed"]
    found = [cause if cause in BY_NAME else "error"]
    return [*found, "passed_post"] if post is not None and post.get("verdict") == "passed" else found
