"""Stub answers whose every fault is known: gold, gold and more, cut short, empty, endless, copying (evaluation
reference, 8.2)."""

import math
from typing import ClassVar

import pytest
from tests.evaluate.metrics_stub import (
    GOLD,
    LINE,
    TEXT,
    StubTask,
    answered,
    example,
    measured,
    outcome,
    score,
    values,
)

from inlay.evaluate.answer import Losses
from inlay.evaluate.metric import Measure, Metric
from inlay.evaluate.metrics import METRICS, Judge, gold_reasons
from inlay.evaluate.metrics.stopping import sentinel_texts
from inlay.evaluate.task import Example

FAULTS = (
    "stopped", "overrun_tokens", "underrun_tokens", "continued", "underrun", "empty", "empty_right", "indentation",
    "suffix_copied", "looped", "leaked",
)  # fmt: skip
FINE = dict(zip(FAULTS, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, 1.0, 0.0, 0.0, 0.0), strict=True))
EMPTY_GAP = Example(id="gap", group="g", category="empty", prefix=TEXT[:30], middle="", suffix=TEXT[30:])


def line() -> Example:
    return example(LINE)


# What each stub is asked, what it says, and every field that differs from a right answer's.
STUBS = {
    "gold": (answered(LINE, line()), {}),
    "gold and the suffix's line": (
        answered(LINE + "    return result", line(), tokens=9),
        {"overrun_tokens": 4.0, "continued": 1.0, "suffix_copied": 1.0},
    ),
    "nothing": (
        answered("", line(), tokens=0),
        {"underrun_tokens": 5.0, "underrun": 1.0, "empty": 1.0, "indentation": 0.0},
    ),
    "endless": (
        answered(LINE + "    a = b\n" * 20, line(), stopped="limit", tokens=64),
        {"stopped": 0.0, "overrun_tokens": 59.0, "continued": 1.0, "looped": 1.0},
    ),
    "endless, never the same": (
        answered(" ".join(map(str, range(90))), line(), stopped="limit", tokens=64),
        {"stopped": 0.0, "overrun_tokens": 59.0, "indentation": 0.0},
    ),
    "gold's beginning": (answered(LINE[:-3], line(), tokens=4), {"underrun_tokens": 1.0, "underrun": 1.0}),
    "gold's beginning, out of budget": (
        answered(LINE[:-3], line(), stopped="limit", tokens=4),
        {"stopped": 0.0, "underrun_tokens": 1.0},
    ),
    "gold and a newline": (answered(LINE + "\n", line(), tokens=6), {"overrun_tokens": 1.0, "continued": 1.0}),
    "a loop that stopped": (answered("    x += 1\n" * 9, line(), tokens=30), {"overrun_tokens": 25.0}),
    "a sentinel's text": (answered(LINE + "<|fim_middle|>", line(), tokens=6), {
        "overrun_tokens": 1.0, "continued": 1.0, "leaked": 1.0,
    }),
    "a special token": (answered(LINE, line(), leaked=True), {"leaked": 1.0}),
    "broken bytes": (answered(LINE, line(), broken_bytes=1), {"leaked": 1.0}),
    "another stop token": (answered(LINE, line(), stopped="sentinel", leaked=True), {"stopped": 0.0, "leaked": 1.0}),
    "other indentation": (answered(LINE.replace("    ", "  "), line()), {"indentation": 0.0}),
    "a tab": (answered(LINE.replace("    ", "\t"), line()), {"indentation": 0.0}),
    "from a file": (
        answered(LINE[:-3], line(), stopped="unknown", tokens=None, leaked=None),
        {"stopped": None, "overrun_tokens": None, "underrun_tokens": None, "underrun": None, "looped": None},
    ),
    "an empty gap left empty": (
        answered("", EMPTY_GAP, tokens=5),
        {"underrun": None, "empty": None, "empty_right": 1.0, "indentation": None},
    ),
    "an empty gap filled": (
        answered("x", EMPTY_GAP, tokens=5),
        {"continued": 1.0, "underrun": None, "empty": None, "empty_right": 0.0, "indentation": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("stub", STUBS)
def test_every_fault_is_classified(stub: str) -> None:
    item, differs = STUBS[stub]
    found = measured(item)
    assert {name: found[name] for name in FAULTS} == {**FINE, **differs}


def test_every_metric_of_the_list_and_of_the_task_is_there() -> None:
    found = measured(answered(GOLD))
    assert list(found) == [*(metric.name for metric in METRICS), "vowels"]
    assert found["vowels"] == 3
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(0 < len(metric.title) <= 14 and metric.meaning for metric in METRICS)


def test_gold_is_perfect_in_all_that_gold_must_be() -> None:
    losses = Losses(3.0, 5, 0.5)
    for text, language in ((TEXT, "python"), ("{'a': width * height}", "javascript"), ("width * height", None)):
        item = answered(GOLD, example(text=text, language=language), losses=losses, raw=outcome(True))
        [scored] = score(item)
        assert gold_reasons(scored, METRICS) == []
    assert gold_reasons(score(answered("", EMPTY_GAP))[0], METRICS) == []


def test_what_gold_fails_is_named_with_its_cause() -> None:
    [scored] = score(answered(GOLD + " ", raw=outcome(False), post=outcome(None)))
    reasons = gold_reasons(scored, METRICS)
    assert "exact = 0, not 1" in reasons
    assert "passed = 0, not 1 (wrong: says no)" in reasons
    assert "continued = 1, not 0" in reasons
    assert not any(reason.startswith(("passed_post", "middle", "vowels")) for reason in reasons)


def test_a_task_cannot_take_a_common_name_or_measure_what_it_does_not_name() -> None:
    class Clash(StubTask):
        METRICS: ClassVar[tuple[Metric, ...]] = (Metric("exact", "exact", "mine", "high"),)

    class Unnamed(StubTask):
        METRICS: ClassVar[tuple[Metric, ...]] = ()

        def measures(self, example: Example, text: str) -> dict[str, Measure | None]:
            return {"secret": None}

    with pytest.raises(ValueError, match="task stub names a metric"):
        Judge(Clash())
    with pytest.raises(ValueError, match="secret"):
        score(answered(GOLD), judge=Judge(Unnamed()))


def test_light_editing_is_seen_not_hidden() -> None:
    stripped = measured(answered(LINE.strip(), line()))
    assert stripped["exact"] == 0
    assert stripped["exact_bigcode"] == stripped["exact_qwen"] == 1
    assert stripped["syntax_valid"] == stripped["compiles"] == 0
    # The stub's rule cuts at the newline, on both sides.
    assert stripped["exact_post"] == 0
    assert measured(answered(LINE[:-1] + "\nmore", line()))["exact_post"] == 1


def test_lengths_come_from_losses_where_nobody_else_knows() -> None:
    item = answered(GOLD, losses=Losses(1.0, 3, 0.5))
    first, second = (values(one) for one in score(item, answered(GOLD, tokens=1, sample=1), gold_tokens=None))
    assert (first["overrun_tokens"], first["underrun_tokens"]) == (2.0, 0.0)
    assert (second["overrun_tokens"], second["underrun_tokens"]) == (0.0, 2.0)
    assert measured(answered(GOLD), gold_tokens=None)["overrun_tokens"] is None


def test_losses_are_nats_over_tokens_and_bits_over_bytes() -> None:
    losses = Losses(6.0, 3, 0.5, l2r_nats=9.0, document_nats=12.0, document_bytes=40)
    found = measured(answered(GOLD, losses=losses))
    assert found["middle_nats"] == pytest.approx(2.0)
    assert found["middle_bpb"] == pytest.approx(6.0 / math.log(2) / len(GOLD))
    assert found["terminator_nats"] == 0.5
    assert found["l2r_bpb"] == pytest.approx(9.0 / math.log(2) / len(GOLD))
    assert found["document_bpb"] == pytest.approx(12.0 / math.log(2) / 40)
    empty = measured(answered("", EMPTY_GAP, losses=Losses(0.0, 0, 0.25)))
    assert [empty[name] for name in ("middle_nats", "middle_bpb", "terminator_nats", "l2r_bpb", "document_bpb")] == [
        None, None, 0.25, None, None,
    ]  # fmt: skip
    assert measured(answered(GOLD))["terminator_nats"] is None


def test_bytes_of_the_middle_are_utf_8() -> None:
    wide = example("größer", "x = größer\n")
    found = measured(answered("größer", wide, losses=Losses(8.0 * math.log(2), 3, 0.5)))
    assert found["middle_bpb"] == pytest.approx(1.0)


def test_text_that_the_example_has_is_no_leak() -> None:
    about = example("<|fim_prefix|>", 'PREFIX = "<|fim_prefix|>"\n')
    assert measured(answered("<|fim_prefix|>", about))["leaked"] == 0
    assert measured(answered("<|fim_suffix|>", about))["leaked"] == 1
    # It may be quoted from what stands around the gap.
    quoted = example("a", 'x = "<|fim_prefix|>"\na\ny = "<|fim_pad|>"\n')
    assert measured(answered("<|fim_prefix|> <|fim_pad|>", quoted))["leaked"] == 0
    assert measured(answered("</s> <pad> [SUFFIX]"))["leaked"] == 0
    assert {"<|fim_pad|>", "<|file_sep|>", "<fim_middle>", "<｜fim▁hole｜>"} <= set(sentinel_texts())


def test_files_that_end_in_a_loop_are_not_called_looping_without_a_budget() -> None:
    assert measured(answered("ab, " * 9, stopped="deadline"))["looped"] == 1
    assert measured(answered("ab, " * 9, stopped="sentinel"))["looped"] == 0


def test_progress_is_told_every_answer() -> None:
    told: list[int] = []
    with Judge(StubTask()) as judge:
        judge.score([answered(GOLD), answered("x", sample=1)], told.append)
    assert told == [1, 1]
