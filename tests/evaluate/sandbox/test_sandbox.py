"""Opening, running many, closing, and trouble that is the sandbox's own."""

import io
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput, InlayError
from inlay.evaluate.sandbox import Case, Limits, Program, open_sandbox
from inlay.evaluate.sandbox import base as base_module
from inlay.evaluate.sandbox import bubblewrap as bubblewrap_module
from inlay.evaluate.sandbox import launcher as launcher_module
from inlay.evaluate.sandbox.bubblewrap import Bubblewrap
from inlay.evaluate.sandbox.launcher import receive, send
from inlay.evaluate.sandbox.unsafe import UnsafeSubprocess

SLOW = Limits(seconds=30.0)


def python(source, *cases, **fields):
    return Program("python", source, cases or (Case(),), SLOW, **fields)


# ---- opening ---------------------------------------------------------------------------------------------------------


def test_without_bubblewrap_it_refuses_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"not installed.*apt install bubblewrap.*--allow-unsafe") as caught:
        open_sandbox()
    assert "\n" not in str(caught.value)


def test_without_bubblewrap_unsafe_is_said_in_the_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_sandbox(allow_unsafe=True) as sandbox:
        assert not sandbox.safe
        assert "unsafe" in sandbox.name
        assert sandbox.run(python("assert 1")).passed


def test_a_bubblewrap_that_does_not_work_is_found_out(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no permission to make a namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(bubblewrap_module.shutil, "which", lambda name: str(broken))
    with pytest.raises(BadInput, match=r"does not work here: .*(no permission|bwrap)") as caught:
        open_sandbox()
    assert "\n" not in str(caught.value)


ONE_USER = """
from inlay.evaluate.sandbox import Program, open_sandbox
from inlay.evaluate.sandbox.launcher import may_become
assert not may_become(65520)
for unsafe in (False, True):
    with open_sandbox(allow_unsafe=unsafe) as sandbox:
        assert sandbox.safe
        assert sandbox.run(Program("python", "assert 1 + 1 == 2")).passed
        assert sandbox.run(Program("python", "assert 1 + 1 == 3")).cause == "wrong"
from inlay.evaluate.sandbox.unsafe import UnsafeSubprocess
with UnsafeSubprocess() as sandbox:
    assert "as root" in sandbox.name
    assert sandbox.run(Program("python", "assert 1 + 1 == 2")).passed
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare on this machine")
def test_a_container_that_knows_one_user_alone(safe):
    """Rootless Podman without subordinate ids: root there cannot give itself up, and bubblewrap works."""
    inside = ["unshare", "--user", "--map-root-user"]
    probe = [*inside, "bwrap", "--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "/bin/true"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("this system lets nobody make such a container, or bubblewrap itself does not work in one")
    done = subprocess.run([*inside, sys.executable, "-c", ONE_USER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("users", "groups", "setgroups", "capabilities", "expected"),
    [
        ("0 0 4294967295", "0 0 4294967295", "allow", "000001ffffffffff", True),
        ("0 100000 65536", "0 100000 65536", "allow", "00000000a80425fb", True),
        ("0 1000 1", "0 1000 1", "deny", "000001ffffffffff", False),
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", "allow", "000001ffffffffff", True),
        ("0 1000 1\n1 100000 1000", "0 1000 1\n1 100000 1000", "allow", "000001ffffffffff", False),
        ("0 0 4294967295", "0 0 4294967295", "allow", "0000000000000000", False),
    ],
)
def test_who_can_be_given_up(monkeypatch, users, groups, setgroups, capabilities, expected):
    files = {
        "uid_map": users,
        "gid_map": groups,
        "setgroups": setgroups,
        "status": f"Name:\tx\nCapEff:\t{capabilities}",
    }
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("builtins.open", lambda path, *_: io.StringIO(files[path.removeprefix("/proc/self/")] + "\n"))
    assert launcher_module.may_become(65520) is expected
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not launcher_module.may_become(65520)


def test_a_home_is_never_shown(monkeypatch):
    home = os.path.expanduser("~")
    monkeypatch.setattr(bubblewrap_module, "base_python", lambda: (f"{home}/bin/python", home))
    monkeypatch.setattr(bubblewrap_module.shutil, "which", lambda name: "/usr/bin/bwrap")
    with pytest.raises(BadInput, match="show all of"):
        Bubblewrap()


def test_importing_it_loads_no_torch():
    code = "import sys, inlay.evaluate.sandbox; sys.exit('torch' in sys.modules)"
    path = os.pathsep.join(one for one in sys.path if one)
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}).returncode == 0


# ---- running ---------------------------------------------------------------------------------------------------------


def test_verdicts(sandbox):
    assert sandbox.run(python("assert 1")).to_dict() | {"seconds": 0} == {
        "verdict": "passed", "cause": "passed", "compiled": True, "seconds": 0, "detail": "",
    }  # fmt: skip
    wrong = sandbox.run(python("x = 1\nassert x == 2, 'one is not two'"))
    assert (wrong.cause, wrong.compiled, wrong.detail) == ("wrong", True, "AssertionError: one is not two (line 2)")
    error = sandbox.run(python("def f():\n    return {}[1]\nf()"))
    assert (error.cause, error.detail) == ("error", "KeyError: 1 (line 2)")
    syntax = sandbox.run(python("def f(:\n"))
    assert (syntax.cause, syntax.compiled, syntax.detail) == ("compile", False, "SyntaxError: invalid syntax (line 1)")
    assert sandbox.run(python("exit(0)")).cause == "left_early"
    assert sandbox.run(python("exit(3)")).cause == "error"
    loop = sandbox.run(Program("python", "while True: pass", limits=Limits(seconds=0.5)))
    assert (loop.cause, loop.detail) == ("timeout", "more than 0.5 s")
    assert sandbox.run(python("import sys\nwhile True: sys.stdout.write('x' * 99999)")).cause == "output"
    assert sandbox.run(python("data = bytearray(4 << 30)")).cause == "memory"
    assert sandbox.run(python("import os\nos.abort()")).cause == "crash"
    big = "f = open('x', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))"
    assert sandbox.run(python(big)).cause == "file_size"


def test_cases(sandbox):
    echo = "import sys\nfor line in sys.stdin: print(line[::-1].strip())"
    assert sandbox.run(python(echo, Case("ab\ncd", "ba\ndc"), Case("", ""))).passed
    assert sandbox.run(python(echo, Case("ab", "ba"), Case("ab", "ab"))).cause == "wrong"
    assert sandbox.run(python("print(1); exit()", Case("", "1"))).passed
    assert sandbox.run(python("print(1); exit(2)", Case("", "1"))).cause == "error"
    assert sandbox.run(python("print('a  b')", Case("", "a b"))).passed
    assert sandbox.run(python("print('a  b')", Case("", "a b\n"), compare="exact")).cause == "wrong"
    assert sandbox.run(python("print('a b')", Case("", "a b\n"), compare="exact")).passed


def test_much_input_that_is_never_read(sandbox):
    assert sandbox.run(python("pass", Case("x" * 3_000_000))).passed
    assert sandbox.run(python("print(len(input()))", Case("x" * 3_000_000, "3000000"))).passed


def test_the_program_is_a_main_module_with_the_standard_library(sandbox):
    source = """
import collections, dataclasses, decimal, inspect, itertools, json, math, pickle, random, re, string, typing
@dataclasses.dataclass
class A:
    x: int = 1
assert pickle.loads(pickle.dumps(A())) == A()
assert "class A" in inspect.getsource(A)
assert __name__ == "__main__" and __file__.endswith("program.py")
import sys
assert len(sys.argv) == 1 and not sys.flags.optimize
assert hash("a") == %s
print("\\u00e9\\u4e2d")
"""
    code = [sys.executable, "-c", "print(hash('a'))"]
    number = subprocess.run(code, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True).stdout
    outcome = sandbox.run(python(source % number.strip(), Case("", "é中")))
    assert outcome.passed, outcome


def test_a_language_without_toolchain_is_unavailable_and_not_failed(sandbox):
    outcome = sandbox.run(Program("cobol", "DISPLAY 'x'."))
    assert (outcome.verdict, outcome.cause, outcome.passed) == ("unavailable", "unavailable", None)
    assert not sandbox.available("cobol")


def test_a_toolchain_that_cannot_run_its_first_program_counts_as_none(safe, monkeypatch):
    broken = base_module.Toolchain("cobol", base_module.toolchain("python").plan, "assert 0")
    monkeypatch.setattr(base_module, "toolchain", lambda language: broken)
    with Bubblewrap.__new__(Bubblewrap) as sandbox:
        sandbox.__dict__.update(safe.__dict__, _known={}, _probing={}, _idle=[], _busy=set(), _slots=set())
        assert sandbox.run(Program("cobol", "assert 1")).verdict == "unavailable"


@pytest.mark.parametrize("file", ["../x.py", "/etc/x.py", "-x.py", "a/b.py", "", ".x"])
def test_file_names_that_lead_elsewhere(sandbox, file):
    with pytest.raises(BadInput, match="plain name"):
        sandbox.run(Program("python", "pass", file=file))


def test_no_case_is_no_test(sandbox):
    with pytest.raises(BadInput, match="at least one case"):
        sandbox.run(Program("python", "pass", cases=()))


def test_many_programs_at_a_time_keep_their_own_outcomes(sandbox):
    programs = [python(f"assert {number} % 3, {number}") for number in range(12)] * 2
    outcomes = dict(sandbox.run_many(programs, workers=3))
    assert sorted(outcomes) == list(range(24))
    for index, outcome in outcomes.items():
        assert outcome.passed == (index % 12 % 3 != 0)
        assert outcome.passed or f"{index % 12} (line 1)" in outcome.detail


def test_equal_programs_run_once(safe, monkeypatch):
    ran = []
    judged = Bubblewrap._judged
    monkeypatch.setattr(
        Bubblewrap, "_judged", lambda self, program, tools: ran.append(1) or judged(self, program, tools)
    )
    same = [python("assert 7")] * 5 + [python("assert 8")]
    assert len(dict(safe.run_many(same))) == 6
    assert len(ran) == 2


def test_nothing_to_run(sandbox):
    assert list(sandbox.run_many([])) == []


def test_leaving_in_the_middle_of_many(safe):
    many = safe.run_many([python(f"assert {number} >= 0") for number in range(200)], workers=1)
    next(many)
    many.close()
    assert safe.run(python("assert 1")).passed


def test_a_closed_sandbox_runs_nothing():
    sandbox = UnsafeSubprocess(workers=1)
    sandbox.close()
    sandbox.close()
    with pytest.raises(InlayError, match="closed"):
        sandbox.run(python("pass"))


# ---- trouble of its own ----------------------------------------------------------------------------------------------


def test_a_launcher_that_dies_is_replaced(sandbox):
    assert sandbox.run(python("assert 2")).passed
    for _, _, worker in sandbox._idle:
        worker._process.kill()
        worker._process.wait()
    assert sandbox.run(python("assert 3")).passed


def test_a_sandbox_that_breaks_raises_and_never_counts_as_failed(safe):
    with Bubblewrap(workers=1) as sandbox:
        sandbox._wrapper = ["/bin/false"]
        sandbox.close()
        sandbox._closed = False
        with pytest.raises(InlayError, match="broke"):
            sandbox.run(python("assert 1"))


def test_unsafe_a_program_that_ends_its_launcher_has_failed(unsafe):
    outcome = unsafe.run(python("import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(60)"))
    assert (outcome.verdict, outcome.cause) == ("failed", "crash")
    assert unsafe.run(python("assert 1")).passed


def test_unsafe_leaves_no_folder(unsafe):
    outcome = unsafe.run(python("import os\nraise SystemExit(os.getcwd())"))
    folder = outcome.detail.split()[1]
    assert "inlay-unsafe" in folder
    assert not os.path.exists(folder)


# ---- messages --------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.lists(st.binary()))
def test_messages_come_back(message, blobs):
    message.pop("blobs", None)
    stream = io.BytesIO()
    send(stream, message, blobs)
    send(stream, {"next": 1})
    stream.seek(0)
    assert receive(stream) == (message, blobs)
    assert receive(stream) == ({"next": 1}, [])
    with pytest.raises(EOFError):
        receive(stream)
