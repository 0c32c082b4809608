"""No file of the folder in which somebody works is run, and no process of ours outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.train.tiny_training import module, write_store

import inlay
from inlay import python_process
from inlay.data.loader import Loader, Rows
from inlay.evaluate.validity import COMPILE, Question, Validity
from inlay.fim.transform import FimConfig
from inlay.text.syntax_pool import ParseJob, SyntaxPool

OURS = (
    "numpy",
    "torch",
    "tokenizers",
    "yaml",
    "pydantic",
    "hydra",
    "rich",
    "tiktoken",
    "safetensors",
    "xxhash",
    "gguf",
)
NAMES = sorted(
    {name for name in sys.stdlib_module_names if not name.startswith("__")}
    | {*OURS, "inlay", "transformers", "xllamacpp", "sitecustomize", "usercustomize"}
)


FIM = FimConfig(family="inlay", rate=0.5, orders={"psm": 0.5, "spm": 0.5})


@pytest.fixture(scope="module")
def tiny_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("process") / "store")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """The current folder holds a file for every module of the standard library and more, each of which leaves a mark
    when it is run; `fired()` lists the marks."""
    folder, marks = tmp_path / "project", tmp_path / "marks"
    folder.mkdir()
    marks.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marks / name)!r}, 'w').close()\nraise SystemExit('trap')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv(python_process.SAFE, "")  # `leave_folder` sets it: put back for the tests that follow
    monkeypatch.setattr(python_process, "_started_safely", lambda: False)
    # As `python -m inlay` has it.
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return lambda: sorted(os.listdir(marks))


def environment() -> dict[str, str]:
    """That of a user: the tree is found, and nothing else is set."""
    source = str(Path(inlay.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": source, "INLAY_NO_REEXEC": ""}


def test_the_trap_fires(trap):
    # Else the tests below say nothing. This is what plain `python -m` does, with any program.
    subprocess.run([sys.executable, "-c", "import json"], capture_output=True, check=False)
    assert trap()  # json, or what this version of Python wants first


def test_workers_run_nothing_of_the_folder(trap):
    with SyntaxPool(1, 10.0) as pool:
        assert pool.submit([ParseJob("python", b"x = 1\n")]).result()
    with Validity(1) as validity:
        assert validity.ask([Question(COMPILE, "x = 1\n")]) == [True]
    assert trap() == []


def test_data_workers_run_nothing_of_the_folder(trap, tmp_path, monkeypatch, tiny_store):
    python_process.leave_folder()
    with Loader(Rows(str(tiny_store), "train", FIM, 128, 0), 2, workers=1) as loader:
        next(loader)
    assert trap() == []


@pytest.mark.parametrize("words", [["--help"], ["inspect", "model", "pico"], ["inspect", "formats"]])
def test_verbs_run_nothing_of_the_folder(trap, words):
    for command in ([str(Path(sys.executable).with_name("inlay"))], [sys.executable, "-P", "-m", "inlay"]):
        if not Path(command[0]).is_file():
            continue  # not installed: run from the tree
        done = subprocess.run([*command, *words], env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert trap() == []


@pytest.mark.slow
def test_long_verbs_run_nothing_of_the_folder(trap, tmp_path, tiny_store):
    run, code = tmp_path / "run", tmp_path / "code"
    for number in range(8):
        (code / f"part{number % 4}").mkdir(parents=True, exist_ok=True)
        (code / f"part{number % 4}" / f"m{number}.py").write_text(module(number))
    options = ["model=pico", "train.steps=2", "train.rows=2", "train.sequence_length=128", "data.workers=1"]
    words = [
        ["train", f"data.path={tiny_store}", *options, f"out={run}"],
        ["evaluate", str(run), "--task", "held_out", "categories={word: 2}"],
        ["evaluate", str(run), "--task", "marked", "--limit", "1", "max_tokens=8", "--out", str(tmp_path / "marked")],
        ["export", str(run), "--to", "hf", "--out", str(tmp_path / "hf")],
        ["complete", str(run), "--prefix-file", "json.py", "max_tokens=4"],
        ["inspect", "rows", str(tiny_store), "--count", "1"],
        ["report", str(run)],
        ["prepare", "source=folder", f"source.path={code}", "tokenizer.vocab_size=400", f"out={tmp_path / 'store'}"],
    ]
    for line in words:
        command = [sys.executable, "-P", "-m", "inlay", *line]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert trap() == [], line
        assert done.returncode == 0, (line, done.stderr)


def test_the_folder_leaves_the_path(trap):
    before = list(sys.path)
    python_process.leave_folder()
    assert os.getcwd() not in sys.path
    kept = [entry for entry in before if entry not in ("", os.getcwd())]
    assert sys.path[: len(kept)] == kept
    assert os.environ[python_process.SAFE] == "1"


def test_who_names_the_folder_means_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(tmp_path)])
    assert python_process.safe_path() == ["/elsewhere", str(tmp_path)]


PARENT = """
import sys
sys.path[:] = {path!r}
{work}
if __name__ == "__main__":
    import time

    print("ready", flush=True)
    time.sleep(60)
"""
POOL = """
from inlay.text.syntax_pool import ParseJob, SyntaxPool
pool = SyntaxPool(1, 10.0).__enter__()
pool.submit([ParseJob("python", b"x = 1")]).result()
"""
VALIDITY = """
from inlay.evaluate.validity import COMPILE, Question, Validity
validity = Validity(1).__enter__()
validity.ask([Question(COMPILE, "x = 1")])
"""
LOADER = """
from inlay.config import validate
from inlay.data.loader import Loader, Rows
from inlay.fim.transform import FimConfig
if __name__ == "__main__":
    loader = Loader(Rows({store!r}, "train", validate(FimConfig, {fim!r}), 128, 0), 2, workers=1)
    next(loader)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed by /proc")
@pytest.mark.parametrize("work", ["pool", "validity", "loader"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_do_not_outlive_their_parent(tmp_path, tiny_store, work, number):
    loader = LOADER.format(store=str(tiny_store), fim=FIM.to_dict())
    text = {"pool": POOL, "validity": VALIDITY, "loader": loader}[work]
    program = tmp_path / "parent.py"
    program.write_text(PARENT.format(path=sys.path, work=text))
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    children = below(parent.pid)
    assert children
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while (left := [pid for pid in children if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


def below(pid: int) -> list[int]:
    """Process ids of all that came of `pid`."""
    found, waiting = [], [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            children = [int(one) for one in task.read_text().split()]
            found += children
            waiting += children
    return found


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended and was not asked for is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
