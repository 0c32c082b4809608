"""Preparing a store: deterministic, complete or absent, with every refusal in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.text.corpus import write_corpus

from inlay.config import BadInput, InlayError, validate
from inlay.text.prepare import PrepareConfig, Spool, even_sample, prepare
from inlay.text.store import TokenStore
from inlay.text.syntax_stage import SyntaxConfig
from inlay.text.tokenizer import Tokenizer


def configure(corpus: Path, out: Path, **options: Any) -> PrepareConfig:
    data: dict[str, Any] = {
        "out": str(out),
        "source": {"kind": "folder", "path": str(corpus)},
        "tokenizer": {"kind": "bpe", "vocab_size": 320},
        "split": {"validation_fraction": 0.2},
        "dedup": {"near_copy_share": None},
        **options,
    }
    return validate(PrepareConfig, data)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_every_document_arrives_on_one_side(corpus: Path, tmp_path: Path) -> None:
    (corpus / "repo0" / "copy.py").write_text((corpus / "repo1" / "module0.py").read_text() + "\n\n")
    (corpus / "repo0" / "empty.py").write_text("\n")
    store = prepare(configure(corpus, tmp_path / "store"))
    found = {}
    for name in store.splits:
        split = store.split(name)
        for index in range(split.document_count):
            info = split.document(index)
            assert split.text(index) == (corpus / info.path).read_text()
            found[info.path] = (name, info.repo)
    # The copy comes first in the order of paths, so the other one is left out.
    everything = {f"repo{repo}/module{number}.py" for repo in range(6) for number in range(5)}
    assert set(found) == everything - {"repo1/module0.py"} | {"repo0/copy.py"}
    sides = {repo: {name for name, other in found.values() if other == repo} for _, repo in found.values()}
    assert all(len(side) == 1 for side in sides.values())
    manifest = store.manifest
    assert manifest["dropped"]["exact copy"]["count"] == manifest["dropped"]["empty"]["count"] == 1
    assert manifest["split_by"] == "repo"
    assert manifest["seed"] == 0
    assert manifest["config"]["out"] == str(tmp_path / "store")
    assert set(manifest["splits"]["validation"]["repos"]) == set(manifest["split_groups"]["validation"])
    assert TokenStore.open(tmp_path / "store").hash == store.hash


def test_the_same_input_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    snapshots = []
    for options in ({}, {"threads": 3}, {"spool_bytes": 10}):
        prepare(configure(corpus, out, overwrite=True, **options))
        snapshots.append(contents(out))
    first = snapshots[0]
    manifests = [json.loads(snapshot.pop("manifest.json")) for snapshot in snapshots]
    assert snapshots[1] == first
    assert snapshots[2] == first
    for manifest in manifests:
        for key in ("created", "config", "manifest_hash"):
            manifest.pop(key)
    assert manifests[0] == manifests[1] == manifests[2]


def test_the_hash_follows_content_and_not_place(corpus: Path, tmp_path: Path) -> None:
    first = prepare(configure(corpus, tmp_path / "one"))
    second = prepare(configure(corpus, tmp_path / "two"))
    assert first.hash == second.hash
    other = prepare(configure(corpus, tmp_path / "three", tokenizer={"kind": "bpe", "vocab_size": 300}))
    assert other.hash != first.hash


def test_the_tokenizer_never_reads_validation_text(corpus: Path, tmp_path: Path) -> None:
    for number in range(5):
        (corpus / "repo5" / f"module{number}.py").write_text(f"zebra_{number} = 'qqqqzzzzqqqqzzzz'\n" * 40)
    store = prepare(configure(corpus, tmp_path / "store", split={"validation_repos": ["repo5"]}))
    training = [store.split("train").text(index) for index in range(store.split("train").document_count)]
    assert store.tokenizer.hash == Tokenizer.train(training, 320).hash
    assert all(b"qqqq" not in store.tokenizer.decode_bytes([token]) for token in range(store.tokenizer.vocab_size))


def test_an_existing_tokenizer_is_taken_from_its_file(corpus: Path, tmp_path: Path) -> None:
    made = prepare(configure(corpus, tmp_path / "one")).tokenizer
    made.save(tmp_path / "tokenizer")
    store = prepare(
        configure(corpus, tmp_path / "two", tokenizer={"kind": "file", "path": str(tmp_path / "tokenizer")})
    )
    assert store.tokenizer.hash == made.hash


def test_near_copies_are_kept_out_of_validation(corpus: Path, tmp_path: Path) -> None:
    original = (corpus / "repo0" / "module0.py").read_text()
    (corpus / "repo5" / "vendored.py").write_text(original + "\nchanged_after_copying = True\n")
    options = {"split": {"validation_repos": ["repo5"]}, "dedup": {"near_copy_share": 0.5}}
    store = prepare(configure(corpus, tmp_path / "store", **options))
    assert store.manifest["dropped"]["near copy of training text"] == {"count": 1, "paths": ["repo5/vendored.py"]}
    assert store.split("validation").document_count == 5
    for number in range(5):
        text = (corpus / "repo0" / f"module{number}.py").read_text()
        (corpus / "repo5" / f"module{number}.py").write_text(text + f"\nanother_line_{number} = 1\n")
    with pytest.raises(BadInput, match=r"every validation document \(6\) is a near copy"):
        prepare(configure(corpus, tmp_path / "other", **options))


def test_one_project_is_split_by_directory(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "app")
    (corpus / ".git").mkdir()
    store = prepare(configure(corpus, tmp_path / "store"))
    assert store.manifest["split_by"] == "directory"
    assert {store.split("train").document(0).repo, store.split("validation").document(0).repo} == {"app"}


def test_refusals_are_one_line_and_leave_nothing(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.py").write_text("x = 1\n")
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "a.py").write_bytes(b"\0\0")
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "nowhere", {}, "no such folder"),
        (tmp_path / "empty", {}, "the corpus is empty"),
        (tmp_path / "binary", {}, "left out: 1 binary"),
        (tmp_path / "flat", {}, "corpus too small to split"),
        (
            corpus,
            {"source": {"kind": "folder", "path": str(corpus), "languages": ["sql"]}},
            "left out: 30 other language",
        ),
        (corpus, {"tokenizer": {"kind": "file", "path": str(tmp_path / "nowhere")}}, "cannot read tokenizer"),
        (corpus, {"split": {"validation_repos": ["repo9"]}}, "no repository 'repo9'"),
    ]
    before = sorted(os.listdir(tmp_path))
    for path, options, message in cases:
        with pytest.raises(BadInput) as error:
            prepare(configure(path, tmp_path / "store", **options))
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert error.value.exit_status == 2
        assert sorted(os.listdir(tmp_path)) == before


def test_an_existing_store_is_refused_before_any_work(corpus: Path, tmp_path: Path) -> None:
    prepare(configure(corpus, tmp_path / "store"))
    with pytest.raises(BadInput, match="exists; choose another place"):
        prepare(configure(tmp_path / "nowhere", tmp_path / "store"))


def test_phases_are_shown_with_their_totals(corpus: Path, tmp_path: Path) -> None:
    seen: dict[str, tuple[int | None, int]] = {}

    class Recorder:
        @contextmanager
        def phase(self, name: str, total: int | None, unit: str = "items") -> Iterator[Any]:
            count = [0]

            class Phase:
                def advance(self, amount: int) -> None:
                    count[0] += amount

            yield Phase()
            seen[name] = (total, count[0])

    store = prepare(configure(corpus, tmp_path / "store"), Recorder())
    size = sum(store.split(name).byte_count for name in store.splits)
    assert list(seen) == ["read and parse", "train tokenizer", "tokenize", "write"]
    assert seen["read and parse"] == (None, 30)
    assert seen["tokenize"] == (size, size)
    assert seen["train tokenizer"] == (store.split("train").byte_count,) * 2


KILLED = """
import sys, time
from inlay.text import writer
from inlay.config import validate
from inlay.text.prepare import PrepareConfig, prepare
at, config = sys.argv[1], validate(PrepareConfig, __import__("json").loads(sys.argv[2]))
def stop(*arguments, **options):
    print("here", flush=True)
    time.sleep(60)
if at == "first":
    writer.StoreWriter.add = stop
elif at == "manifest":
    writer.manifest_text = stop
elif at == "name":
    writer.StoreWriter._take_name = stop
prepare(config)
"""


@pytest.mark.parametrize("at", ["first", "manifest", "name"])
def test_a_killed_prepare_leaves_no_store_that_opens(corpus: Path, tmp_path: Path, at: str) -> None:
    out = tmp_path / "stores" / "store"
    config = configure(corpus, out)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, at, json.dumps(config.to_dict())],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    left = list(out.parent.iterdir())
    assert not out.exists()
    assert len(left) == 1
    with pytest.raises(BadInput, match="not a token store"):
        TokenStore.open(out)
    if at == "name":
        # Complete but nameless and no longer locked: it goes once it is certain that nobody is about to rename it.
        os.utime(left[0], (time.time() - 7200,) * 2)
    else:
        with pytest.raises(InlayError):
            TokenStore.open(left[0])
    store = prepare(config)
    assert os.listdir(out.parent) == ["store"]
    assert TokenStore.open(out).hash == store.hash


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit")
def test_a_disk_that_fills_is_one_line(corpus: Path, tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, json\n"
        "from inlay.config import InlayError, validate\n"
        "from inlay.text.prepare import PrepareConfig, prepare\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "try:\n    prepare(validate(PrepareConfig, json.loads(sys.argv[1])))\n"
        "except InlayError as error:\n    print(error)\n    sys.exit(error.exit_status)\n"
    )
    out = tmp_path / "stores" / "store"
    for options in ({}, {"spool_bytes": 10}):
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(configure(corpus, out, **options).to_dict())],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=60,
        )
        assert (done.returncode, done.stdout.count("\n")) == (1, 1), done.stderr
        assert f"cannot write '{out}'" in done.stdout
        assert os.listdir(out.parent) == []


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(1, 50_000))
def test_samples_are_even_and_of_the_wanted_size(sizes: list[int], wanted: int) -> None:
    chosen = even_sample(sizes, wanted)
    assert chosen == sorted(set(chosen))
    assert chosen
    if sum(sizes) <= wanted:
        assert chosen == list(range(len(sizes)))
    elif len(chosen) > 1:
        assert abs(sum(sizes[position] for position in chosen) - wanted) <= max(sizes)
        half = [position for position in chosen if position < len(sizes) // 2]
        expected = wanted * sum(sizes[: len(sizes) // 2]) / sum(sizes)
        assert abs(sum(sizes[position] for position in half) - expected) <= max(sizes)


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 100))
def test_the_spool_gives_texts_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], limit: int
) -> None:
    with Spool(limit, tmp_path_factory.getbasetemp() / "store") as spool:
        places = [spool.add(text) for text in texts]
        assert [spool.read(*place) for place in reversed(places)] == texts[::-1]
        again = spool.add("last")
        assert spool.read(*again) == "last"


def test_options_of_a_parser_that_is_off_are_refused() -> None:
    with pytest.raises(ValueError, match="timeout_seconds does nothing where enabled is false"):
        SyntaxConfig(enabled=False, timeout_seconds=1.0)
    assert not SyntaxConfig(enabled=False).enabled
