"""The small process that starts one program after the other and watches it: time, output, memory, processes.

One launcher serves one worker, over its own standard input and output. It is a process of its own so that starting a
program never copies a trainer's memory, and so that root is given up once, before anything untrusted runs. It decides
nothing about right or wrong: it says how a step ended, and why it was killed. It is run as a file by the base
interpreter without site packages, so it imports the standard library alone. When its input closes it kills what runs
and leaves.
"""

import contextlib
import ctypes
import json
import marshal
import os
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

BOX = "{box}"
"""In arguments: the program's own folder."""
INSIDE = "/tmp"
"""That folder's name inside bubblewrap."""
FLAGS = ("-S", "-s", "-P", "-B", "-X", "utf8")
"""Of the interpreter inside: quick, and with nothing but its standard library. Not `-I`, which would ignore the fixed
hash seed in the environment."""
BOOT = "import marshal as m,posix as p,sys;exec(m.loads(p.read(int(sys.argv[1]),int(sys.argv[2]))))"
"""The runner comes compiled, through the pipe that then brings the secret number: to compile it anew takes 1.2 ms."""
NONCE_BYTES = 32
_WATCH_SECONDS = 0.02
_GRACE_SECONDS = 5.0
_READ_BYTES = 1 << 16
_RESULT_BYTES = 4096
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MS_NOSUID, _MS_NODEV = 2, 4
_CLONE_NEWNS = 0x20000
_PR_SET_CHILD_SUBREAPER = 36


def send(stream: BinaryIO, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Writes a message: the length of its head (4 bytes), the head as JSON, and the blobs one after the other."""
    head = json.dumps({**message, "blobs": [len(one) for one in blobs]}).encode()
    stream.write(b"".join([struct.pack("<I", len(head)), head, *blobs]))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Reads a message of `send`. Raises EOFError when the other side is gone."""
    (size,) = struct.unpack("<I", _exactly(stream, 4))
    message = json.loads(_exactly(stream, size))
    return message, [_exactly(stream, one) for one in message.pop("blobs")]


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count) if count else b""
    if len(data) != count:
        raise EOFError
    return data


# ---- giving up root --------------------------------------------------------------------------------------------------


def become(uid: int, shown: Sequence[str]) -> list[tuple[str, str]]:
    """Gives up root for `uid`; returns for each folder of `shown` (source, the folder itself).

    Folders that only root can reach (an interpreter under /root) are first shown at another place, read-only, in a
    mount namespace of this process alone. Raises OSError when the system refuses.
    """
    pairs = [(folder, folder) for folder in shown]
    hidden = [folder for folder in shown if not everybody_reaches(folder)]
    if hidden:
        pairs = [pair for pair in pairs if pair[0] not in hidden]
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.unshare(_CLONE_NEWNS), "unshare")
        _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
        room = "/tmp"  # of this namespace alone: the host's /tmp stays as it is, and what was in it is out of sight
        flags = _MS_NOSUID | _MS_NODEV
        sources = []
        for number, folder in enumerate(hidden):
            holder = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"
            sources.append((holder, f"{room}/{number}", folder))
        _check(libc.mount(b"tmpfs", room.encode(), b"tmpfs", flags, b"mode=0755,size=64k"), "mount")
        for holder, place, folder in sources:
            os.mkdir(place, 0o755)
            _check(libc.mount(holder.encode(), place.encode(), None, _MS_BIND | _MS_REC, None), "mount")
            libc.mount(None, place.encode(), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags, None)
            pairs.append((place, folder))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    return pairs


def may_become(uid: int) -> bool:
    """Whether this process is a root that can give itself up for `uid`.

    Root of a container whose user namespace knows one user alone (rootless Podman, `unshare --map-root-user`) cannot,
    nor can root without the capability to change users.
    """
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return os.geteuid() == 0
    try:
        with open("/proc/self/uid_map") as users, open("/proc/self/gid_map") as groups:
            maps = [[tuple(map(int, line.split())) for line in file] for file in (users, groups)]
        with open("/proc/self/setgroups") as file:
            denied = file.read().strip() == "deny"
        with open("/proc/self/status") as file:
            capabilities = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    except (OSError, ValueError, StopIteration):
        return True
    known = all(any(first <= uid < first + count for first, _, count in one) for one in maps)
    return known and not denied and capabilities >> 6 & 3 == 3  # CAP_SETGID and CAP_SETUID


def everybody_reaches(folder: str) -> bool:
    """Whether everybody may enter `folder` and all above it."""
    path = os.path.realpath(folder)
    while True:
        if not os.stat(path).st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


# ---- watching --------------------------------------------------------------------------------------------------------


class Tree(NamedTuple):
    """The processes below one."""

    pids: list[int]
    threads: int
    memory_bytes: int
    """Resident, summed: pages that processes share count once for each."""


def tree(root: int) -> Tree:
    """All processes below `root` now, without it."""
    pids: list[int] = []
    threads = memory = 0
    page = os.sysconf("SC_PAGE_SIZE")
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
            for task in tasks:
                with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    waiting.extend(int(one) for one in file.read().split())
            if pid != root:
                pids.append(pid)
                threads += len(tasks)
                with open(f"/proc/{pid}/statm", "rb") as file:
                    memory += int(file.read().split()[1]) * page
        except (OSError, IndexError, ValueError):
            continue  # it ended while it was looked at
    return Tree(pids, threads, memory)


def files_of_namespace(pids: Sequence[int]) -> int:
    """Files, folders and links in the folder of a program that one of these processes belongs to (its own tmpfs)."""
    for pid in reversed(pids):
        with contextlib.suppress(OSError):  # it may be gone
            there, here = os.stat(f"/proc/{pid}/root{INSIDE}"), os.stat(INSIDE)
            if there.st_dev != here.st_dev:  # else it does not stand in its new root yet
                room = os.statvfs(f"/proc/{pid}/root{INSIDE}")
                return room.f_files - room.f_ffree
    return 0


def files_below(folder: str, most: int) -> int:
    """Files, folders and links below `folder`; it stops to count a little above `most`."""
    count, waiting = 0, [folder]
    while waiting and count <= most:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > most:
                    break
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return count


# ---- running ---------------------------------------------------------------------------------------------------------


class Launcher:
    """Runs steps as the first message said how."""

    def __init__(self, setup: dict[str, Any], blobs: list[bytes]) -> None:
        """`setup`: `python`, `runner` (source), `environment`, `shown` (folders), `uid` (None: as it is), and for
        bubblewrap `wrapper` (the beginning of its command line); the blob is its system call filter."""
        self.setup = setup
        self.wrapper: list[str] | None = setup["wrapper"]
        self.runner = marshal.dumps(compile(setup["runner"], "runner", "exec"))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # short of memory, the system shall end programs under test and not what tests them
        shown = [(folder, folder) for folder in setup["shown"]]
        if setup["uid"] is not None:
            shown = become(setup["uid"], setup["shown"])
        self.sources = {folder: source for source, folder in shown}
        self.filter = _memory_file(blobs[0]) if blobs else None
        # What a program leaves behind, and the namespace's first process, come to this one when their parent is gone.
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "prctl"):
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self, step: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        """Runs a step (`blobs`: its input and its files) and says how it ended.

        See `Step` and `Ran` in `inlay.evaluate.sandbox.steps`.
        """
        _reap()
        stdin, contents = blobs[0], blobs[1:]
        began = time.perf_counter()
        nonce = secrets.token_hex(NONCE_BYTES // 2).encode()
        nonce_read, nonce_write = os.pipe()
        result_read, result_write = os.pipe()
        os.write(nonce_write, self.runner + nonce)  # a few kilobytes: less than a pipe holds
        os.close(nonce_write)
        passed = [nonce_read, result_write]
        folder = None
        opened = [nonce_read, result_write]  # closed here once the program has them
        try:
            if self.wrapper is None:
                folder = tempfile.mkdtemp(prefix="inlay-unsafe-")
                command: list[str] = []
                for (name, mode), content in zip(step["files"], contents, strict=True):
                    with open(os.path.join(folder, name), "wb") as file:
                        file.write(content)
                    os.chmod(os.path.join(folder, name), mode)
            else:
                command = list(self.wrapper)
                for one in (*self.setup["always"], *step["shown"]):
                    command += ["--ro-bind", self.sources[one], one]
                command += ["--size", str(step["folder_bytes"]), "--tmpfs", INSIDE, "--chdir", INSIDE]
                for (name, mode), content in zip(step["files"], contents, strict=True):
                    opened.append(_memory_file(content))
                    passed.append(opened[-1])
                    command += ["--perms", f"{mode:04o}", "--file", str(opened[-1]), f"{INSIDE}/{name}"]
                command += ["--remount-ro", "/"]
                if self.filter is not None:
                    os.lseek(self.filter, 0, os.SEEK_SET)
                    passed.append(self.filter)
                    command += ["--seccomp", str(self.filter)]
                command.append("--")
            box = folder or INSIDE
            count = step["process_limit"] if self.setup["count_processes"] else 0
            limits = [step["address_bytes"], count, step["file_bytes"]]
            command += [self.setup["python"], *FLAGS, "-c", BOOT]
            command += [str(one) for one in (nonce_read, len(self.runner), result_write, *limits, step["mode"])]
            command += [word.replace(BOX, box) for word in step["argv"]]
            environment = {**self.setup["environment"], **step["environment"]}
            environment = {key: value.replace(BOX, box) for key, value in environment.items()}
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=folder or "/",
                pass_fds=passed,
                start_new_session=self.wrapper is None,
                bufsize=0,
            )
            while opened:
                os.close(opened.pop())
            return self._attend(process, result_read, stdin, nonce, step, began, folder)
        finally:
            for one in (*opened, result_read):
                os.close(one)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _attend(
        self,
        process: "subprocess.Popen[bytes]",
        result_read: int,
        stdin: bytes,
        nonce: bytes,
        step: dict[str, Any],
        began: float,
        folder: str | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        feed, out, err = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
        held: dict[int, bytearray] = {out: bytearray(), err: bytearray(), result_read: bytearray()}
        room = {out: step["output_bytes"], err: step["output_bytes"], result_read: _RESULT_BYTES}
        poll = select.poll()
        for one in held:
            poll.register(one, select.POLLIN)
        poll.register(0, 0)  # hang-up alone: whoever asked is gone
        handle = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1
        if handle >= 0:
            poll.register(handle, select.POLLIN)
        waiting = memoryview(stdin)
        os.set_blocking(feed, False)
        if waiting:
            poll.register(feed, select.POLLOUT)
        else:
            process.stdin.close()
        killed: str | None = None
        most_memory = most_processes = 0
        left = {*held, handle} if handle >= 0 else set(held)
        ends = began + step["seconds"]
        watch = began + _WATCH_SECONDS
        while left:
            now = time.perf_counter()
            if now >= ends:
                killed = killed or "timeout"
                break
            for one, _ in poll.poll(max(0.0, min(ends, watch) - now) * 1000 + 1):
                if one == 0:
                    self._kill(process)
                    raise EOFError
                if one == feed:
                    try:
                        waiting = waiting[os.write(feed, waiting[:_READ_BYTES]) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        waiting = waiting[:0]
                    if not waiting:
                        poll.unregister(feed)
                        process.stdin.close()
                    continue
                data = os.read(one, _READ_BYTES) if one != handle else b""
                if not data:
                    poll.unregister(one)
                    left.discard(one)
                    continue
                held[one] += data
                if one == result_read:
                    del held[one][_RESULT_BYTES:]
                elif len(held[one]) > room[one] or len(held[out]) + len(held[err]) > room[out]:
                    del held[one][max(0, room[out] - len(held[err if one == out else out])) :]
                    killed = "output"
            if killed:
                break
            if self.wrapper is None and (handle not in left if handle >= 0 else process.poll() is not None):
                break  # what it left behind may hold the pipes open: it is killed below
            if (now := time.perf_counter()) >= watch:
                # Below bubblewrap stands its own first process of the namespace, which is not the program's. Without
                # it, what the program's processes left behind comes to this one, the subreaper.
                below = tree(process.pid if self.wrapper is not None else os.getpid())
                processes = max(0, below.threads - (self.wrapper is not None))
                most_memory = max(most_memory, below.memory_bytes)
                most_processes = max(most_processes, processes)
                if below.memory_bytes > step["memory_bytes"]:
                    killed = "memory"
                elif processes > step["processes"]:
                    killed = "processes"
                else:
                    most = step["files_most"]
                    files = files_of_namespace(below.pids) if folder is None else files_below(folder, most)
                    killed = "files" if files > most else None
                if killed:
                    break
                watch = max(now, time.perf_counter()) + _WATCH_SECONDS
        if killed:
            self._kill(process)
        try:
            status = process.wait(max(0.05, ends - time.perf_counter()))
        except subprocess.TimeoutExpired:
            # It closed its output and goes on.
            killed = "timeout"
            self._kill(process)
            status = process.wait(_GRACE_SECONDS)
        self._kill(process)
        if self.wrapper is None:
            for one in (out, err):
                _drain(one, held[one], room[one])
            _drain(result_read, held[result_read], room[result_read])
        if handle >= 0:
            os.close(handle)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        result = bytes(held[result_read])
        answer = {
            "status": status,
            "killed": killed,
            "seconds": time.perf_counter() - began,
            "memory_bytes": most_memory,
            "processes": most_processes,
            "started": result.startswith(b"s"),
            "ended": result.endswith(nonce) and result[: -len(nonce)] in (b"s+", b"s?"),
        }
        return answer, [bytes(held[out]), bytes(held[err]), result.replace(nonce, b"")]

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends `process` and all that came of it."""
        if self.wrapper is not None:
            # The namespace's first process dies with bubblewrap (--die-with-parent), and the kernel ends the rest.
            if process.poll() is None:
                process.kill()
            return
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # What left the session has come to this process (it is the subreaper), so all of it stands below here.
        until = time.perf_counter() + _GRACE_SECONDS
        while (below := tree(os.getpid()).pids) and time.perf_counter() < until:
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
            if process.returncode is not None:
                _reap()
            time.sleep(0.001)


def _reap() -> None:
    """Takes leave of ended children, none of which may be a `Popen` that is still to be asked."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _drain(descriptor: int, held: bytearray, room: int) -> None:
    """What stands in a pipe whose writers are gone."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(OSError):
        while len(held) < room and (data := os.read(descriptor, _READ_BYTES)):
            held += data


def _memory_file(content: bytes) -> int:
    """A descriptor at the beginning of `content`."""
    descriptor = os.memfd_create("inlay")
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def main() -> None:
    """Serves messages from standard input until it ends."""
    # Programs inherit nothing but what they are given: the channel moves off the standard descriptors' numbers 1 and 2.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        setup, blobs = receive(source)
        try:
            launcher = Launcher(setup, blobs)
        except OSError as error:
            send(sink, {"error": str(error)})
            return
        send(sink, {"error": None})
        while True:
            step, blobs = receive(source)
            try:
                answer, outputs = launcher.run(step, blobs)
            except OSError as error:
                answer, outputs = {"error": f"{type(error).__name__}: {error}"}, []
            send(sink, answer, outputs)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)


if __name__ == "__main__":
    main()
