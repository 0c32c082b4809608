import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from rich.console import Console
from tests.evaluate.stub_subjects import StubSubject, gold, silent

import inlay.conf
from inlay.config import BadInput, InlayError, validate
from inlay.evaluate import run as module
from inlay.evaluate.answer import Answer
from inlay.evaluate.harness_table import print_harnesses
from inlay.evaluate.metrics import METRICS
from inlay.evaluate.run import Options, evaluate, evaluate_examples, evaluate_opened, evaluate_tasks
from inlay.evaluate.sandbox.program import Outcome, Program
from inlay.evaluate.subject import Decoding
from inlay.evaluate.subjects.local import LocalSubject
from inlay.evaluate.task import Corpus, Example, Examples, Place, TaskConfig, tasks
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.infer.open import Opened

SMALL = HeldOutConfig(categories={"word": 6, "tokens_5_8": 6, "line": 4}, max_tokens=24)


class Sums(TaskConfig):
    """A task with tests, made here."""

    EXECUTES: ClassVar[bool] = True
    POST: ClassVar[str] = "cut at the first line end"
    kind: Literal["sums"] = "sums"
    broken: bool = False

    def examples(self, place: Place, limit: int | None = None) -> Examples:
        items = [
            Example(
                f"sums/{n}",
                f"g{n // 2}",
                "sum",
                f"def f(a):\n    return a + {n}",
                f"{n}\n",
                "\n\nprint(f(1))\n",
                "f.py",
                "python",
            )
            for n in range(6)
        ]
        return Examples(items[:limit], len(items), "made here", "0" * 32)

    def postprocess(self, example: Example, text: str) -> str:
        line, end, _ = text.partition("\n")
        return line + end

    def program(self, example: Example, middle: str) -> Program | None:
        return Program("python", example.prefix + middle + example.suffix)


class FakeSandbox:
    """Passes what holds no "wrong"; remembers what it ran."""

    name, safe = "fake", True

    def __init__(self, broken: bool = False) -> None:
        self.ran: list[str] = []
        self.closed = False
        self._broken = broken

    def run(self, program: Program) -> Outcome:
        self.ran.append(program.source)
        good = "wrong" not in program.source and not self._broken
        return Outcome("passed", "passed", True, 0.01) if good else Outcome("failed", "wrong", True, 0.01, "no")

    def run_many(self, programs: Sequence[Program], workers: int | None = None) -> Any:
        yield from ((at, self.run(program)) for at, program in enumerate(programs))

    def available(self, language: str) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> FakeSandbox:
    made = FakeSandbox()
    monkeypatch.setattr(module, "open_sandbox", lambda **options: made)
    return made


def sums(limit: int | None = None) -> Examples:
    return Sums().examples(Place(), limit)


def test_a_run_is_evaluated_and_written(run: Path) -> None:
    result = evaluate(run, config=SMALL)
    assert result["task"] == "held_out"
    assert result["n"] == result["of"] == 16
    assert result["gold"]["exact"] == 1.0 == result["gold"]["syntax_valid"]
    assert result["gold"]["failures"] == []
    assert set(result["metrics"]) == set(result["slices"]) == set(result["rows"]) == {"spm", "psm"}
    assert set(result["metrics"]["spm"]) >= {metric.name for metric in METRICS}
    assert result["slices"]["psm"]["category"]["word"]["exact"]["n"] == 6
    assert result["settings"]["step"] == 20
    assert result["settings"]["documents_used"] <= 4
    assert len(result["samples"]) == 32
    name = result["name"]
    assert "-categories-" in name, "options that change the list are in the name"
    written = json.loads((run / "evaluations" / f"{name}.json").read_text())
    assert written == json.loads(json.dumps(result))
    items = [json.loads(line) for line in (run / "evaluations" / f"{name}.items.jsonl").read_text().splitlines()]
    assert len(items) == 32
    exact = sum(item["measures"]["exact"] for item in items if item["order"] == "spm") / 16
    assert exact == result["metrics"]["spm"]["exact"]["value"]
    assert {item["path"] for item in items} <= {"m2.py", "m3.py", "m4.py", "m5.py"}, "only held-out documents"
    assert (run / "evaluations" / f"{name}.html").is_file()


def test_two_runs_are_identical(opened: Opened, corpus: Corpus) -> None:
    examples = Examples(SMALL.gaps(corpus, opened.tokenizer), 16, "memory", corpus.hash)
    results = [evaluate_opened(opened, SMALL, examples).result for _ in range(2)]
    for result in results:
        result["settings"].pop("seconds")
    assert results[0] == results[1]


def test_a_run_that_is_asked_again_answers_from_its_cache(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(run, config=SMALL)

    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(LocalSubject, "answers", asked)
    monkeypatch.setattr(LocalSubject, "losses", asked)
    second = evaluate(run, config=SMALL)
    for result in (first, second):
        result["settings"].pop("seconds")
    assert first == second


def test_gold_comes_before_the_model(sandbox: FakeSandbox) -> None:
    subject = StubSubject(gold)
    sandbox._broken = True
    with pytest.raises(InlayError, match=r"gold is not 100 % on sums: 6 of 6 .* sums/0"):
        evaluate_examples(subject, Sums(), sums(), Options(strict=True))
    assert subject.asked == [], "a strict run asks nothing of the model"
    assert sandbox.closed
    result = evaluate_examples(subject, Sums(), sums(), Options()).result
    assert result["gold"]["passed"] == 0.0
    assert [failure["id"] for failure in result["gold"]["failures"]] == [f"sums/{n}" for n in range(6)]
    assert all("passed" in failure["reason"] for failure in result["gold"]["failures"])


def test_a_subject_that_loses_its_gold_on_the_way_is_named(sandbox: FakeSandbox) -> None:
    class Stripping(StubSubject):
        def gold_answer(self, example: Example) -> Answer:
            return replace(super().gold_answer(example), text=example.middle.strip())

        def gold_trouble(self, example: Example, order: str, max_tokens: int) -> str | None:
            return "prompt" if example.id == "sums/1" and order == "spm" else None

    found = evaluate_examples(Stripping(gold), Sums(), sums(), Options()).result["gold"]
    assert found["exact"] == 0.0, "every gold answer here ends with a line end"
    reasons = {failure["id"]: failure["reason"] for failure in found["failures"]}
    assert set(reasons) == {f"sums/{n}" for n in range(6)}
    assert "spm: prompt" in reasons["sums/1"]
    assert "spm: prompt" not in reasons["sums/0"]


def test_gold_scores_one_everywhere(sandbox: FakeSandbox) -> None:
    result = evaluate_examples(StubSubject(gold), Sums(), sums(), Options()).result
    values = {name: score["value"] for name, score in result["metrics"]["psm"].items()}
    shares = ("exact", "exact_post", "edit_similarity", "first_line", "syntax_valid", "stopped", "passed", "compiles")
    for name in shares:
        assert values[name] == 1.0, name
    for name in ("continued", "underrun", "empty", "suffix_copied", "looped", "leaked", "overrun_tokens"):
        assert values[name] == 0.0, name
    assert result["settings"]["sandbox"] == "fake"
    assert len(sandbox.ran) == 6, "equal programs are run once, for gold and both orders"


def test_an_empty_answer_is_seen_for_what_it_is(sandbox: FakeSandbox) -> None:
    result = evaluate_examples(StubSubject(silent), Sums(), sums(), Options(order="spm")).result
    values = {name: score["value"] for name, score in result["metrics"]["spm"].items()}
    assert set(result["metrics"]) == {"spm"}
    assert (values["exact"], values["empty"], values["stopped"]) == (0.0, 1.0, 1.0)


def test_raw_and_post_processed_stand_side_by_side(sandbox: FakeSandbox) -> None:
    def runs_on(example: Example, sample: int) -> Answer:
        return Answer(example.middle + "wrong = 1\n", "limit", tokens=9)

    evaluation = evaluate_examples(StubSubject(runs_on), Sums(), sums(), Options(order="psm"))
    values = {name: score["value"] for name, score in evaluation.result["metrics"]["psm"].items()}
    assert (values["exact"], values["exact_post"]) == (0.0, 1.0)
    assert (values["passed"], values["passed_post"]) == (0.0, 1.0)
    assert (values["continued"], values["stopped"]) == (1.0, 0.0)
    assert all(item["post"] == item["gold"] != item["middle"] for item in evaluation.items)
    assert evaluation.result["settings"]["post"] == "cut at the first line end"


def test_best_of_n_has_a_row_of_its_own(sandbox: FakeSandbox) -> None:
    def reply(example: Example, sample: int) -> Answer:
        if sample == 2:
            return Answer(example.middle, "eot", tokens=2, logprob=-3.0, eot_logprob=-0.1)
        return Answer("wrong", "limit", tokens=2, logprob=-0.5, eot_logprob=-4.0)

    decoding = Decoding(samples=4, temperature=0.8)
    evaluation = evaluate_examples(StubSubject(reply), Sums(), sums(), Options(order="psm", decoding=decoding))
    result = evaluation.result
    assert set(result["metrics"]) == {"psm", "psm best of 4"}
    assert result["metrics"]["psm"]["passed"]["value"] == 0.25
    assert result["metrics"]["psm best of 4"]["passed"]["value"] == 1.0, "the only one that ended by itself"
    assert result["rows"]["psm best of 4"] == {"order": "psm", "samples": 1, "best_of": 4}
    assert [item["chosen"] for item in evaluation.items] == [False, False, True, False] * 6


def test_code_is_not_run_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*, allow_unsafe: bool = False) -> Any:
        assert not allow_unsafe
        raise BadInput("no sandbox here")

    monkeypatch.setattr(module, "open_sandbox", refuse)
    with pytest.raises(BadInput, match="no sandbox here"):
        evaluate_examples(StubSubject(gold), Sums(), sums(), Options())
    result = evaluate_examples(StubSubject(gold), Sums(), sums(), Options(tests=False)).result
    assert result["metrics"]["psm"]["passed"]["value"] is None
    assert result["gold"]["passed"] is None


def test_a_part_is_never_shown_as_the_whole(sandbox: FakeSandbox) -> None:
    result = evaluate_examples(StubSubject(gold), Sums(), sums(2), Options(limit=2)).result
    assert (result["n"], result["of"], result["settings"]["limit"]) == (2, 6, 2)


def test_own_files_and_folders(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.py").write_text("value = compute(1, 2)\n" * 5)
    (folder / "b.sql").write_text("select name, age from people where age > 3;\n" * 5)
    result = evaluate(run, data=folder, config=SMALL, limit=6, save=False)
    assert result["n"] == 6
    assert not (run / "evaluations").exists()
    single = evaluate(run, data=folder / "b.sql", config=SMALL, order="spm", save=False)
    assert set(single["metrics"]) == {"spm"}
    assert single["metrics"]["spm"]["compiles"] == {"value": None, "low": None, "high": None, "n": 0}


def test_without_a_task_both_defaults_are_asked(run: Path, tmp_path: Path) -> None:
    held_out, marked = evaluate_tasks(run, [SMALL, module.tasks.get("marked")()], limit=2)  # type: ignore[list-item]
    assert (held_out["task"], marked["task"]) == ("held_out", "marked")
    assert (run / "evaluations" / "marked-first-2.json").is_file()


def test_a_task_without_data_may_be_left_out(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"path": str(tmp_path / "gone")}}))
    both = [SMALL, module.tasks.get("marked")()]
    with pytest.raises(BadInput, match="--data PATH"):
        evaluate_tasks(run, both)  # type: ignore[arg-type]
    left = evaluate_tasks(run, both, limit=2, save=False, skip=lambda task, error: True)  # type: ignore[arg-type]
    assert [result["task"] for result in left] == ["marked"]


def test_bad_input_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'held_out'"):
        evaluate(run, task="heldout")
    with pytest.raises(BadInput, match="no such file"):
        evaluate(run, data=tmp_path / "nothing")
    with pytest.raises(BadInput, match="limit = 0"):
        evaluate(run, limit=0)
    with pytest.raises(BadInput, match="no order 'mps'"):
        evaluate(run, order="mps", config=SMALL)
    with pytest.raises(BadInput, match="samples = 4"):
        validate(Decoding, {"samples": 4})


def test_the_yaml_is_the_default() -> None:
    file = Path(inlay.conf.__path__[0]) / "evaluate" / "held_out.yaml"
    assert validate(HeldOutConfig, yaml.safe_load(file.read_text())) == HeldOutConfig()


def test_the_same_answers_under_each_harness(sandbox: FakeSandbox) -> None:
    def unended(example: Example, sample: int) -> Answer:
        return Answer(f" {example.middle}wrong = 1\n", "limit", tokens=9)

    result = evaluate_examples(StubSubject(unended), Sums(), sums(), Options(order="psm", harnesses=True)).result
    rows = {row["name"]: row for row in result["harnesses"]["psm"]}
    assert rows["raw"]["score"]["value"] == 0.0
    assert rows["post"]["score"] == rows["post"]["passed"]
    assert rows["post"]["score"]["value"] == 1.0, "cut at the first line end, the answer is right"
    assert rows["bigcode"]["score"]["value"] == 0.0
    assert rows["qwen"]["score"]["value"] == 1.0, "the first line, stripped"
    assert all(row["gold_exact"]["value"] is not None for row in rows.values())
    shown = io.StringIO()
    print_harnesses(result["harnesses"], Console(file=shown, width=100))
    for row in rows.values():
        assert row["title"] in shown.getvalue()


def test_a_task_of_losses_asks_for_no_answers() -> None:
    task = tasks.get("real_fim_eval")()
    examples = task.examples(Place())  # type: ignore[attr-defined]
    subject = StubSubject(gold)
    result = evaluate_examples(subject, task, examples, Options(order="psm")).result  # type: ignore[arg-type]
    assert subject.asked == []
    scores = result["metrics"]["psm"]
    characters = [len(example.middle) for example in examples.items]
    # The stub's loss is one nat a character.
    assert scores["char_perplexity"]["value"] == pytest.approx(2.718281828)
    assert scores["char_perplexity"]["n"] == len(characters)
    for name in ("exact", "stopped", "empty", "syntax_valid", "edit_similarity"):
        assert scores[name]["value"] is None, name


def test_splits_of_a_benchmark_lie_side_by_side(tmp_path: Path, run: Path) -> None:
    task = tasks.get("humaneval_infilling")
    names = set()
    for split in ("single-line", "random-span"):
        config = validate(task, {"kind": "humaneval_infilling", "split": split, "max_tokens": 16})
        result = evaluate(run, config=config, limit=1, tests=False)  # type: ignore[arg-type]
        names.add(result["name"])
        assert (result["task"], result["sample"]) == ("humaneval_infilling", True)
        assert (run / "evaluations" / f"{result['name']}.html").is_file()
    common = "max_tokens-16-untested-first-1"
    assert names == {f"humaneval_infilling-{split}-sample-{common}" for split in ("single-line", "random-span")}


def test_what_is_no_run_is_written_below_the_folder_that_is_named(tmp_path: Path) -> None:
    completions = tmp_path / "mine.jsonl"
    task = tasks.get("marked")()
    examples = task.examples(Place())  # type: ignore[attr-defined]
    lines = [json.dumps({"id": example.id, "completion": example.middle}) for example in examples.items]
    completions.write_text("\n".join(lines))
    (result,) = evaluate_tasks(None, [task], completions=completions, elsewhere=tmp_path / "there")  # type: ignore[list-item]
    assert result["metrics"]["given"]["exact"]["value"] == 1.0
    assert result["settings"]["page"] == str(tmp_path / "there" / "mine.jsonl" / "marked.html")
    assert (tmp_path / "there" / "mine.jsonl" / "marked.json").is_file()
    assert result["metrics"]["given"]["stopped"]["value"] is None, "the file does not say"


def test_a_budget_without_room_is_refused_before_anything_runs(opened: Opened, sandbox: FakeSandbox) -> None:
    subject = LocalSubject(opened)
    task = Sums(max_tokens=opened.sequence_length)
    with pytest.raises(BadInput, match="leave no room for a prompt"):
        evaluate_examples(subject, task, sums(), Options())
    assert sandbox.ran == []
