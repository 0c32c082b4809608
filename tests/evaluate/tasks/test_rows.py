"""Data files of benchmarks: the same rows however they are stored, and one line for whatever is wrong with them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput
from inlay.evaluate.rows import Row, mixed, read_rows, unique
from inlay.evaluate.task import Example, Place

ROWS: list[dict[str, Any]] = [{"id": "a", "text": "größer\u2028 日本語 🙂"}, {"id": "b", "text": "x\ny"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(path: Path, pattern: str | None = None) -> Any:
    return read_rows(Place(data=str(path)), "humaneval_infilling", pattern)


def stored(folder: Path) -> list[Path]:
    """The same rows in every form."""
    forms: dict[str, bytes] = {
        "a.jsonl": LINES,
        "b.jsonl.gz": gzip.compress(LINES),
        "c.json": json.dumps(ROWS, indent=1).encode(),
        "d.json.gz": gzip.compress(json.dumps(ROWS).encode()),
        "bom.jsonl": b"\xef\xbb\xbf" + LINES,
        "crlf.jsonl": LINES.replace(b"\n", b"\r\n") + b"\r\n",
        "unended.jsonl": LINES.rstrip(b"\n"),
    }
    paths = []
    for name, content in forms.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "e.parquet")
    return [*paths, folder / "e.parquet"]


def test_every_form_gives_the_same_rows_and_hash(tmp_path: Path) -> None:
    found = [read(path) for path in stored(tmp_path)]
    assert all([row.data for row in one.rows] == ROWS for one in found)
    assert len({one.hash for one in found}) == 1
    assert [row.where for row in found[0].rows] == ["a.jsonl, line 1", "a.jsonl, line 2"]
    assert [row.where for row in found[-1].rows] == ["e.parquet, row 1", "e.parquet, row 2"]
    assert not found[0].sample


def test_the_hash_sees_every_change(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    seen = set()
    for content in (LINES, LINES.replace(b'"a"', b'"c"'), LINES * 2, LINES.replace(b"id", b"ID")):
        path.write_bytes(content)
        seen.add(read(path).hash)
    assert len(seen) == 4


def test_without_a_path_the_sample_is_read() -> None:
    found = read_rows(Place(), "humaneval_infilling")
    assert (found.source, found.sample) == ("shipped sample", True)
    assert len(found.rows) == 12


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for folder in ("z", ".cache"):
        (tmp_path / folder).mkdir()
    for name in ("b.jsonl", "a.jsonl", "z/a.jsonl.gz", "c.jsonl"):
        line = json.dumps({"id": name}).encode()
        (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
    for name in ("LICENSE", "dataset_infos.json", ".hidden.jsonl", ".cache/a.jsonl"):
        (tmp_path / name).write_text("not data")
    assert [row.data["id"] for row in read(tmp_path).rows] == ["a.jsonl", "b.jsonl", "c.jsonl", "z/a.jsonl.gz"]
    assert [row.data["id"] for row in read(tmp_path, "a.*").rows] == ["a.jsonl", "z/a.jsonl.gz"]
    with pytest.raises(BadInput, match=r"has no data file with a name like 'x\*'"):
        read(tmp_path, "x*")


def broken_gzip() -> bytes:
    content = bytearray(gzip.compress(LINES * 50))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


BAD: dict[str, tuple[str, bytes, str]] = {
    "cut off": ("x.jsonl", LINES[:-12], r"x\.jsonl, line 2: the JSON ends too early, the file seems cut off"),
    "cut in a character": (
        "x.jsonl",
        '{"a": "🙂'.encode()[:-1],
        r"byte 0xf0 is not UTF-8 \(or the file is cut",
    ),
    "broken in the middle": ("x.jsonl", b'{"a" 1}\n' + LINES, r"x\.jsonl, line 1, column 6: not JSON"),
    "lines called json": ("x.json", LINES, r"x\.json, line 2, column 1: not JSON .*is called \.jsonl"),
    "array cut off": ("x.json", b'[{"a": 1},\n{"b": 2}', r"x\.json, line 2: the JSON ends too early"),
    "latin-1": ("x.jsonl", LINES + '{"a": "größer"}\n'.encode("latin-1"), r"line 3: byte 0xf6 is not UTF-8.*latin-1"),
    "latin-1 in an array": ("x.json", '[\n{"a": "ö"}\n]'.encode("latin-1"), r"x\.json, line 2: byte 0xf6 is not UTF-8"),
    "UTF-16": ("x.jsonl", LINES.decode().encode("utf-16"), r"line 1: the text is UTF-16"),
    "UTF-16 without a mark": ("x.jsonl", LINES.decode().encode("utf-16-le"), r"line 1: the text is UTF-16"),
    "not an object": ("x.jsonl", b"[1, 2]\n", r"line 1: a list, not an object with fields"),
    "a row that is none": ("x.json", b'[{"a": 1}, "b"]', r"x\.json, row 2: a text, not an object"),
    "a number alone": ("x.json", b"3", r"x\.json: holds a number, not a list of objects"),
    "empty": ("x.jsonl", b"", r"x\.jsonl: no rows, the data is empty"),
    "blank": ("x.jsonl.gz", gzip.compress(b" \n\n"), r"x\.jsonl\.gz: no rows"),
    "no rows": ("x.json", b"[]", r"x\.json: no rows"),
    "thousands of digits": (
        "x.jsonl",
        b'{"a": ' + b"9" * 5000 + b"}\n",
        r"line 1: .*a number with thousands of digits",
    ),
    "NaN": ("x.jsonl", b'{"a": NaN}\n', r"line 1: .*NaN is not a JSON number"),
    "infinity": ("x.jsonl", b'{"a": -Infinity}\n', r"line 1: .*-Infinity is not a JSON number"),
    "nested": ("x.jsonl", b"[" * 200_000 + b"\n", r"line 1: .*nested too deeply"),
    "gzip cut off": ("x.jsonl.gz", gzip.compress(LINES * 50)[:-9], r"x\.jsonl\.gz: the gzip file is cut off"),
    "no gzip": ("x.jsonl.gz", LINES, r"x\.jsonl\.gz: not a whole gzip file"),
    "gzip broken": ("x.jsonl.gz", broken_gzip(), r"x\.jsonl\.gz: (not a whole gzip file|the gzip file is cut off)"),
    "no parquet": ("x.parquet", b"PAR1 but no more", r"x\.parquet: not a parquet file that can be read"),
    "another kind": ("x.csv", b"a,b\n", r"is none of the kinds that can be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_for_what_cannot_be_read(name: str, tmp_path: Path) -> None:
    file, content, expected = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BadInput, match=expected) as error:
        read(tmp_path / file)
    assert "\n" not in str(error.value)


def test_one_line_for_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file or folder"):
        read(tmp_path / "missing.jsonl")
    with pytest.raises(BadInput, match="has no data file: looked for"):
        read(tmp_path)


GETTERS: list[tuple[Callable[[Row], Any], str]] = [
    (lambda row: row.text("nothing"), r"f, line 3: field 'nothing' is missing \(the row has "),
    (lambda row: row.text("null"), "field 'null' is null"),
    (lambda row: row.text("number"), "field 'number' is a number, not a text"),
    (lambda row: row.text("half"), "field 'half' has half a character .* at character 1"),
    (lambda row: row.filled("blank"), "field 'blank' is empty"),
    (lambda row: row.number("yes"), "field 'yes' is true, not a number"),
    (lambda row: row.number("huge"), "field 'huge' is a number too large"),
    (lambda row: row.number("far"), "field 'far' is a number too large"),
    (lambda row: row.integer("huge"), "field 'huge' is a number too large"),
    (lambda row: row.integer("number"), "field 'number' is a number, not a whole number"),
    (lambda row: row.list("map"), "field 'map' is an object, not a list"),
    (lambda row: row.texts("list"), r"field 'list\[1\]' is a number, not a text"),
    (lambda row: row.rows("list"), r"field 'list\[0\]' is a text, not an object"),
    (lambda row: row.mapping("list"), "field 'list' is a list, not an object"),
    (lambda row: row.row("map").text("b"), "f, line 3, 'map': field 'b' is missing"),
    (lambda row: row.unpacked("blank").list("blank"), "field 'blank' holds broken JSON"),
]


@pytest.mark.parametrize(("get", "expected"), GETTERS)
def test_getters_name_the_place_and_the_field(get: Callable[[Row], Any], expected: str) -> None:
    data = {"null": None, "number": 1.5, "half": "x\ud800", "blank": " ", "yes": True, "huge": 10**40}
    data |= {"far": float("inf"), "list": ["a", 1], "map": {"a": 1}}
    with pytest.raises(BadInput, match=expected):
        get(Row(data, "f, line 3"))


def test_getters_give_what_stands_there() -> None:
    row = Row({"a": "", "n": 3, "l": ["x"], "m": {"k": 1}, "j": '[{"k": "v"}]', "z": None}, "f")
    assert (row.text("a"), row.number("n"), row.integer("n"), row.texts("l"), row.list("l")) == (
        "",
        3.0,
        3,
        ["x"],
        ["x"],
    )
    assert (row.mapping("m"), row.row("m").integer("k"), row.text_or("z", "d")) == ({"k": 1}, 1, "d")
    assert row.unpacked("j").rows("j")[0].text("k") == "v"
    assert row.unpacked("l").texts("l") == ["x"]


def test_an_id_twice_names_both_rows() -> None:
    rows = [Row({}, "a.jsonl, line 1"), Row({}, "a.jsonl, line 2"), Row({}, "b.jsonl, line 1")]
    unique(zip("abc", rows, strict=True))
    with pytest.raises(BadInput, match=r"the id 'a' comes twice: a\.jsonl, line 1 and b\.jsonl, line 1"):
        unique(zip("aba", rows, strict=True))


class Hub:
    """A stand-in for the hub: what `snapshot_download` does, with or without a network."""

    def __init__(self, folder: Path, cached: bool, error: Exception | None) -> None:
        self.folder, self.cached, self.error = folder, cached, error
        self.calls: list[tuple[str, list[str], bool]] = []

    def __call__(self, repo: str, *, repo_type: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert repo_type == "dataset"
        self.calls.append((repo, allow_patterns, local_files_only))
        if local_files_only and not self.cached:
            raise errors.LocalEntryNotFoundError("nothing cached")
        if not local_files_only and self.error:
            raise self.error
        return str(self.folder)


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path, cached: bool, error: Exception | None) -> Hub:
    snapshot = folder / "0123456789abcdef"
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / "test.jsonl").write_bytes(LINES)
    (snapshot / "train.jsonl").write_bytes(LINES.replace(b'"a"', b'"t"'))
    (snapshot / "README.md").write_text("a card")
    made = Hub(snapshot, cached, error)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made)
    return made


def test_a_dataset_comes_from_the_cache_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = hub(monkeypatch, tmp_path, cached=True, error=OSError("no network"))
    found = read_rows(Place(data="hf:owner/name/data/test.jsonl"), "safim")
    assert [row.data for row in found.rows] == ROWS
    assert found.source == "hf:owner/name/data/test.jsonl at revision 0123456789ab"
    assert made.calls == [("owner/name", ["data/test.jsonl"], True)]
    assert len(read_rows(Place(data="hf:owner/name"), "safim").rows) == 4
    assert len(read_rows(Place(data="hf:owner/name"), "safim", "test*").rows) == 2
    assert len(read_rows(Place(data="hf:owner/name/data"), "safim").rows) == 2
    assert len(read_rows(Place(data="hf:owner/name/tr*.jsonl"), "safim").rows) == 2


def test_a_dataset_is_fetched_where_the_cache_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = hub(monkeypatch, tmp_path, cached=False, error=None)
    assert len(read_rows(Place(data="hf:owner/name/train.jsonl"), "safim").rows) == 2
    assert [local for _, _, local in made.calls] == [True, False]


def test_offline_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub(monkeypatch, tmp_path, cached=False, error=ConnectionError("no route\nto host"))
    with pytest.raises(BadInput, match=r"cannot fetch the dataset 'owner/name'.*download x.jsonl of https://") as error:
        read_rows(Place(data="hf:owner/name/x.jsonl"), "safim")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="does not name a dataset"):
        read_rows(Place(data="hf:owner"), "safim")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from("123"))))
def test_mixed_is_a_permutation_whose_beginning_has_every_kind(keys: list[tuple[str, str, str]]) -> None:
    examples = [
        Example(str(at), group, category, "", "", "", language=language)
        for at, (category, language, group) in enumerate(keys)
    ]
    listed = mixed(examples)
    assert sorted(one.id for one in listed) == sorted(one.id for one in examples)
    kinds = {(one.category, one.language) for one in examples}
    assert {(one.category, one.language) for one in listed[: len(kinds)]} == kinds
    for kind in kinds:
        groups = [one.group for one in listed if (one.category, one.language) == kind]
        assert len(set(groups[: len(set(groups))])) == len(set(groups))
