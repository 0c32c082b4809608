"""What each verb hands to the package that does the work."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inlay.config import BadInput, Config
from inlay.config.run_dir import RunDir


class Inner(Config):
    """Stands for a group."""

    path: str


class Run(Config):
    """Stands for TrainRun."""

    seed: int = 0
    data: Inner


@pytest.fixture
def training(calls: Callable[..., Any], stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for training; `compose` gives a small configuration."""
    import inlay.config.compose as composing

    stand_in("inlay.train.config", TrainRun=Run)

    def compose(name: str, overrides: list[str]) -> dict[str, Any]:
        return composing.apply_overrides({"seed": 0, "data": {"path": name}}, overrides)

    monkeypatch.setattr(composing, "compose", compose)
    return calls("inlay.train.run", "train", "resume", result=RunDir(Path("runs/x")))


NOT_CHOSEN = {"model_chosen": False}
"""What `train` is told when no model is named on the line."""


def test_train_composes_and_takes_out_aside(inlay: Callable[..., Any], training: list[Any]) -> None:
    assert inlay("train", "seed=3", "out=there") == (0, "runs/x\n", "")
    assert training == [(Run(seed=3, data=Inner(path="train")), "there", NOT_CHOSEN)]


def test_train_from_a_file(inlay: Callable[..., Any], training: list[Any], tmp_path: Path) -> None:
    config = Run(seed=7, data=Inner(path="store"))
    run = RunDir.create(tmp_path / "run", config)
    assert inlay("train", "--config", str(run.config_file)).status == 0
    assert inlay("train", "--config", str(run.config_file), "seed=8").status == 0
    said = {"model_chosen": True}  # by the file
    assert training == [(config, None, said), (Run(seed=8, data=Inner(path="store")), None, said)]
    outcome = inlay("train", "--config", str(run.config_file), "sead=8")
    assert (outcome.status, outcome.err) == (2, "inlay: unknown key 'sead' (sead=8); did you mean 'seed'?\n")
    run.config_file.write_text("seed: 1\nsead: 2\ndata: {path: x}\n")
    outcome = inlay("train", "--config", str(run.config_file))
    assert outcome.err == f"inlay: unknown key 'sead' ({run.config_file}); did you mean 'seed'?\n"


def test_train_resumes(inlay: Callable[..., Any], training: list[Any]) -> None:
    assert inlay("train", "resume=runs/x").status == 0
    assert training == [("runs/x", [])]
    for words in (["seed=1"], ["out=y"], ["--config", "f"], ["resume=z"]):
        outcome = inlay("train", "resume=runs/x", *words)
        assert outcome.status == 2
    assert len(training) == 1


def test_demo(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    seen = calls("inlay.cli.demo", "demo")
    assert inlay("demo").status == 0
    assert inlay("demo", "--minutes", "0.5", "--corpus", "code", "--out", "d", "model=nano").status == 0
    assert inlay("demo", "out=d2").status == 0
    assert inlay("demo", "--new").status == 0
    assert inlay("demo", "--resume").status == 0
    plain = {"minutes": None, "corpus": None, "out": None, "overrides": [], "resume": False, "new": False}
    assert [options for (options,) in seen] == [
        plain,
        plain | {"minutes": 0.5, "corpus": "code", "out": "d", "overrides": ["model=nano"]},
        plain | {"out": "d2"},
        plain | {"new": True},
        plain | {"resume": True},
    ]


def test_inspect(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    table = calls("inlay.model.table", "print_table")
    assert inlay("inspect", "model", "nano", "model.layers=2", "--context", "99").status == 0
    assert [call[:4] for call in table] == [("nano", ["model.layers=2"], 8192, 99)]
    assert inlay("inspect", "model", "nano", "--context", "0").status == 2
    shown = calls("inlay.data.inspect", "print_rows")
    assert inlay("inspect", "rows", "store", "--count", "3", "--json", "fim.rate=1").status == 0
    assert shown == [("store", 3, True, ["fim.rate=1"])]
    counted = calls("inlay.data.stats", "print_stats")
    assert inlay("inspect", "stats", "store", "fim.level=document").status == 0
    assert counted == [("store", False, ["fim.level=document"])]


def test_evaluate(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    from inlay.evaluate.subject import GREEDY, Decoding
    from inlay.evaluate.tasks.held_out import HeldOutConfig
    from inlay.evaluate.tasks.marked import MarkedConfig

    tables = calls("inlay.evaluate.table", "print_tables")
    results = [{"task": "held_out", "n": 3, "settings": {"page": "there/held_out.html"}}]
    seen = calls("inlay.evaluate.run", "evaluate_tasks", result=results, DEFAULT_TASKS=("held_out", "marked"))
    outcome = inlay("evaluate", "run", "--data", "code", "--order", "spm", "--limit", "5", "--json", "seed=4")
    assert (outcome.status, json.loads(outcome.out)) == (0, results[0])
    assert tables == []
    target, tasks, data, order, limit, _, options = seen.pop()
    assert (target, tasks, data, order, limit) == ("run", [HeldOutConfig(seed=4)], "code", "spm", 5)
    assert options["decoding"] == GREEDY
    assert (options["family"], options["completions"], options["out"]) == (None, None, None)
    assert (options["tests"], options["allow_unsafe"], options["strict"]) == (True, False, False)

    assert inlay("evaluate", "run").out == "answers, failures first: there/held_out.html\n"
    assert tables == [(results,)]
    assert seen.pop()[1] == [HeldOutConfig(), MarkedConfig()], "what needs nothing to be fetched"

    words = ("decoding.samples=4", "decoding.temperature=0.2", "held_out.seed=2", "out=there", "family=starcoder")
    assert inlay("evaluate", "http://127.0.0.1:1", "--task", "held_out,marked", *words, "--no-tests").status == 0
    _, tasks, *_, options = seen.pop()
    assert tasks == [HeldOutConfig(seed=2), MarkedConfig()]
    assert options["decoding"] == Decoding(samples=4, temperature=0.2)
    assert (options["out"], options["family"], options["tests"]) == ("there", "starcoder", False)

    assert inlay("evaluate", "--completions", "answers.jsonl", "--task", "held_out").status == 0
    target, *_, options = seen.pop()
    assert (target, options["completions"]) == (None, Path("answers.jsonl"))
    words = ("out=there", "family=starcoder", "--completions", "answers.jsonl", "--task", "held_out")
    assert inlay("evaluate", *words).status == 0
    target, *_, options = seen.pop()
    assert (target, options["out"], options["family"]) == (None, "there", "starcoder")

    assert inlay("evaluate", "run", "--task", "held_out", "sead=1").err.startswith("inlay: unknown key")
    assert "TASK.key=value" in inlay("evaluate", "run", "seed=1").err
    assert "decoding.tempreature" in inlay("evaluate", "run", "decoding.tempreature=1").err
    assert "samples = 4" in inlay("evaluate", "run", "decoding.samples=4").err
    assert "heldout" in inlay("evaluate", "run", "--task", "heldout").err
    assert seen == []


def test_several_tasks_are_one_object(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    results = [{"task": "held_out", "n": 3}, {"task": "marked", "n": 10}]  # no page: nothing was written
    calls("inlay.evaluate.table", "print_tables")
    calls("inlay.evaluate.run", "evaluate_tasks", result=results, DEFAULT_TASKS=("held_out", "marked"))
    found = json.loads(inlay("evaluate", "run", "--json").out)
    assert found == {"task": "held_out", "n": 3, "also": {"marked": {"task": "marked", "n": 10}}}


def test_report(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    alone = SimpleNamespace(entries=[SimpleNamespace(runs=["a"])])
    both = SimpleNamespace(entries=[SimpleNamespace(runs=["a"]), SimpleNamespace(runs=["b"])])
    tables: list[Any] = []
    calls("inlay.evaluate.report_numbers", "numbers", result={"reference": "A"}, print_comparison=tables.append)
    calls("inlay.evaluate.report", "report", result=("page.html", alone))
    assert inlay("report", "a").out == "page.html\n"
    assert tables == [], "one run has its page alone"
    seen = calls("inlay.evaluate.report", "report", result=("page.html", both))
    assert inlay("report", "a", "b").out == "page.html\n"
    assert tables == [both]
    assert inlay("report", "a", "b", "--json").out == '{"page": "page.html", "reference": "A"}\n'
    assert tables == [both], "nothing but the object on standard output"
    inlay("report", "a", "b", "--out", "c.html")
    inlay("report", "a", "out=d.html")
    assert seen == [(["a", "b"], None), (["a", "b"], None), (["a", "b"], Path("c.html")), (["a"], Path("d.html"))]


def test_prepare_says_what_it_made(inlay: Callable[..., Any], tmp_path: Path) -> None:
    for package in ("one", "two", "three"):
        (tmp_path / "code" / package).mkdir(parents=True)
        for number in range(4):
            lines = "".join(f"def {package}_{number}_{line}(value):\n    return value + {line}\n" for line in range(40))
            (tmp_path / "code" / package / f"m{number}.py").write_text(lines)
    store = tmp_path / "store"
    words = ["source.kind=folder", f"source.path={tmp_path / 'code'}", "tokenizer.vocab_size=320", f"out={store}"]
    outcome = inlay("prepare", *words)
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"{store}: ")
    assert "train" in outcome.out
    assert "tokens" in outcome.out
    again = inlay("prepare", *words)
    assert (again.status, again.out) == (2, "")
    assert str(store) in again.err
    assert inlay("prepare", *words[:1], f"source.path={tmp_path / 'none'}", f"out={tmp_path / 's2'}").status == 2


def test_an_error_of_the_package_reaches_the_user(inlay: Callable[..., Any], calls: Callable[..., Any]) -> None:
    calls("inlay.evaluate.report", "report", result=BadInput("no run at 'a'"))
    assert inlay("report", "a") == (2, "", "inlay: no run at 'a'\n")
