"""Signals at any moment, and standard streams that are closed, full, left, or of another encoding: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

INLAY = [sys.executable, "-m", "inlay"]
posix = pytest.mark.skipif(os.name != "posix", reason="shell redirections and POSIX signals")
# Both print a table with lines, and characters that no 8-bit encoding has.
PRINTS = [
    ("inspect", "formats"),
    ("--help",),
    pytest.param(("inspect", "model", "pico"), marks=pytest.mark.slow),
    pytest.param(("inspect", "optim", "pico"), marks=pytest.mark.slow),
]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`line` in bash, where $INLAY is the command."""
    command = " ".join(f"'{word}'" for word in INLAY)
    return subprocess.run(
        ["bash", "-c", line.replace("$INLAY", command)], capture_output=True, env={**os.environ, **environment}
    )


@posix
@pytest.mark.parametrize("words", PRINTS)
def test_closed_streams(words: tuple[str, ...]) -> None:
    verb = " ".join(words)
    whole = shell(f"$INLAY {verb}").stdout
    assert len(whole) > 500
    for closed, out in ((">&-", b""), ("2>&-", whole), ("<&-", whole), (">&- 2>&- <&-", b"")):
        done = shell(f"$INLAY {verb} {closed}")
        assert (done.returncode, done.stdout, done.stderr) == (0, out, b""), closed
    # The number of a closed stream is not given to a file: what is printed would go there. An error is still said.
    assert shell("$INLAY inspect modle 2>&-").returncode == 2
    assert shell("$INLAY inspect modle 2>&-").stdout == b""
    assert b"no cursor" in shell("$INLAY complete x <&-").stderr


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", PRINTS)
def test_full_streams(words: tuple[str, ...]) -> None:
    done = shell(f"$INLAY {' '.join(words)} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"inlay: cannot write to standard output: no space left on device\n"
    assert shell(f"$INLAY {' '.join(words)} 2>/dev/full").returncode == 0
    assert shell("$INLAY inspect modle 2>/dev/full").returncode == 2


@posix
@pytest.mark.parametrize("words", PRINTS)
def test_a_reader_that_left(words: tuple[str, ...]) -> None:
    done = shell(f"$INLAY {' '.join(words)} | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == (b"141\n", b"")


@posix
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("words", PRINTS)
def test_a_terminal_that_lacks_characters(words: tuple[str, ...], encoding: str) -> None:
    done = shell(f"$INLAY {' '.join(words)}", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert not set("─━│█") & set(text)
    if words == ("inspect", "formats"):
        assert "?" in text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes, and the process replaces itself")
@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_names_in_another_locale(tmp_path: Path, locale: str) -> None:
    """A file is found by its name, and what is in it is UTF-8, whatever the locale says."""
    (tmp_path / "größe.py").write_text("größe = 'é'\n", encoding="utf-8")
    variables = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "INLAY_NO_REEXEC": "0"}
    done = shell(f"cd '{tmp_path}'; $INLAY inspect spans größe.py --json", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    missing = shell(f"cd '{tmp_path}'; $INLAY inspect spans kürzer.py", **variables)
    assert missing.returncode == 2
    assert missing.stderr.count(b"\n") == 1


@posix
def test_a_name_that_is_no_utf8_is_printed_as_it_is(tmp_path: Path) -> None:
    done = subprocess.run([*INLAY, "inspect", "spans", os.fsdecode(b"caf\xe9.py")], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2
    assert b"caf\xe9.py" in done.stderr


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "verb", [("inspect", "model", "pico"), pytest.param(("evaluate", "nowhere"), marks=pytest.mark.slow)]
)
def test_a_signal_at_any_moment(verb: tuple[str, ...], name: str, status: int) -> None:
    """From the first import on: one line and the status, or the end of the verb; never a traceback of ours."""
    number = getattr(signal, name)
    began = time.monotonic()
    subprocess.run([*INLAY, *verb], capture_output=True)
    whole, stopped = time.monotonic() - began, 0
    for share in (0.05, 0.2, 0.4, 0.6):
        process = subprocess.Popen([*INLAY, *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(share * whole)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        # The interpreter's own first moments are not ours: it says what it says, before it has read a file of ours.
        if "inlay" not in error and process.returncode in (-number, 1):
            continue
        assert "Traceback" not in error
        assert error.count("\n") <= 1
        if error == "inlay: interrupted\n":
            assert process.returncode == status
            stopped += 1
    assert stopped


@posix
def test_an_ignored_signal_stays_ignored() -> None:
    done = shell("trap '' INT; $INLAY inspect formats & child=$!; sleep 0.3; kill -INT $child; wait $child; echo $?")
    assert done.stdout.endswith(b"\n0\n")


@posix
def test_an_interrupt_that_something_swallows(tmp_path: Path) -> None:
    """In a destructor, and in the middle of an import that goes on without what failed."""
    (tmp_path / "swallows.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time\n    time.sleep(0.2)\n"
        "except BaseException:\n    pass\n"
    )
    program = (
        "import os, signal, sys, time, types\n"
        "def stats(store, as_json, overrides):\n"
        "    try:\n"
        "        if store == 'destructor':\n"
        "            class Holder:\n"
        "                def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
        "            Holder()\n"
        "        else:\n"
        "            import swallows\n"
        "        time.sleep(20)\n"
        "    finally:\n"
        "        print('put in order')\n"
        "module = types.ModuleType('inlay.data.stats')\n"
        "module.print_stats = stats\n"
        "sys.modules['inlay.data.stats'] = module\n"
        "from inlay.cli.main import main\n"
        "sys.exit(main())\n"
    )
    for case in ("destructor", "import"):
        done = subprocess.run(
            [sys.executable, "-c", program, "inspect", "stats", case],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}"},
            timeout=15,
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, "put in order\n", "inlay: interrupted\n"), case
