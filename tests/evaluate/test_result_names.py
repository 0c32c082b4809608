"""No evaluation takes another one's place: whatever is different, both results stay, with their items and pages."""

import json
from pathlib import Path
from typing import Any

import pytest

from inlay.config import validate
from inlay.config.compose import compose_choice
from inlay.evaluate.report_data import load_run, main_evaluation
from inlay.evaluate.result_names import LONGEST, name_of, settle
from inlay.evaluate.run import evaluate
from inlay.evaluate.subject import Decoding
from inlay.evaluate.task import Examples, Place, TaskConfig, tasks
from inlay.evaluate.tasks.held_out import HeldOutConfig

FEW: dict[str, Any] = {"categories": {"word": 2, "line": 2}, "max_tokens": 8}
MARKED = "<|fim_prefix|>first = {}\n<|fim_suffix|>\n<|fim_middle|>second = first"


def marks(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(MARKED.format(number))
    return folder


def listed(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "evaluations").glob("*.*")) if file.is_file()}


def test_every_axis_has_results_of_its_own(run: Path, tmp_path: Path) -> None:
    task, marked = HeldOutConfig(**FEW), tasks.get("marked")()
    one, other = marks(tmp_path / "one" / "marks", 1), marks(tmp_path / "other" / "marks", 2)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("held_out-", {"config": task}),
        ("-seed-1-", {"config": HeldOutConfig(**FEW, seed=1)}),
        ("-psm", {"config": task, "order": "psm"}),
        ("-first-2", {"config": task, "limit": 2}),
        ("-temperature-0.5-samples-2", {"config": task, "decoding": Decoding(samples=2, temperature=0.5)}),
        ("-harnesses", {"config": task, "harnesses": True}),
        ("marked", {"config": marked}),
        ("marked-marks-", {"config": marked, "data": one}),
        ("marked-marks-", {"config": marked, "data": other}),
    ]
    names = []
    for part, options in asked:
        before = listed(run)
        result = evaluate(run, tests=False, **options)
        assert part in result["name"]
        names.append(result["name"])
        after = listed(run)
        assert {name: after[name] for name in before} == before, "what was there stays as it was"
        assert sorted(after.keys() - before) == sorted(f"{names[-1]}.{end}" for end in ("html", "items.jsonl", "json"))
        assert json.loads(after[f"{names[-1]}.json"])["settings"]["page"].endswith(f"{names[-1]}.html")
    assert len(set(names)) == len(asked)
    # The same again is the same.
    assert [evaluate(run, tests=False, **options)["name"] for _, options in asked] == names
    loaded = load_run(run).evaluations
    assert loaded.keys() == set(names)
    assert (main_evaluation(loaded) or {})["n"] == max(loaded[name]["n"] for name in names[:6]) == 4


def test_an_older_checkpoint_has_its_step_and_the_newest_the_plain_name(run: Path) -> None:
    task = HeldOutConfig(**FEW)
    folder = run / "evaluations"
    old = evaluate(run / "checkpoints" / "step-10", config=task)
    plain = old["name"]
    items = (folder / f"{plain}.items.jsonl").read_bytes()
    new = evaluate(run, config=task)
    assert new["name"] == plain, "two runs are compared by it"
    moved = json.loads((folder / f"{plain}-step-10.json").read_text())
    assert moved["metrics"] == json.loads(json.dumps(old["metrics"]))
    assert (moved["name"], moved["settings"]["page"]) == (f"{plain}-step-10", str(folder / f"{plain}-step-10.html"))
    assert (folder / f"{plain}-step-10.items.jsonl").read_bytes() == items
    before = listed(run)
    again = evaluate(run / "checkpoints" / "step-10", config=task)
    assert again["name"] == f"{plain}-step-10", "and it does not take the place back"
    assert listed(run).keys() == before.keys()
    assert json.loads((folder / f"{plain}.json").read_text())["settings"]["step"] == 20
    loaded = load_run(run)
    assert {result["settings"]["step"] for result in loaded.evaluations.values()} == {10, 20}
    assert (main_evaluation(loaded.evaluations) or {})["settings"]["step"] == 20


@pytest.mark.parametrize(
    ("key", "value"),
    [("corpus", {"hash": "another list"}), ("weights_hash", "another model"), ("sequence_length", 9)],
)
def test_what_a_name_does_not_say_costs_no_result(key: str, value: Any, run: Path) -> None:
    first = evaluate(run, config=HeldOutConfig(**FEW))
    folder, name = run / "evaluations", first["name"]
    before = listed(run)
    other = {**first, "settings": {**first["settings"], key: value}}
    assert settle(folder, other) == name
    assert not (folder / f"{name}.json").exists()
    (moved,) = folder.glob(f"{name}-*.json")
    assert moved.with_suffix(".items.jsonl").read_bytes() == before[f"{name}.items.jsonl"]
    assert json.loads(moved.read_text())["metrics"] == json.loads(before[f"{name}.json"])["metrics"]
    # The same evaluation once more, somewhere else and by another version: the place is its own.
    (folder / f"{name}.json").write_bytes(before[f"{name}.json"])
    same = {"target": "elsewhere", "version": "9", "seconds": 1.0, "command": "inlay evaluate"}
    assert settle(folder, {**first, "settings": {**first["settings"], **same}}) == name
    assert (folder / f"{name}.json").exists()


def test_results_of_older_versions_are_read_by_their_file(run: Path) -> None:
    result = evaluate(run, config=HeldOutConfig(**FEW))
    folder = run / "evaluations"
    old = {key: value for key, value in result.items() if key != "name"}
    for file in folder.glob(f"{result['name']}.*"):
        file.rename(folder / file.name.replace(result["name"], "held_out"))
    (folder / "held_out.json").write_text(json.dumps(old))
    (folder / "cut.json").write_text("[")
    assert list(load_run(run).evaluations) == ["held_out"]
    assert evaluate(run, config=HeldOutConfig(**FEW))["name"] == result["name"]
    assert list(load_run(run).evaluations) == ["held_out", result["name"]]


def test_names_are_plain_and_bounded() -> None:
    examples = tasks.get("marked")().examples(Place())  # type: ignore[attr-defined]
    marked: TaskConfig = tasks.get("marked")()  # type: ignore[assignment]
    for data in ("/a b/c:d*", "naïve/größe", "../..", "/"):
        name = name_of(marked, examples, data=data)
        assert name.isascii()
        assert not set(name) & set(" /:*\\")
    long = name_of(marked, examples, data="x" * 300, family="starcoder")
    assert len(long) <= LONGEST
    assert long != name_of(marked, examples, data="x" * 300, family="codegemma")
    split = validate(tasks.get("humaneval_infilling"), {"kind": "humaneval_infilling", "split": "single-line"})
    part = split.examples(Place())  # type: ignore[attr-defined]
    assert isinstance(part, Examples)
    assert name_of(split, part) == "humaneval_infilling-single-line-sample"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", sorted(tasks.members()))
def test_a_task_as_it_is_composed_has_the_plain_name(kind: str) -> None:
    """`inlay evaluate RUN --task KIND` without options: its YAML says what the class has by default."""
    composed = validate(tasks.get(kind), compose_choice("evaluate", kind))
    examples = Examples([], 0, "nowhere", "0" * 32)
    assert name_of(composed, examples) == kind  # type: ignore[arg-type]
