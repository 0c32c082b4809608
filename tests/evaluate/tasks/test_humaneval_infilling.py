"""HumanEval-Infilling: splits, groups, the program that is run, and how fragile a gold answer is."""

from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.tasks.data_files import place, runs

from inlay.config import BadInput, validate
from inlay.evaluate.task import Example, Place
from inlay.evaluate.tasks.humaneval_infilling import HumanEvalInfillingConfig

TASK = HumanEvalInfillingConfig()


def row(name: str = "SingleLineInfilling/HumanEval/3/L0", **changes: Any) -> dict[str, Any]:
    start = {
        "task_id": name,
        "entry_point": "twice",
        "prompt": "def twice(n):\n",
        "suffix": "    return m\n",
        "canonical_solution": "    m = 2 * n\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n",
    }
    return {key: value for key, value in {**start, **changes}.items() if value is not None}


def passes(example: Example, middle: str) -> bool:
    return runs(TASK.program(example, middle))


def test_an_example_of_the_published_format(tmp_path: Path) -> None:
    (one,) = TASK.examples(place(tmp_path, row())).items
    assert (one.id, one.group, one.category) == ("SingleLineInfilling/HumanEval/3/L0", "HumanEval/3", "single-line")
    assert (one.prefix, one.middle, one.suffix) == ("def twice(n):\n", "    m = 2 * n\n", "    return m\n")
    assert (one.language, one.path) == ("python", "humaneval_3.py")
    program = TASK.program(one, "    m = n + n\n")
    assert program is not None
    assert program.source == (
        "def twice(n):\n    m = n + n\n    return m\n\n"
        "def check(candidate):\n    assert candidate(4) == 8\n\ncheck(twice)\n"
    )
    assert (program.language, program.limits.seconds, len(program.cases)) == ("python", 3.0, 1)


def test_a_program_is_judged_by_the_problem_s_tests(tmp_path: Path) -> None:
    (one,) = TASK.examples(place(tmp_path, row())).items
    assert passes(one, one.middle)
    assert passes(one, "    m = n + n\n")
    assert not passes(one, "    m = n * n\n")
    assert not passes(one, one.middle.rstrip("\n"))
    assert not passes(one, one.middle.strip())


def test_the_gold_of_the_sample_passes_and_stripping_breaks_it() -> None:
    listed = TASK.examples(Place()).items
    assert all(passes(one, one.middle) for one in listed)
    assert all(TASK.postprocess(one, one.middle) == one.middle for one in listed)
    lines = [one for one in listed if one.category == "single-line"]
    assert sum(passes(one, one.middle.strip()) for one in lines) == 0


def test_the_sample_has_every_split_and_an_empty_gap() -> None:
    listed = TASK.examples(Place()).items
    assert [one.category for one in listed[:4]] == ["single-line", "multi-line", "random-span", "random-span-light"]
    assert "" in [one.middle for one in listed]
    assert {one.group for one in listed} == {f"HumanEval/{n}" for n in (8, 9, 13, 23, 53)}


def test_a_split_can_be_asked_for_alone(tmp_path: Path) -> None:
    only = HumanEvalInfillingConfig(split="random-span")
    assert {one.category for one in only.examples(Place()).items} == {"random-span"}
    with pytest.raises(BadInput, match=r"no rows of split=random-span: it has 1 of single-line"):
        only.examples(place(tmp_path, row()))


def test_an_id_that_names_no_split_needs_the_option(tmp_path: Path) -> None:
    data = place(tmp_path, row("test/HumanEval/3/L0"))
    with pytest.raises(BadInput, match=r"rows\.jsonl, line 1: field 'task_id' begins with 'test'.*add split=NAME"):
        TASK.examples(data)
    assert HumanEvalInfillingConfig(split="multi-line").examples(data).items[0].category == "multi-line"


def test_one_budget_for_a_list(tmp_path: Path) -> None:
    single = TASK.examples(place(tmp_path, row()))
    assert TASK.fitted(single).max_tokens == 128
    both = TASK.examples(place(tmp_path, row(), row("MultiLineInfilling/HumanEval/3/L0_L1")))
    assert TASK.fitted(both).max_tokens == 512
    assert HumanEvalInfillingConfig(max_tokens=600).fitted(both).max_tokens == 600


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"task_id": None}, "line 2: field 'task_id' is missing"),
    ({"task_id": 7}, "line 2: field 'task_id' is a number, not a text"),
    ({"suffix": None}, "line 2: field 'suffix' is missing"),
    ({"canonical_solution": ["x"]}, "line 2: field 'canonical_solution' is a list, not a text"),
    ({"test": ""}, "line 2: field 'test' is empty"),
    ({"entry_point": "f()\nimport os"}, "line 2: field 'entry_point' is no name"),
    ({"task_id": "SingleLineInfilling/MBPP/3"}, "line 2: field 'task_id' = .* names no problem"),
    ({"task_id": "SingleLineInfilling/HumanEval/1/L0"}, r"comes twice: rows\.jsonl, line 1 and rows\.jsonl, line 2"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_one_line_for_a_wrong_row(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    rows = [row("SingleLineInfilling/HumanEval/1/L0"), row() | changes]
    rows[1] = {key: value for key, value in rows[1].items() if value is not None}
    with pytest.raises(BadInput, match=expected) as error:
        TASK.examples(place(tmp_path, *rows))
    assert "\n" not in str(error.value)


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="split"):
        validate(HumanEvalInfillingConfig, {"split": "lines"})
    with pytest.raises(BadInput, match="seconds"):
        validate(HumanEvalInfillingConfig, {"seconds": 0})
