"""Measures answers: every metric of the list for every task, in sums that are divided once.

Nothing is stripped or cut before it is measured unless a metric's name says so, because light editing decides the score
(dropping one newline breaks half of the gold answers of a public benchmark). What cannot be known is None, "not
measured", and never counts as wrong. It refuses a task whose own metrics take the names of these.
"""

from collections.abc import Callable, Sequence
from typing import Any

from inlay.evaluate.metric import Measure, Metric, share
from inlay.evaluate.metrics.definitions import METRICS
from inlay.evaluate.metrics.execution import executed, pass_rates
from inlay.evaluate.metrics.indentation import indented_as_gold
from inlay.evaluate.metrics.losses import LOSSES, losses_of
from inlay.evaluate.metrics.match import matches
from inlay.evaluate.metrics.stopping import stopping
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.task import Example, TaskConfig
from inlay.evaluate.validity import Question, Validity, compile_rule, grammar_rule


class Judge:
    """Measures answers to one task; a context manager, because it keeps processes that parse.

    It remembers which texts are valid, so it is one for gold and for all orders.
    """

    def __init__(self, task: TaskConfig, workers: int = 2) -> None:
        """`workers`: how many processes parse. Raises ValueError when a metric of the task has a name of METRICS."""
        self.metrics: tuple[Metric, ...] = (*METRICS, *task.METRICS)
        """What is measured, in the order of tables."""
        self.gold_tokens: dict[str, int] = {}
        """Tokens of each gold by the example's id, for whoever knows the subject's tokenizer to fill in; what is
        missing here is taken from an example's losses, and without either over- and underrun are not measured."""
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"task {task.kind} names a metric as all tasks have it, or one twice")
        self._task = task
        self._validity = Validity(workers)
        self._gold_posts: dict[str, str] = {}

    @property
    def killed(self) -> dict[str, int]:
        """Texts that hung ("timed_out") or crashed ("crashed") a parser or the compiler, and so count as not valid."""
        return dict(sorted(self._validity.killed.items()))

    def score(self, items: Sequence[Answered], progress: Callable[[int], Any] | None = None) -> list[Scored]:
        """All measures of each answer, in the same order. All samples of an example are given at once, and answers of
        one way of asking alone: pass@k is over what is here. `progress` is told 1 for each answer. Raises ValueError
        when the task measures what is not in its METRICS.
        """
        lengths = self._lengths(items)
        valid = self._accepted(items, grammar_rule)
        compiled = self._accepted(items, compile_rule)
        rates = pass_rates(items)
        # Where nothing was answered, only what is known of the gold is measured.
        losing = {*LOSSES, *(metric.name for metric in self._task.METRICS)}
        scored = []
        for at, item in enumerate(items):
            example, answer = item.example, item.answer
            raw = item.raw_outcome
            own = compiled[at] if example.language == "python" or raw is None else raw.compiled
            measures: dict[str, Measure | None] = {
                **matches(answer.text, example.middle, item.post, self._gold_post(example)),
                "syntax_valid": share(valid[at]),
                "compiles": share(own),
                **executed(item),
                **rates[at],
                **stopping(example, answer, lengths.get(example.id)),
                "indentation": share(indented_as_gold(answer.text, example.middle, example.prefix, example.suffix)),
                **losses_of(item.losses, example.middle),
                **self._own(self._task.measures(example, answer.text)),
                **({} if item.losses is None else self._own(self._task.loss_measures(example, item.losses))),
            }
            if not self._task.GENERATES:
                measures = {name: value for name, value in measures.items() if name in losing}
            scored.append(Scored(item, {metric.name: measures.get(metric.name) for metric in self.metrics}))
            if progress is not None:
                progress(1)
        return scored

    def close(self) -> None:
        """Ends the processes that parse."""
        self._validity.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gold_post(self, example: Example) -> str:
        if example.id not in self._gold_posts:
            self._gold_posts[example.id] = self._task.postprocess(example, example.middle)
        return self._gold_posts[example.id]

    def _own(self, measures: dict[str, Measure | None]) -> dict[str, Measure | None]:
        unknown = measures.keys() - {metric.name for metric in self._task.METRICS}
        if unknown:
            raise ValueError(
                f"task {self._task.kind} measures {', '.join(sorted(unknown))} but does not say what it is"
            )
        return measures

    def _lengths(self, items: Sequence[Answered]) -> dict[str, int]:
        """Tokens of the golds, as far as they are known."""
        counted = {item.example.id: item.losses.middle_tokens for item in items if item.losses is not None}
        return {**counted, **self.gold_tokens}

    def _accepted(
        self, items: Sequence[Answered], rule_of: Callable[[str | None, str], str | None]
    ) -> list[bool | None]:
        """Whether each whole text with its answer in place is right by its language's rule, where the gold's is."""
        rules = [rule_of(item.example.language, item.example.path) for item in items]
        golds = {
            item.example.id: Question(rule, item.example.document)
            for item, rule in zip(items, rules, strict=True)
            if rule is not None
        }
        clean = dict(zip(golds, self._validity.ask(list(golds.values())), strict=True))
        found: list[bool | None] = [
            None if rule is None or not clean[item.example.id] else True
            for item, rule in zip(items, rules, strict=True)
        ]
        asked = [
            at for at, item in enumerate(items) if found[at] is not None and item.answer.text != item.example.middle
        ]
        questions = [
            Question(str(rules[at]), items[at].example.prefix + items[at].answer.text + items[at].example.suffix)
            for at in asked
        ]
        for at, right in zip(asked, self._validity.ask(questions), strict=True):
            found[at] = right
        return found


def gold_reasons(scored: Scored, metrics: Sequence[Metric]) -> list[str]:
    """What a gold answer fails of what gold must score, as "exact = 0, not 1"; empty when nothing. What was not
    measured fails nothing; a failed test names its cause."""
    reasons = []
    for metric in metrics:
        measure = scored.measures.get(metric.name)
        if metric.gold is None or measure is None:
            continue
        value = measure[0] / measure[1]
        if value == metric.gold:
            continue
        reason = f"{metric.name} = {value:g}, not {metric.gold:g}"
        outcome = {"passed": scored.answered.raw_outcome, "passed_post": scored.answered.post_outcome}.get(metric.name)
        if outcome is not None:
            reason += f" ({outcome.cause}{': ' + outcome.detail if outcome.detail else ''})"
        reasons.append(reason)
    return reasons
