"""The demo: what it shows, and what a second one does. Training and evaluation are stood in for."""

import io
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from inlay.cli import demo_screens as screens
from inlay.config.run_dir import RunDir

SAMPLE = {
    "category": "word", "path": "src/größe.py", "prefix": "import os\n\n\ndef first(value):\n    return ",
    "middle": "value", "suffix": " + 1\n\n\ndef second():\n", "gold": "value", "exact": True, "stopped": "end",
}  # fmt: skip
SQL = SAMPLE | {
    "path": "a.sql",
    "prefix": "SELECT a\nFROM ",
    "middle": "b\nc",
    "suffix": " WHERE a > 3\n",
    "exact": False,
}
RESULT: dict[str, Any] = {
    "task": "held_out",
    "metrics": {"psm": {"stopped": {"value": 0.925}, "exact": {"value": 0.1}}},
    "slices": {"psm": {"category": {"word": {"exact": {"value": 0.21}}, "line": {"exact": {"value": None}}}}},
    "samples": [SAMPLE, SQL],
}


STORE = SimpleNamespace(splits=(), manifest={"dropped": {}})

# ---- what it shows ---------------------------------------------------------------------------------------------------


def last(encoding: str, samples: list[dict[str, Any]], **options: Any) -> str:
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, newline="")
    console = screens.terminal(file)
    console.width = 80
    if options.pop("colour", False):
        console = Console(
            file=file,
            force_terminal=True,
            color_system="standard",
            width=80,
            soft_wrap=True,
            highlight=False,
            no_color=False,
        )
    screens.last_screen(
        RESULT | {"samples": samples}, "runs/my demo", "runs/my demo/store", "r.html", None, 5.0, 90.0, console
    )
    file.flush()
    return buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_the_last_screen_fits_every_terminal(encoding: str) -> None:
    odd = SAMPLE | {"middle": "日本\x1b[31m→" * 30, "exact": False, "prefix": "\tx = 1\r\n" * 3, "gold": "größer"}
    text = last(encoding, [SAMPLE, odd])
    # A command is one line however long it is, so that it can be copied.
    assert all(len(line) <= 80 for line in text.split("Next:")[0].splitlines())
    assert "    return <<value>> + 1" in text
    assert "as the author wrote it" in text
    assert "\x1b" not in text
    assert "21% of one-word gaps" in text
    assert "stops by itself in 92% of the gaps" in text


def test_colour_takes_the_place_of_signs() -> None:
    text = last("utf-8", [SAMPLE, SQL], colour=True)
    assert "\x1b[1;32mvalue\x1b[0m" in text
    assert "<<" not in text


def test_the_example_is_of_the_corpus_and_safe_in_a_shell() -> None:
    assert screens.example_line([SQL]) == "FROM <CURSOR> WHERE a > 3"
    for change in (
        {"prefix": "x = '"},
        {"suffix": " \\\n"},
        {"prefix": "é = "},
        {"prefix": ""},
        {"suffix": " " + "x" * 70},
    ):
        assert screens.example_line([SAMPLE | change]) is None, change
    assert screens.example_line([SAMPLE | {"prefix": "é = "}, SQL]) == "FROM <CURSOR> WHERE a > 3"


def test_the_next_commands_can_be_copied(tmp_path: Path) -> None:
    """A shell gives each the words that are meant, whatever the names."""
    path = "runs/my demo; x"
    for corpus in (None, "a b's"):
        commands = screens.next_commands(path, f"{path}/store", corpus, 5.0, "FROM <CURSOR> WHERE a > 3")
        assert len(commands) == 3
        complete = commands[0].split(" | ")
        shown = subprocess.run(["sh", "-c", complete[0]], capture_output=True, text=True, check=True).stdout
        assert shown == "FROM <CURSOR> WHERE a > 3\n"
        assert shlex.split(complete[1])[-2:] == ["complete", path]
        assert shlex.split(commands[1])[-3:] == [f"{path}/store", "--count", "2"]
        assert corpus is None or shlex.split(commands[2])[-2:] == ["--corpus", corpus]


def test_the_first_screen_says_what_will_happen() -> None:
    lines = screens.first_screen("runs/demo", "CODE", 5.0, "no C++ compiler: slower", ["--resume"])
    text = "\n".join(lines)
    assert text.isascii()
    assert max(map(len, lines)) <= 80
    for word in ("prepare", "train", "5 min", "evaluate", "report", "runs/demo", "Ctrl-C", "demo --resume", "no C++"):
        assert word in text
    assert "note" not in "\n".join(screens.first_screen("runs/demo", "CODE", None, None, []))


def test_a_missing_compiler_is_said_in_a_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from inlay.train import compiler

    monkeypatch.setattr(compiler.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(compiler, "why_not_compiled", lambda device: f"no C++ compiler ({'details ' * 20})")
    assert compiler.why_slow() == "no C++ compiler: it works, about a third slower"
    monkeypatch.setattr(compiler, "why_not_compiled", lambda device: None)
    assert compiler.why_slow() is None


# ---- what a second demo does -----------------------------------------------------------------------------------------


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The steps of a demo in a folder of its own, each of which only leaves its trace; `steps.stop` names one that is
    interrupted before that."""

    class Steps:
        done: list[str] = []
        stop = ""

        def take(self, name: str, leave: Callable[[], Any]) -> Any:
            if name == self.stop:
                raise KeyboardInterrupt
            self.done.append(name)
            return leave()

    made = Steps()
    made.done = []
    monkeypatch.chdir(tmp_path)
    run = RunDir(Path("runs/demo"))

    def leave(file: Path) -> Callable[[], Any]:
        def write() -> Any:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
            return RESULT

        return write

    store = run.path / "store/manifest.json"
    monkeypatch.setattr("inlay.text.prepare.prepare", lambda *_: made.take("prepare", leave(store)) and STORE)
    monkeypatch.setattr("inlay.train.run.begin", lambda *_: made.take("begin", leave(run.metrics_file)))
    monkeypatch.setattr("inlay.train.run.resume", lambda *_: made.take("resume", leave(run.metrics_file)))
    page = run.evaluations / "held_out.json"
    monkeypatch.setattr("inlay.evaluate.run.evaluate", lambda *_, **__: made.take("evaluate", leave(page)))
    monkeypatch.setattr(
        "inlay.evaluate.report.write_report", lambda runs, file: (made.take("report", leave(Path(file))), file)[1]
    )
    monkeypatch.setattr("inlay.evaluate.table.print_table", lambda *_: None)
    return made


def test_a_demo_goes_through_every_step(inlay: Callable[..., Any], steps: Any) -> None:
    outcome = inlay("demo")
    assert outcome.status == 0, outcome.err
    assert steps.done == ["prepare", "begin", "evaluate", "report"]
    assert "takes about" in outcome.err
    assert "Next:" in outcome.out


@pytest.mark.parametrize(
    ("stop", "rest"),
    [
        ("prepare", ["prepare", "begin", "evaluate", "report"]),
        ("begin", ["begin", "evaluate", "report"]),
        ("evaluate", ["resume", "evaluate", "report"]),
        ("report", ["resume", "evaluate", "report"]),
    ],
)
@pytest.mark.parametrize("again", [(), ("--resume",)])
def test_an_interrupted_demo_goes_on(
    inlay: Callable[..., Any], steps: Any, stop: str, rest: list[str], again: tuple[str, ...]
) -> None:
    steps.stop = stop
    outcome = inlay("demo", "--minutes", "3")
    assert outcome.status == 130
    assert outcome.err.endswith("demo --resume\n"), "the command that goes on"
    steps.done, steps.stop = [], ""
    assert inlay("demo", *again).status == 0
    assert steps.done == rest
    assert "minutes: 3" in Path("runs/demo/config.yaml").read_text()


def test_a_complete_demo_is_left_as_it_is(inlay: Callable[..., Any], steps: Any) -> None:
    inlay("demo")
    before = sorted(Path("runs").rglob("*"))
    for again in ((), ("--resume",)):
        outcome = inlay("demo", *again)
        assert outcome.status == 0
        assert "runs/demo is there, and complete" in outcome.out
        assert "demo --new" in outcome.out
    assert len(steps.done) == 4
    assert sorted(Path("runs").rglob("*")) == before
    outcome = inlay("demo", "--minutes", "7")
    assert outcome.status == 2
    assert "other options" in outcome.err
    assert inlay("demo", "--new", "--minutes", "7").status == 0
    assert len(os.listdir("runs")) == 2
    assert "minutes: 5" in Path("runs/demo/config.yaml").read_text(), "the first is not lost"


def test_a_folder_of_something_else_is_not_touched(inlay: Callable[..., Any], steps: Any) -> None:
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("mine")
    assert "no demo made it" in inlay("demo", "--out", "notes").err
    assert inlay("demo", "--out", "gone", "--resume").status == 2
    assert inlay("demo", "--resume", "--new").status == 2
    assert steps.done == []
    assert os.listdir("notes") == ["a.txt"]
