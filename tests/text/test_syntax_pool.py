"""Parsing in processes: nothing that a grammar does stops the work, loses a document or outlives it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.text.corpus import library_texts, write_corpus
from tests.text.test_prepare import configure

from inlay.config import InlayError
from inlay.text.prepare import prepare
from inlay.text.syntax import ParsedSyntax, parse
from inlay.text.syntax_grammars import GRAMMARS, Grammar
from inlay.text.syntax_pool import Failure, ParseJob, SyntaxPool
from inlay.text.syntax_stage import parsed_line, trouble_line
from inlay.text.syntax_worker import time_limit

TIMEOUT = 0.3

# Python's grammar, with a walk that misbehaves where a text asks for it. `spin` holds the interpreter's lock, as a
# looping grammar does; `sleep` uses no processor time.
MOODY = """
import ctypes, itertools, os, signal, time
from collections import deque
import tree_sitter_python
from inlay.text import syntax_walk

real = syntax_walk.Walker.nodes

def nodes(self, data):
    if b"# spin" in data:
        deque(itertools.repeat(0), maxlen=0)
    if b"# sleep" in data:
        time.sleep(1e6)
    if b"# exit" in data:
        os._exit(0)
    if b"# segfault" in data:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    if b"# raise" in data:
        raise MemoryError("too large a tree")
    if b"# print" in data:
        print("a grammar that talks", flush=True)
        os.write(1, b"and writes")
    return real(self, data)

syntax_walk.Walker.nodes = nodes
language = tree_sitter_python.language

def stuck():
    time.sleep(1e6)

def dead():
    os._exit(7)
"""
FATES = {
    "spin": Failure.TIMED_OUT,
    "sleep": Failure.TIMED_OUT,
    "exit": Failure.CRASHED,
    "segfault": Failure.CRASHED,
    "raise": Failure.CRASHED,
}


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Grammar]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "moody_grammar.py").write_text(MOODY)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return {
        "python": Grammar("moody_grammar"),
        "stuck": Grammar("moody_grammar", "stuck"),
        "dead": Grammar("moody_grammar", "dead"),
        "json": GRAMMARS["json"],
        "absent": Grammar("tree_sitter_of_nowhere"),
    }


def good(number: int) -> bytes:
    return f"def function_{number}(value):\n    return value + {number}\n".encode()


def same(found: ParsedSyntax | Failure, data: bytes, language: str = "python") -> bool:
    expected = parse(data, language)
    if expected is None:
        return found is Failure.FAILED
    return (
        isinstance(found, ParsedSyntax)
        and np.array_equal(found.nodes, expected.nodes)
        and found.kinds == expected.kinds
    )


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process is no more (a zombie that nobody reaps counts as gone)."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            stat = Path(f"/proc/{pid}/stat")
            if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_the_pool_finds_what_parse_finds() -> None:
    jobs = [("python", text.encode()) for text in library_texts()]
    jobs += [("json", b'{"values": [1, 2, 300]}'), ("python", b""), ("rust", b"( ] } not rust at all ) ~" * 9)]
    with SyntaxPool(2, 5.0) as pool:
        futures = [pool.submit([ParseJob(*job)]) for job in jobs] + [pool.submit([ParseJob(*job) for job in jobs])]
        results = [result for future in futures for result in future.result()]
    assert len(results) == 2 * len(jobs)
    for (language, data), result in zip(jobs * 2, results, strict=True):
        assert same(result, data, language)
    assert results[-1] is Failure.FAILED


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_told_from_good_ones_in_one_batch(workers: int, moody: dict[str, Grammar]) -> None:
    texts = [good(0)]
    for number, mood in enumerate(FATES, 1):
        texts += [good(number) + f"# {mood}\n".encode(), good(number) + b"# print\n"]
    with SyntaxPool(workers, TIMEOUT, moody) as pool:
        halves = [pool.submit([ParseJob("python", text) for text in part]) for part in (texts[:4], texts[4:])]
        results = [result for half in halves for result in half.result()]
    fates = [None, *(fate for mood in FATES for fate in (FATES[mood], None))]
    for text, fate, result in zip(texts, fates, results, strict=True):
        assert same(result, text) if fate is None else result is fate


def test_a_grammar_that_hangs_or_dies_as_it_is_loaded(moody: dict[str, Grammar]) -> None:
    jobs = [ParseJob("stuck", b"x"), ParseJob("python", good(1)), ParseJob("dead", b"x"), ParseJob("json", b"[1, 2]")]
    with SyntaxPool(1, TIMEOUT, moody) as pool:
        results = pool.submit(jobs).result()
    assert results[0] is Failure.TIMED_OUT
    assert results[2] is Failure.CRASHED
    assert same(results[1], good(1))
    assert same(results[3], b"[1, 2]", "json")


def test_a_real_grammar_is_stopped_by_the_clock() -> None:
    data = b"[" + b"1," * 400_000 + b"1]"
    with SyntaxPool(1, 0.02) as pool:
        results = pool.submit([ParseJob("json", data), ParseJob("json", b"[1, 2, 3]")]).result()
    assert results[0] is Failure.TIMED_OUT


def test_limits_grow_with_the_file() -> None:
    assert time_limit(5.0, 0) == time_limit(5.0, 1_000_000) == 5.0
    assert time_limit(5.0, 4_000_000) == 20.0


def test_large_requests_and_answers_do_not_block_each_other(moody: dict[str, Grammar]) -> None:
    large = b"[" + b"[1, 2, 30000000],\n" * 60_000 + b"1]"
    with SyntaxPool(1, 5.0, moody) as pool:
        results = pool.submit([ParseJob("json", large)] * 3 + [ParseJob("json", b"[1]")]).result()
    assert all(same(result, large, "json") for result in results[:3])


def test_a_missing_grammar_is_one_line(moody: dict[str, Grammar]) -> None:
    with SyntaxPool(1, TIMEOUT, moody) as pool:
        with pytest.raises(InlayError, match=r"no grammar for absent: .*tree_sitter_of_nowhere") as error:
            pool.submit([ParseJob("python", good(0)), ParseJob("absent", b"x")]).result()
    assert "\n" not in str(error.value)


def test_a_worker_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with SyntaxPool(1, TIMEOUT) as pool:
        with pytest.raises(InlayError, match="does not start") as error:
            pool.submit([ParseJob("python", b"x")]).result()
    assert "\n" not in str(error.value)


def test_leaving_early_ends_every_worker(moody: dict[str, Grammar]) -> None:
    began = time.monotonic()
    with SyntaxPool(2, 60.0, moody) as pool:
        futures = [pool.submit([ParseJob("python", b"# sleep")]) for _ in range(5)]
        while len(pool._living) < 2:
            time.sleep(0.01)
        pids = [worker._process.pid for worker in pool._living]
    assert time.monotonic() - began < 20
    assert all(gone(pid) for pid in pids)
    assert all(future.done() for future in futures)


PARENT = """
import sys, time
from inlay.text.syntax_grammars import Grammar
from inlay.text.syntax_pool import ParseJob, SyntaxPool
sys.path.insert(0, sys.argv[1])
with SyntaxPool(2, float(sys.argv[3]), {"python": Grammar("moody_grammar")}) as pool:
    pool.submit([ParseJob("python", b"x = 1")]).result()
    futures = [pool.submit([ParseJob("python", sys.argv[2].encode())])]
    print(*(worker._process.pid for worker in pool._living), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path, moody: dict[str, Grammar]) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(text: str, timeout: float) -> tuple[subprocess.Popen[str], list[int]]:
        arguments = [sys.executable, "-c", PARENT, str(tmp_path / "modules"), text, str(timeout)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(process)
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert pids
        assert all(not gone(pid, 0.1) for pid in pids)
        return process, pids

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize(
    ("text", "timeout"), [("x = 2", 60.0), ("# spin", 1.0), ("# sleep", 0.3)], ids=["idle", "spinning", "asleep"]
)
def test_a_killed_parent_leaves_no_worker(parent: Any, text: str, timeout: float) -> None:
    process, pids = parent(text, timeout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(gone(pid) for pid in pids)


def test_control_c_leaves_no_worker(parent: Any) -> None:
    process, pids = parent("# sleep", 60.0)
    os.kill(process.pid, signal.SIGINT)
    process.wait(20)
    assert all(gone(pid) for pid in pids)


# ---- in prepare ------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }


def test_a_store_holds_the_nodes_of_its_texts(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "repo0" / "notes.md").write_text("# A title\n\nand a paragraph of text.\n" * 9)
    (corpus / "repo1" / "page.json").write_text('{"name": "example", "values": [1, 2, 3000]}\n' * 3)
    (corpus / "repo2" / "broken.json").write_text("this (is } no [ json at ~ all\n" * 9)
    store = prepare(configure(corpus, tmp_path / "store"))
    kinds = store.manifest["span_kinds"]
    assert len(set(kinds)) == len(kinds)
    total: dict[str, int] = {}
    for name in store.splits:
        split = store.split(name)
        for index in range(split.document_count):
            info, nodes = split.document(index), split.spans(index)
            expected = parse(split.text(index).encode(), info.language, info.path)
            total[info.language] = total.get(info.language, 0) + len(nodes)
            if expected is None:
                assert nodes.shape == (0, 3)
                continue
            assert np.array_equal(nodes[:, :2], expected.nodes[:, :2])
            assert [kinds[kind] for kind in nodes[:, 2]] == [expected.kinds[kind] for kind in expected.nodes[:, 2]]
    syntax = store.manifest["syntax"]
    assert set(syntax) == {"python", "json"}
    assert syntax["python"]["documents"] == syntax["python"]["parsed"] == 30
    assert syntax["json"]["documents"] == 2
    assert syntax["json"]["failed"] == 1
    assert syntax["json"]["paths"] == {"failed": ["repo2/broken.json"]}
    assert {language: entry["nodes"] for language, entry in syntax.items()} | {"markdown": 0} == total
    assert parsed_line(syntax) == "parsed 31 of 32 documents (json 1 did not parse)"
    assert trouble_line(syntax) == ""


def test_trouble_is_named_and_the_store_does_not_depend_on_the_workers(
    tmp_path: Path, moody: dict[str, Grammar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRAMMARS, "python", moody["python"])
    corpus = write_corpus(tmp_path / "corpus")
    for mood in ("spin", "segfault"):
        (corpus / "repo3" / f"{mood}.py").write_text(f"value = 1  # {mood}\n" * 5)
    snapshots = []
    for threads in (1, 3):
        out = tmp_path / f"store{threads}"
        store = prepare(configure(corpus, out, threads=threads, syntax={"timeout_seconds": TIMEOUT}))
        snapshots.append((files(out), store.hash, store.manifest["syntax"]))
        assert sum(store.split(name).document_count for name in store.splits) == 32
    assert snapshots[0] == snapshots[1]
    syntax = snapshots[0][2]
    assert (syntax["python"]["timed_out"], syntax["python"]["crashed"], syntax["python"]["parsed"]) == (1, 1, 30)
    assert trouble_line(syntax) == (
        "the parser gave up on 2 documents: repo3/spin.py (python, timed out), repo3/segfault.py (python, crashed)"
    )


def test_syntax_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    store = prepare(configure(write_corpus(tmp_path / "corpus"), tmp_path / "store", syntax={"enabled": False}))
    assert store.manifest["syntax"] == {}
    assert store.manifest["span_kinds"] == []
    assert store.split("train").spans(0).shape == (0, 3)
    assert not (tmp_path / "store" / "train" / "spans.bin").exists()
    assert parsed_line(store.manifest["syntax"]) == ""


def test_a_failing_prepare_leaves_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []
    pools: list[SyntaxPool] = []
    start, leave = SyntaxPool.start, SyntaxPool.__exit__

    def started(self: SyntaxPool) -> None:
        pools.append(self)
        start(self)

    def watched(self: SyntaxPool, *error: Any) -> None:
        pids.extend(worker._process.pid for worker in self._living)
        leave(self, *error)

    def fail(*arguments: Any, **options: Any) -> None:
        deadline = time.monotonic() + 30.0
        while not pools[0]._living and time.monotonic() < deadline:  # a worker starts beside the reading
            time.sleep(0.01)
        raise InlayError("no room")

    monkeypatch.setattr(SyntaxPool, "start", started)
    monkeypatch.setattr(SyntaxPool, "__exit__", watched)
    monkeypatch.setattr("inlay.text.prepare._tokenizer", fail)
    with pytest.raises(InlayError, match="no room"):
        prepare(configure(write_corpus(tmp_path / "corpus"), tmp_path / "store"))
    assert pids
    assert all(gone(pid) for pid in pids)
