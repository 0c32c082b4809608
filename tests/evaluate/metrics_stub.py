"""A stub model whose every fault is known, and short ways to make examples, answers and scores."""

from collections.abc import Sequence
from typing import ClassVar

from inlay.evaluate.answer import Answer, Losses
from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.metrics import Judge
from inlay.evaluate.sandbox.program import Outcome
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.task import Example, Examples, Place, TaskConfig

TEXT = "def area(width, height):\n    result = width * height\n    return result\n"
GOLD = "width * height"
LINE = "    result = width * height\n"


class StubTask(TaskConfig):
    """A task whose rule cuts at the first line end, and which measures its own `vowels`."""

    METRICS: ClassVar[tuple[Metric, ...]] = (Metric("vowels", "vowels", "counts vowels", None, share=False),)

    kind: str = "stub"

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        raise NotImplementedError

    def postprocess(self, example: Example, text: str) -> str:
        return text.split("\n")[0]

    def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
        return {"vowels": (float(sum(text.count(vowel) for vowel in "aeiou")), 1.0)}


def example(
    gold: str = GOLD,
    text: str = TEXT,
    language: str | None = "python",
    name: str = "one",
    group: str = "a",
    category: str = "line",
    path: str = "",
) -> Example:
    """The first `gold` of `text` taken out."""
    start = text.index(gold)
    return Example(
        id=name,
        group=group,
        category=category,
        prefix=text[:start],
        middle=gold,
        suffix=text[start + len(gold) :],
        path=path,
        language=language,
    )


def answered(
    text: str,
    of: Example | None = None,
    *,
    stopped: str = "eot",
    tokens: int | None = 5,
    leaked: bool | None = False,
    broken_bytes: int = 0,
    sample: int = 0,
    losses: Losses | None = None,
    raw: Outcome | None = None,
    post: Outcome | None = None,
) -> Answered:
    """An answer with the stub task's post-processing."""
    asked = of or example()
    return Answered(
        asked,
        Answer(text, stopped, tokens=tokens, leaked=leaked, broken_bytes=broken_bytes),  # type: ignore[arg-type]
        sample,
        StubTask().postprocess(asked, text),
        losses,
        raw,
        post,
    )


def outcome(passed: bool | None, compiled: bool | None = True) -> Outcome:
    """What became of a program; None: it could not run."""
    if passed is None:
        return Outcome("unavailable", "unavailable")
    return Outcome("passed" if passed else "failed", "passed" if passed else "wrong", compiled, detail="says no")


def score(*items: Answered, judge: Judge | None = None, gold_tokens: int | None = 5) -> list[Scored]:
    """Through a judge; every gold has `gold_tokens` tokens."""
    with judge or Judge(StubTask()) as one:
        if gold_tokens is not None:
            one.gold_tokens.update(dict.fromkeys((item.example.id for item in items), gold_tokens))
        return one.score(items)


def values(scored: Scored) -> dict[str, float | None]:
    """Each measure divided by its weight."""
    return {name: None if m is None else m[0] / m[1] for name, m in scored.measures.items()}


def measured(item: Answered, gold_tokens: int | None = 5) -> dict[str, float | None]:
    """The values of one answer."""
    return values(score(item, gold_tokens=gold_tokens)[0])


def chosen(names: Sequence[str], found: dict[str, float | None]) -> dict[str, float | None]:
    """Some of the values."""
    return {name: found[name] for name in names}
