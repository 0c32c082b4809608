"""Programs that try to harm the host, to see what is not theirs, or to pass without passing.

Each must fail with its cause, leave the host as it was, leave no process behind, and be followed by an ordinary program
that passes.
"""

import os
import socket
import threading
import time

import pytest

from inlay.config import InlayError
from inlay.evaluate.sandbox import Case, Limits, Program
from inlay.evaluate.sandbox.bubblewrap import Bubblewrap
from inlay.evaluate.sandbox.launcher import tree

MEBI = 1 << 20
SLOW = 30.0
"""Seconds for what must end for another reason than time, on whatever machine."""


MARK = f"attack_{os.getpid()}.py"
"""The programs' file: by it their processes are told from all others of the host."""
SLEEP = 61_000_000 + os.getpid()


def python(source, seconds=SLOW, **limits):
    return Program("python", source, limits=Limits(seconds=seconds, **limits), file=MARK)


def left_behind():
    """Command lines of processes of these tests, after some patience with the kernel's clearing up."""
    until = time.monotonic() + 10.0
    while found := [line for line in map(command_line, os.listdir("/proc")) if MARK in line or str(SLEEP) in line]:
        if time.monotonic() > until:
            return found
        time.sleep(0.01)
    return []


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


@pytest.fixture
def attack(safe):
    """Runs a program, expects it to fail with one of these causes, and everything else in order afterwards."""

    def run(program, *causes):
        outcome = safe.run(program)
        assert outcome.verdict == "failed", outcome
        assert outcome.cause in causes, outcome
        assert len(outcome.detail) <= 300
        assert outcome.detail.isprintable()
        assert left_behind() == []
        assert safe.run(python("assert sum(range(10)) == 45\n")).passed
        return outcome

    return run


# ---- using up the machine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.fork()",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "import threading, time\nfor _ in range(10000): threading.Thread(target=time.sleep, args=(60,)).start()",
        "import os\nwhile True:\n    if os.fork() == 0:\n        os.setsid()\n        continue",
    ],
    ids=["fork", "fork, whatever it says", "threads", "sessions"],
)
def test_fork_bomb(attack, source):
    attack(python(source), "processes")


def test_a_fork_bomb_in_bash(attack):
    attack(Program("bash", "f() { f | f & f; }; f; wait\n", limits=Limits(seconds=SLOW), file=MARK), "processes")


def test_memory_bomb(attack):
    attack(python("data = []\nwhile True: data.append(bytearray(16 << 20))", memory_bytes=256 * MEBI), "memory")


def test_memory_bomb_of_many_processes(attack):
    # Each stays below the limit of one; together they do not.
    source = (
        "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n"
        "        data = bytearray(b'x') * (48 << 20)\n        time.sleep(60)\ntime.sleep(60)\n"
    )
    attack(python(source, memory_bytes=256 * MEBI), "memory")


def test_memory_that_is_shared(attack):
    source = (
        "import mmap\nmaps = []\nwhile True:\n"
        "    m = mmap.mmap(-1, 16 << 20); m.write(b'x' * (16 << 20)); maps.append(m)"
    )
    attack(python(source, memory_bytes=256 * MEBI), "memory", "error")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.memfd_create('x')",
        "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0",
        "import ctypes\nassert ctypes.CDLL(None).msgget(0, 0o1600) >= 0",
    ],
    ids=["memfd", "shm", "msg"],
)
def test_memory_that_belongs_to_no_process_is_refused(attack, source):
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("no system call filter on this processor")
    attack(python(source), "error", "wrong")


def test_endless_loop(attack):
    attack(python("while True: pass", seconds=0.7), "timeout")


def test_sleeping_after_closing_everything(attack):
    attack(python("import os, time\nos.closerange(0, 256)\ntime.sleep(600)", seconds=0.7), "timeout")


def test_stopping_itself(attack):
    attack(python("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", seconds=0.7), "timeout")


def test_ignoring_signals(attack):
    source = (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass"
    )
    attack(python(source, seconds=0.7), "timeout")


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_endless_output(attack, where):
    attack(python(f"import sys\nwhile True: sys.{where}.write('x' * 100000)"), "output")


def test_output_from_many_processes(attack):
    source = "import os\nfor _ in range(4):\n    if os.fork() == 0: break\nwhile True: os.write(1, b'y' * 65536)"
    attack(python(source), "output")


def test_one_huge_line_within_the_limit(attack):
    outcome = attack(python("import sys\nsys.stderr.write('error ' + 'x' * 500000)\nimport os\nos._exit(3)"), "error")
    assert len(outcome.detail) == 300


@pytest.mark.parametrize(
    "source",
    [
        "with open('big', 'wb') as f:\n    for _ in range(10240): f.write(bytes(1 << 20))",
        "for n in range(10240):\n    with open(f'f{n}', 'wb') as f: f.write(bytes(1 << 20))",
        "import os\nwith open('big', 'wb') as f: os.posix_fallocate(f.fileno(), 0, 10 << 30)",
        "with open('/dev/big', 'wb') as f: f.write(bytes(1 << 20))",
        "with open('/big', 'wb') as f: f.write(bytes(1 << 20))",
        "with open('/dev/shm/big', 'wb') as f: f.write(bytes(1 << 20))",
    ],
    ids=["one file", "many files", "reserved", "in /dev", "in /", "in /dev/shm"],
)
def test_writing_10_gigabytes(attack, source):
    attack(python(source), "file_size", "error")


def test_large_files_are_told_as_such(attack):
    attack(python("with open('big', 'wb') as f:\n    for _ in range(64): f.write(bytes(1 << 20))"), "file_size")
    attack(
        python("for n in range(64):\n    with open(f'f{n}', 'wb') as f: f.write(bytes(1 << 20))"),
        "file_size",
    )


@pytest.mark.parametrize(
    "made", ["open(f'{d}/{n}', 'w').close()", "os.mkdir(f'{d}/{n}')", "os.symlink('x', f'{d}/{n}')"]
)
@pytest.mark.parametrize("where", ["safe", "unsafe"])
def test_many_empty_files(request, where, made):
    # Empty files take no byte of the folder's room, and memory of the machine's that nobody counts.
    source = f"import os\nfor k in range(1000):\n    d = f'd{{k}}'; os.mkdir(d)\n    for n in range(1000): {made}\n"
    outcome = request.getfixturevalue(where).run(python(source))
    assert outcome.cause == "file_size", outcome
    assert "10,000 files" in outcome.detail
    assert request.getfixturevalue(where).run(python("for n in range(5000): open(f'{n}', 'w').close()")).passed


# ---- reaching out ----------------------------------------------------------------------------------------------------


def test_deleting_files_outside(attack, tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("still here")
    tmp_path.chmod(0o777)
    kept.chmod(0o666)
    source = (
        f"import os, shutil\nfor place in ({str(tmp_path)!r}, '/tmp', '/usr/local', '/home', '/etc'):\n"
        f"    shutil.rmtree(place, ignore_errors=True)\nos.unlink({str(kept)!r})\n"
    )
    before = sorted(os.listdir("/usr/local/bin"))
    attack(python(source), "error")
    assert kept.read_text() == "still here"
    assert sorted(os.listdir("/usr/local/bin")) == before


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_reading_a_secret_outside(attack, tmp_path, mode):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret 4711")
    secret.chmod(mode)
    outcome = attack(python(f"raise SystemExit(open({str(secret)!r}).read())"), "error")
    assert "4711" not in outcome.detail


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/root", "/home", "/var", "/run"])
def test_the_hosts_folders_are_not_there(attack, path):
    # The folders above the interpreter are there, with nothing in them but the way to it.
    source = (
        f"import os, sys\nfound = [os.path.join({path!r}, name) for name in os.listdir({path!r})]\n"
        "assert [one for one in found if not sys.base_prefix.startswith(one)]\n"
    )
    attack(python(source), "error", "wrong")


def test_the_parents_environment(safe, monkeypatch):
    monkeypatch.setenv("INLAY_TEST_SECRET", "4711")

    source = (
        "import glob, os\nfound = os.environ.get('INLAY_TEST_SECRET', '')\n"
        "for path in glob.glob('/proc/*/environ'):\n"
        "    try: found += open(path).read()\n    except OSError: pass\n"
        "assert '4711' in found\n"
    )
    with Bubblewrap(workers=1) as fresh:
        assert fresh.run(python(source)).cause == "wrong"


def test_the_environment_is_the_same_everywhere(safe):
    names = ["HOME", "LANG", "PATH", "PWD", "PYTHONHASHSEED", "TMPDIR"]
    source = f"import os\nassert sorted(os.environ) == {names}, sorted(os.environ)"
    assert safe.run(python(source)).passed


def test_connecting_to_a_listener_of_the_host(attack):
    met = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        stop = threading.Event()

        def listen():
            while not stop.is_set():
                try:
                    met.append(server.accept())
                except TimeoutError:
                    continue

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            attack(python(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)"), "error")
        finally:
            stop.set()
            listener.join()
    assert met == []


@pytest.mark.parametrize("abstract", [False, True])
def test_connecting_to_a_local_socket_of_the_host(attack, tmp_path, abstract):
    address = f"\0inlay-test-{os.getpid()}" if abstract else str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        attack(python(f"import socket\nsocket.socket(socket.AF_UNIX).connect({address!r})"), "error")


@pytest.mark.parametrize(
    "source",
    [
        "import socket\nsocket.create_connection(('192.0.2.1', 80), 5)",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
        "import socket\nsocket.socket(socket.AF_VSOCK).connect((2, 22))",
        "import socket\nsocket.getaddrinfo('example.org', 80)",
    ],
    ids=["tcp", "raw", "packet", "vsock", "names"],
)
def test_sockets(attack, source):
    attack(python(source), "error")


def test_a_program_may_talk_to_itself(safe):
    source = (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\nassert server.accept()\n"
    )
    assert safe.run(python(source)).passed


def test_killing_every_process(attack):
    attack(
        python("import os\nos.kill(-1, 9)\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\nassert 0"),
        "wrong",
        "crash",
        "error",
    )


def test_killing_the_parent(attack):
    source = f"import os\nos.kill({os.getpid()}, 9)"
    attack(python(source), "error")


def test_host_processes_are_not_seen(attack):
    source = (
        "import os\nseen = sorted(int(one) for one in os.listdir('/proc') if one.isdigit())\n"
        "assert max(seen) > 8, seen\n"
    )
    attack(python(source), "wrong")


@pytest.mark.parametrize(
    "source",
    [
        "open('/proc/HOST/maps').read()",
        "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nassert c.ptrace(16, 1, 0, 0) == 0",
        "open('/proc/1/mem', 'rb').read(1)",
        "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
        "open('/proc/sysrq-trigger', 'w').write('h')",
        "import os\nos.setuid(0)",
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
        "import os\nos.mknod('disk', 0o60666, os.makedev(8, 0))",
        "import os\nos.chroot('/tmp')",
        "import os\nos.listdir('/proc/1/root/home')\nos.listdir('/proc/1/cwd/../../home')",
        "import fcntl, os, sys\nfcntl.ioctl(0, 0x5412, b'x')",
        "open('/dev/tty', 'w').write('x')",
        "import os\nos.symlink('/etc/passwd', 'link'); open('link').read()",
        "import os, sys\nos.link(os.__file__, 'link'); open('link', 'a').write('x')",
        "import os\nopen(os.__file__, 'a').write('x')",
        "import os\nos.chmod(os.__file__, 0o777)",
    ],
)
def test_ways_out(attack, source):
    # Named here, because each worker must collect the same tests.
    attack(python(source.replace("HOST", str(os.getpid()))), "error", "wrong")


def test_a_setuid_program_gives_nothing(safe):
    source = (
        "import glob, os, subprocess\n"
        "found = [p for p in glob.glob('/usr/bin/*') if os.stat(p).st_mode & 0o4000]\n"
        "assert 'NoNewPrivs:\\t1' in open('/proc/self/status').read()\n"
        "assert os.getuid() != 0 and 'CapEff:\\t0000000000000000' in open('/proc/self/status').read()\n"
    )
    assert safe.run(python(source)).passed


def test_started_by_root_it_is_not_root_outside(safe):
    if os.geteuid() != 0:
        pytest.skip("not root")
    running = threading.Thread(target=safe.run, args=(python("import time\ntime.sleep(1)", seconds=10.0),))
    running.start()
    users = set()
    while running.is_alive():
        for launcher in safe.launchers():
            for pid in tree(launcher).pids:
                try:
                    users.add(os.stat(f"/proc/{pid}").st_uid)
                except OSError:
                    continue
        running.join(0.05)
    assert users
    assert 0 not in users


# ---- staying ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "    os.closerange(0, 99)\n    time.sleep(600)\n",
        "import subprocess\nsubprocess.Popen(['/bin/sleep', 'SLEEP'], start_new_session=True)\n",
        "import os\nfor _ in range(5):\n    if os.fork() == 0: os._exit(0)\n",
        "import os\nif os.fork(): os.wait()\n",
        "import os\nif os.fork() == 0: raise ValueError\nos.wait()\n",
    ],
    ids=["child", "daemon", "command", "zombies", "a child that ends", "a child that fails"],
)
def test_nothing_is_left_behind(sandbox, source):
    outcome = sandbox.run(python(source.replace("SLEEP", str(SLEEP)), seconds=20.0))
    assert outcome.passed, outcome
    assert outcome.seconds < 20.0
    assert left_behind() == []


def test_a_file_of_the_last_program_is_gone(safe):
    assert safe.run(python("open('left.txt', 'w').write('x')\nopen('/tmp/left.txt', 'w').write('x')")).passed
    assert safe.run(python("import os\nassert len(os.listdir('/tmp')) == 1, os.listdir('/tmp')")).passed


def test_closing_the_sandbox_ends_what_runs(safe):
    sandbox, ended = Bubblewrap(workers=1), []

    def run():
        try:
            sandbox.run(python("while True: pass", seconds=600.0))
        except InlayError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pids = []
    while len(pids) < 3:
        pids = [pid for launcher in sandbox.launchers() for pid in tree(launcher).pids]
    sandbox.close()
    thread.join(60)
    assert not thread.is_alive()
    assert ended
    assert left_behind() == []


# ---- passing without passing -----------------------------------------------------------------------------------------

WRITE_EVERYWHERE = """import os
for n in range(3, 40):
    try: os.write(n, {})
    except OSError: pass
"""
TESTS = "\ndef check(f):\n    assert f(2) == 3\n\ncheck(answer)\n"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("exit(0)", "left_early"),
        ("import sys; sys.exit()", "left_early"),
        ("import os; os._exit(0)", "left_early"),
        ("raise SystemExit", "left_early"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crash"),
        ("import os; os.execv('/bin/true', ['true'])", "left_early"),
        ("import os\nif os.fork(): os._exit(0)", "left_early"),
        (WRITE_EVERYWHERE.format("b'+' + b'0' * 32") + "os._exit(0)", "left_early"),
        (WRITE_EVERYWHERE.format("b'passed'") + "def answer(x): return 3", "left_early"),
        ("import atexit, os; atexit.register(lambda: os._exit(0))\ndef answer(x): return 4", "wrong"),
        ("import sys; sys.excepthook = lambda *a: None\ndef answer(x): return 4", "wrong"),
        ("import builtins; builtins.AssertionError = type('E', (Exception,), {})\ndef answer(x): return 4", "wrong"),
        ("import sys; sys.settrace(lambda *a: None)\ndef answer(x): return 4", "wrong"),
        ("def answer(x):\n    import os; os.close(1); os.close(2); return 4", "wrong"),
        ("def answer(x):\n    raise SystemExit(0)", "left_early"),
        ("def answer(x):\n    try: return 4\n    finally: exit()", "left_early"),
        ("def answer(x): return answer(x)", "error"),
        ("class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\ndef answer(x): raise E", "error"),
        ("import sys\nsys.modules.clear()\ndef answer(x): return 4", "wrong"),
        ("import os\nos.closerange(0, 256)\ndef answer(x): return 3", "error"),
    ],
)  # fmt: skip
def test_passing_without_the_tests(attack, source, cause):
    attack(python(source + TESTS), cause, *(["left_early", "error"] if "closerange" in source else []))


def test_what_cannot_be_caught(safe):
    # Said in the documentation: tests in the same process believe what the objects say of themselves.
    source = "class Yes:\n    def __eq__(self, other): return True\ndef answer(x): return Yes()"
    assert safe.run(python(source + TESTS)).passed


def test_catching_everything_around_the_tests_is_the_tests_own_text(attack):
    # Code before the tests cannot wrap them; a handler that it installs ends with the function it stands in.
    attack(python("def answer(x):\n    try: return 4\n    except BaseException: return 3" + TESTS), "wrong")


@pytest.mark.parametrize("junk", ["\\x1b[2J\\x07\\r\\x00", "\\udcff", "\\u202e\\u2066"])
def test_strange_output_is_shown_escaped(attack, junk):
    line = f"'error {junk}\\n'.encode('utf-8', 'surrogatepass')"
    source = f"import os, sys\nsys.stderr.buffer.write({line})\nos._exit(1)"
    attack(python(source), "error")
    attack(python(f"raise ValueError('{junk}')"), "error")


def test_output_that_is_no_text(safe):
    program = Program("python", "import os\nos.write(1, b'\\xff\\xfe')", (Case("", "ok"),), Limits(seconds=SLOW))
    assert safe.run(program).cause == "wrong"


@pytest.mark.parametrize("source", ["x = '\0'", "\ud800", "(" * 5000, "x = " + "-" * 200_000 + "1", "\ufeffx = = 1"])
def test_text_that_is_no_program(attack, source):
    outcome = attack(python(source), "compile", "memory", "crash", "error")
    assert outcome.compiled is not True
