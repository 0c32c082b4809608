"""Exit statuses, one-line errors, and how little `--help` loads."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from inlay import __version__
from inlay.cli.main import main
from inlay.config import BadInput, InlayError

VERBS = ("demo", "prepare", "inspect", "train", "sweep", "evaluate", "complete", "export", "report")


def test_help_lists_the_verbs_and_no_others(inlay: Callable[..., Any]) -> None:
    outcome = inlay("--help")
    assert outcome.status == 0
    listed = [line.split()[1] for line in outcome.out.splitlines() if line.startswith("│ ") and line[2].islower()]
    assert listed == list(VERBS)
    assert inlay().out == outcome.out
    assert inlay("--version").out.strip() == __version__


@pytest.mark.parametrize("verb", [*((verb,) for verb in VERBS), ("inspect", "rows")])
def test_every_verb_has_help(inlay: Callable[..., Any], verb: tuple[str, ...]) -> None:
    outcome = inlay(*verb, "--help")
    assert outcome.status == 0
    assert f"Usage: inlay {' '.join(verb)}" in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("trian",), ["trian", "train"]),
        (("inspect", "modl"), ["modl", "model"]),
        (("train", "--conifg", "x"), ["--conifg", "--config"]),
        (("evaluate",), ["--completions"]),
        (("evaluate", "run", "--limit", "many"), ["--limit", "many"]),
        (("evaluate", "run", "--order", "mps"), ["--order", "mps"]),
        (("inspect", "rows", "store", "--count", "0"), ["--count 0"]),
        (("demo", "--minutes", "soon"), ["--minutes", "soon"]),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    inlay: Callable[..., Any], words: tuple[str, ...], parts: list[str]
) -> None:
    outcome = inlay(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("inlay: ")
    assert outcome.err.count("\n") == 1
    assert all(part in outcome.err for part in parts), outcome.err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (BadInput("no run at 'x'"), 2, "inlay: no run at 'x'"),
        (InlayError("the disk is full"), 1, "inlay: the disk is full"),
        (InlayError("two\n  lines"), 1, "inlay: two lines"),
        (KeyboardInterrupt(), 130, "inlay: interrupted"),
        (KeyError("x"), 1, "inlay: unexpected KeyError: 'x'; re-run with --debug to see where"),
        (PermissionError(13, "Permission denied", "/x"), 1, "inlay: '/x': permission denied"),
        (MemoryError(), 1, "inlay: out of memory: take a smaller model, fewer rows or a shorter sequence"),
    ],
)
def test_every_error_is_one_line(
    inlay: Callable[..., Any], calls: Callable[..., Any], error: BaseException, status: int, line: str
) -> None:
    calls("inlay.data.stats", "print_stats", result=error)
    outcome = inlay("inspect", "stats", "store")
    assert outcome == (status, "", line + "\n")
    with pytest.raises(type(error)):
        main(["inspect", "stats", "store", "--debug"])


def test_a_closed_pipe_is_quiet() -> None:
    program = (
        "import sys, types\n"
        "module = types.ModuleType('inlay.data.stats')\n"
        "module.print_stats = lambda store, as_json, overrides: print('x' * 200_000)\n"
        "sys.modules['inlay.data.stats'] = module\n"
        "from inlay.cli.main import main\n"
        "raise SystemExit(main(['inspect', 'stats', 'store']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (141, b"")


def test_help_is_light() -> None:
    program = (
        "import json, sys\n"
        "from inlay.cli.main import main\n"
        "status = main(['train', '--help'])\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'pyarrow', 'tokenizers', 'transformers', 'pydantic'}\n"
        "print(json.dumps([status, sorted(heavy & set(sys.modules))]), file=sys.stderr)\n"
    )
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    status, loaded = json.loads(done.stderr.splitlines()[-1])
    assert status == 0
    # The configuration base (pydantic) is small; what may not appear is anything that computes or composes.
    assert set(loaded) <= {"pydantic"}


def test_python_m_inlay() -> None:
    done = subprocess.run([sys.executable, "-m", "inlay", "train", "resume="], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "inlay: 'resume=' has no value: give resume=PATH\n"
