"""The task `real_fim_eval`: what developers added or replaced in real commits; loss of the middle, nothing executed.

It decides how a row becomes a gap. A row of `add` is one as it stands. A row of `edit` has text that was removed as
well (`to_remove`): it is shown before the gap the way version control shows a conflict, between the lines of `OPENING`
and `PARTING`, and `CLOSING` follows the gap; the dataset's card says that the benchmark asks in such a form, not which
words stand in it. With `removed: hidden` the old text is left out. It refuses rows without a middle.
"""

import math
from typing import ClassVar, Literal

from pydantic import Field

from inlay.evaluate.answer import Losses
from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.rows import Row, read_rows
from inlay.evaluate.task import Example, Examples, Place, TaskConfig, tasks
from inlay.text.document import LANGUAGES, language_of

OPENING, PARTING, CLOSING = "<<<<<<< before\n", "=======\n", ">>>>>>> after\n"

_ALIKE = {"c++": "cpp", "c#": "csharp", "c_sharp": "csharp", "js": "javascript", "ts": "typescript", "shell": "bash"}
_MEAN = "of the gold middle, teacher-forced, without terminator: exp of its mean loss, mean over examples"


@tasks.register
class RealFimEvalConfig(TaskConfig):
    """Real-FIM-Eval: middles of commits in 12 languages, judged by their loss."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "char_perplexity",
            "ppl/char",
            f"perplexity per character {_MEAN} (2506.00204, dataset card)",
            "low",
            share=False,
        ),
        Metric("byte_perplexity", "ppl/byte", f"perplexity per byte {_MEAN}", "low", share=False),
        Metric("token_perplexity", "ppl/token", f"perplexity per token {_MEAN}", "low", share=False),
    )
    GENERATES: ClassVar[bool] = False
    SPLITS: ClassVar[bool] = True
    CITATION: ClassVar[str] = "Gong et al. 2025, Structure-Aware Fill-in-the-Middle Pretraining for Code, 2506.00204"

    kind: Literal["real_fim_eval"] = "real_fim_eval"
    max_tokens: int = Field(32, ge=1, le=1 << 24)
    """What prompts leave free at least, so that they are those of a model that answers; nothing is answered here."""
    split: Literal["add", "edit"] | None = None
    """Only these rows; None takes all."""
    removed: Literal["conflict", "hidden"] = "conflict"
    """How a row of `edit` shows what was removed."""

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        """The rows in file order; ids are split and row, because the rows have none."""
        rows = read_rows(place, "real_fim_eval", None)
        items: list[Example] = []
        counts = {"add": 0, "edit": 0}
        for row in rows.rows:
            split = "add" if row.data.get("to_remove") is None else "edit"
            if self.split in (None, split):
                items.append(self._example(row, split, counts[split]))
            counts[split] += 1
        if not items:
            rows.rows[0].refuse("to_remove", f"decides the split, and no row is one of '{self.split}'")
        return Examples(items[:limit], len(items), rows.source, rows.hash, rows.sample)

    def loss_measures(self, example: Example, losses: Losses) -> dict[str, Measure | None]:
        """The perplexities of one gold middle from its losses."""
        characters, size = len(example.middle), len(example.middle.encode("utf-8"))
        return {
            "char_perplexity": _perplexity(losses.middle_nats, characters),
            "byte_perplexity": _perplexity(losses.middle_nats, size),
            "token_perplexity": _perplexity(losses.middle_nats, losses.middle_tokens),
        }

    def _example(self, row: Row, split: str, number: int) -> Example:
        path, repo = row.filled("path"), row.filled("repo")
        gold, prefix, suffix = row.text("canonical_solution"), row.text("prompt"), row.text("suffix")
        if not gold:
            row.refuse("canonical_solution", "is empty: there is no middle to take the loss of")
        if split == "edit" and self.removed == "conflict":
            prefix += OPENING + _whole_lines(row.text("to_remove")) + PARTING
            # The mark stands at the beginning of a line, whether or not the middle ends one.
            suffix = ("" if gold.endswith("\n") else "\n") + CLOSING + suffix
        return Example(
            id=f"{split}/{number}",
            group=repo,
            category=split,
            prefix=prefix,
            middle=gold,
            suffix=suffix,
            path=path,
            language=language_of(path) or _language(row.text_or("lang", "")),
            repo=repo,
            details={"ref": row.text_or("ref", "")},
        )


def _whole_lines(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _language(name: str) -> str | None:
    known = _ALIKE.get(name.lower(), name.lower())
    return known if known in LANGUAGES else None


def _perplexity(nats: float, units: int) -> Measure | None:
    if units == 0:
        return None
    # exp(700) is the largest that a number holds: a model that bad has no perplexity worth telling from it.
    return math.exp(min(nats / units, 700.0)), 1.0
