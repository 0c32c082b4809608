"""The token store: what goes in comes out, every damaged file is named, and nothing half written opens."""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.corpus import library_texts

from inlay.config import BadInput, InlayError
from inlay.text import writer as writer_module
from inlay.text.document import Document, document
from inlay.text.store import TokenStore, manifest_text
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter, clean_stale


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(library_texts()[:3], 512)


def make(text: str, number: int = 0, licence: str | None = "MIT") -> Document:
    return document(text, language="python", path=f"pkg/file{number}.py", repo="pkg", licence=licence, source="folder")


def write(path: Path, tokenizer: Tokenizer, texts: dict[str, list[str]], **options: Any) -> TokenStore:
    with StoreWriter(path, tokenizer, **options) as writer:
        for split, members in texts.items():
            for number, text in enumerate(members):
                ids, starts = tokenizer.encode_with_starts([text])[0]
                writer.add(split, make(text, number, None if number % 2 else "MIT"), ids, starts)
        return writer.commit({"split_by": "repo", "seed": 0})


def small_store(path: Path, tokenizer: Tokenizer) -> TokenStore:
    return write(path, tokenizer, {"train": ["def f(x):\n    return x\n", "y = 'é'\n"], "validation": ["z = 3\n"]})


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=12), shard_bytes=st.integers(2, 120))
def test_round_trip_over_many_shards(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, texts: list[str], shard_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("store") / "store"
    store = write(path, tokenizer, {"train": texts, "validation": ["v = 1\n"]}, shard_bytes=shard_bytes)
    split = store.split("train")
    encoded = tokenizer.encode_with_starts(texts)
    assert split.document_count == len(split) == len(texts)
    assert split.lengths.tolist() == [len(ids) for ids, _ in encoded]
    assert split.token_count == sum(map(len, (ids for ids, _ in encoded)))
    assert split.byte_count == sum(len(text.encode()) for text in texts)
    for index, (text, (ids, starts)) in enumerate(zip(texts, encoded, strict=True)):
        assert split.text(index) == text
        assert split.tokens(index).tolist() == ids.tolist()
        assert split.pretoken_starts(index).tolist() == starts.tolist()
        first, last = len(ids) // 3, 2 * len(ids) // 3 + 1
        assert split.tokens(index, first, last).tolist() == ids[first:last].tolist()
        assert split.pretoken_starts(index, first, last).tolist() == starts[first:last].tolist()
    sizes = [file.stat().st_size // 2 for file in sorted((path / "train").glob("tokens-*.bin"))]
    assert len(sizes) == store.manifest["splits"]["train"]["shards"]
    assert all(size * 2 <= shard_bytes or size in split.lengths for size in sizes)


def test_documents_carry_their_origin_and_the_manifest_counts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = small_store(tmp_path / "store", tokenizer)
    split = store.split("train")
    first, second = split.document(0), split.document(1)
    assert (first.path, first.repo, first.language, first.licence, first.source) == (
        "pkg/file0.py",
        "pkg",
        "python",
        "MIT",
        "folder",
    )
    assert second.licence is None
    assert second.bytes == len("y = 'é'\n".encode())
    assert second.tokens == split.lengths[1]
    counts = store.manifest["splits"]["train"]
    assert counts["documents"] == 2
    assert counts["tokens"] == split.token_count
    assert counts["bytes"] == split.byte_count
    assert counts["licences"] == {"MIT": 1, "unknown": 1}
    assert counts["languages"]["python"]["documents"] == 2
    assert store.splits == ("train", "validation")
    assert store.tokenizer.hash == tokenizer.hash == store.manifest["tokenizer_hash"]
    assert split.spans(0).shape == (0, 3)
    with pytest.raises(BadInput, match="no split 'test'; it has train, validation"):
        store.split("test")
    with pytest.raises(IndexError):
        split.tokens(2)


def test_views_are_read_only_and_narrow(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokens = small_store(tmp_path / "store", tokenizer).split("train").tokens(0)
    assert tokens.dtype == np.uint16
    assert tokens.base is not None
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_syntax_spans_come_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    spans = [np.array([[0, 5, 1], [2, 3, 7]], np.int32), None, np.array([[1, 2, 3]], np.int32)]
    with StoreWriter(tmp_path / "store", tokenizer) as writer:
        for number, span in enumerate(spans):
            ids, starts = tokenizer.encode_with_starts([f"value_{number} = 1\n"])[0]
            writer.add("train", make(f"value_{number} = 1\n", number), ids, starts, span)
        split = writer.commit({}).split("train")
    for index, span in enumerate(spans):
        assert split.spans(index).tolist() == ([] if span is None else span.tolist())


def test_large_vocabularies_take_four_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with StoreWriter(tmp_path / "store", tokenizer) as writer:
        assert writer.dtype == "uint16"
    wide = pickle.loads(pickle.dumps(tokenizer))
    wide.vocab_size = 65_537
    store = write(tmp_path / "store", wide, {"train": ["x = 1\n"]})
    assert store.split("train").tokens(0).dtype == np.uint32
    assert store.split("train").text(0) == "x = 1\n"


def test_stores_and_splits_are_picklable(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = small_store(tmp_path / "store", tokenizer)
    split = store.split("train")
    split.tokens(0), split.text(0)
    data = pickle.dumps((store, split))
    assert len(data) < 20_000
    again, other = pickle.loads(data)
    assert again.hash == store.hash
    assert other.text(1) == split.text(1)
    assert other.tokens(0).tolist() == split.tokens(0).tolist()


def test_a_changed_byte_in_any_file_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "store"
    store = small_store(path, tokenizer)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert {file.relative_to(path).as_posix() for file in files} == {*store.manifest["files"], "manifest.json"}
    assert len(files) == 2 * 4 + 2 + 1
    for file in files:
        original = file.read_bytes()
        for position in {0, len(original) // 2, len(original) - 1}:
            changed = bytearray(original)
            changed[position] ^= 0x01
            file.write_bytes(changed)
            with pytest.raises(InlayError) as error:
                TokenStore.open(path)
            assert str(file) in str(error.value)
            assert "\n" not in str(error.value)
        file.write_bytes(original[:-1])
        with pytest.raises(InlayError, match=file.name):
            TokenStore.open(path, verify=False)
        file.unlink()
        with pytest.raises(InlayError, match=file.name):
            TokenStore.open(path, verify=False)
        file.write_bytes(original)
    assert TokenStore.open(path).hash == store.hash


def test_verification_can_be_left_out_but_not_forgotten(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "store"
    small_store(path, tokenizer)
    file = path / "train" / "tokens-00000.bin"
    file.write_bytes(bytes(len(file.read_bytes())))
    TokenStore.open(path, verify=False)
    with pytest.raises(InlayError, match=r"tokens-00000\.bin does not match its hash"):
        TokenStore.open(path)


def test_other_versions_and_other_folders_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = small_store(tmp_path / "store", tokenizer)
    fields = {
        key: value for key, value in store.manifest.items() if not key.endswith("_hash") or key == "tokenizer_hash"
    }
    (tmp_path / "store" / "manifest.json").write_text(manifest_text({**fields, "version": 99}))
    with pytest.raises(BadInput, match="has version 99, this inlay reads version 2"):
        TokenStore.open(tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"not a token store: .*empty .it has no manifest.json"):
        TokenStore.open(tmp_path / "empty")
    with pytest.raises(BadInput, match=r"not a token store: .*nowhere .no such folder"):
        TokenStore.open(tmp_path / "nowhere")


def test_an_existing_target_is_never_touched(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "store"
    first = small_store(path, tokenizer)
    with pytest.raises(BadInput, match="exists; choose another place"):
        small_store(path, tokenizer)
    assert TokenStore.open(path).hash == first.hash
    second = write(path, tokenizer, {"train": ["other = 1\n"]}, overwrite=True)
    assert TokenStore.open(path).hash == second.hash != first.hash
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.py").write_text("x")
    with pytest.raises(BadInput, match="exists and is no token store"):
        write(mine, tokenizer, {"train": ["x = 1\n"]}, overwrite=True)
    assert (mine / "precious.py").read_text() == "x"
    (tmp_path / "void").mkdir()
    write(tmp_path / "void", tokenizer, {"train": ["x = 1\n"]})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "store", "void"]


def test_an_error_leaves_nothing_and_keeps_the_old_store(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "store"
    old = small_store(path, tokenizer)

    def interrupted() -> None:
        with StoreWriter(path, tokenizer, overwrite=True) as writer:
            ids, starts = tokenizer.encode_with_starts(["x = 1\n"])[0]
            writer.add("train", make("x = 1\n"), ids, starts)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["store"]
    assert TokenStore.open(path).hash == old.hash


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module.os, call, full)
    with pytest.raises(InlayError, match="the disk is full") as error:
        small_store(tmp_path / "store", tokenizer)
    assert str(tmp_path / "store") in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_status == 1
    assert os.listdir(tmp_path) == []


def test_a_failed_exchange_gives_the_old_store_its_name_back(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    old = small_store(path, tokenizer)
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(writer_module.os, "rename", second_fails)
    with pytest.raises(InlayError, match="input/output error"):
        write(path, tokenizer, {"train": ["x = 1\n"]}, overwrite=True)
    assert len(calls) == 3
    assert os.listdir(tmp_path) == ["store"]
    assert TokenStore.open(path).hash == old.hash


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = tmp_path / "store"
    dead = tmp_path / ".store.partial-dead"
    dead.mkdir()
    (dead / "lock").write_bytes(b"")
    ancient = tmp_path / ".store.partial-ancient"
    ancient.mkdir()
    os.utime(ancient, (1, 1))
    with StoreWriter(path, tokenizer):
        living = [entry.name for entry in tmp_path.iterdir()]
        assert len(living) == 1
        clean_stale(path)
        assert [entry.name for entry in tmp_path.iterdir()] == living
    store = small_store(path, tokenizer)
    os.rename(path, tmp_path / ".store.old-123")
    clean_stale(path)
    assert TokenStore.open(path).hash == store.hash
    assert os.listdir(tmp_path) == ["store"]
