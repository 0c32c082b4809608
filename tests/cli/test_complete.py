"""The cursor of `inlay complete`: every position of a text, and every one outside it."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inlay.cli.complete import read_cursor, split_at, split_marker
from inlay.config import BadInput, Config

texts = st.text(st.sampled_from("ab \t\n\r\u2028\x0cé😀"), max_size=30)


@given(texts, st.data())
def test_a_cursor_splits_where_an_editor_shows_it(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    before = text[:offset]
    # Nowhere is there a cursor inside a line end, and a file's very last \r is half of one.
    assume(text[offset - 1 : offset + 1] not in ("\r\n", "\r") or offset == 0)
    line, column = before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
    assert split_at(text, f"{line}:{column}", "f") == (before, text[offset:])


@given(texts, st.integers(-1, 8), st.integers(-1, 12))
def test_any_position_splits_or_is_refused(text: str, line: int, column: int) -> None:
    try:
        prefix, suffix = split_at(text, f"{line}:{column}", "f.py")
    except BadInput as error:
        lines = text.split("\n")
        inside = 1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1].removesuffix("\r")) + 1
        assert not inside
        assert f"--at {line}:{column}" in str(error)
    else:
        assert prefix + suffix == text
        assert not (prefix.endswith("\r") and suffix.startswith("\n"))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("4:1", "--at 4:1 is outside 'f.py': it has lines 1 to 3"),
        ("0:1", "--at 0:1 is outside 'f.py': it has lines 1 to 3"),
        ("2:5", "--at 2:5 is outside 'f.py': its line 2 has columns 1 to 4"),
        ("2:0", "--at 2:0 is outside 'f.py': its line 2 has columns 1 to 4"),
        ("2", "--at 2: write LINE:COL, both from 1, such as --at 12:5"),
        ("a:b", "--at a:b: write LINE:COL, both from 1, such as --at 12:5"),
        ("1:-1", "--at 1:-1: write LINE:COL, both from 1, such as --at 12:5"),
        ("²:1", "--at ²:1: write LINE:COL, both from 1, such as --at 12:5"),
    ],
)
def test_outside(at: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        split_at("one\r\ntwo\r\n", at, "f.py")
    assert str(caught.value) == message


def test_the_marker() -> None:
    assert split_marker("a<CURSOR>b") == ("a", "b")
    with pytest.raises(BadInput, match="has no <CURSOR> markers"):
        split_marker("ab")
    with pytest.raises(BadInput, match="has 2 <CURSOR> markers"):
        split_marker("<CURSOR><CURSOR>")


def test_files_and_mixtures(tmp_path: Path) -> None:
    before, after = tmp_path / "a", tmp_path / "b"
    before.write_bytes(b"x = \r\n")
    after.write_bytes("é".encode())
    assert read_cursor(None, None, before, after) == ("x = \r\n", "é")
    assert read_cursor(None, None, before, None) == ("x = \r\n", "")
    assert read_cursor(before, "1:5", None, None) == ("x = ", "\r\n")
    (tmp_path / "bad").write_bytes(b"ab\xff")
    for arguments, message in (
        ((before, "1:1", before, None), "not both"),
        ((before, None, None, None), "--file needs --at"),
        ((None, "1:1", None, None), "--at needs --file"),
        ((tmp_path / "nope", "1:1", None, None), "no file at"),
        ((tmp_path, "1:1", None, None), "cannot read"),
        ((tmp_path / "bad", "1:1", None, None), r"is not UTF-8 text \(byte 2"),
    ):
        with pytest.raises(BadInput, match=message):
            read_cursor(*arguments)


class Options(Config):
    """Stands for CompleteConfig."""

    max_tokens: int = 64
    best_of: int = 1


@pytest.fixture
def completing(calls: Callable[..., Any]) -> list[Any]:
    text = "né\r\n\tx"
    return calls(
        "inlay.infer.complete",
        "candidates",
        result=([SimpleNamespace(text=text, to_dict=lambda: {"text": text, "stopped": "eot"})], 0),
        CompleteConfig=Options,
    )


def test_prints_the_insertion_alone(inlay: Callable[..., Any], completing: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "f.py"
    file.write_text("ab\ncd\n")
    outcome = inlay("complete", "run", "--file", str(file), "--at", "2:2", "max_tokens=8")
    assert outcome == (0, "né\r\n\tx", "")
    assert completing == [("run", "ab\nc", "d\n", Options(max_tokens=8))]
    outcome = inlay("complete", "run", "--file", str(file), "--at", "2:2", "--json")
    assert json.loads(outcome.out) == {"text": "né\r\n\tx", "stopped": "eot"}
    assert outcome.out.count("\n") == 1
    assert inlay("complete", "run", "--file", str(file), "--at", "9:9").status == 2
    outcome = inlay("complete", "run", "--file", str(file), "--at", "1:1", "max_token=8")
    assert outcome.err == "inlay: unknown key 'max_token' (max_token=8); did you mean 'max_tokens'?\n"
    outcome = inlay("complete", "run", "--file", str(file), "--at", "1:1", "best_off=4")
    assert outcome.err == "inlay: unknown key 'best_off' (best_off=4); did you mean 'best_of'?\n"
    outcome = inlay("complete", "run", "--file", str(file), "--at", "1:1", "zzzz=4")
    assert outcome.err == "inlay: unknown key 'zzzz' (zzzz=4); allowed here: best_of, max_tokens\n"  # of no other verb
    outcome = inlay("complete", "run", "--file", str(file), "--at", "2:2", "best_of=2", "--json")
    assert json.loads(outcome.out)["candidates"] == [{"text": "né\r\n\tx", "stopped": "eot"}]


def test_standard_input(inlay: Callable[..., Any], completing: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é<CURSOR>\r\n".encode())))
    assert inlay("complete", "run").status == 0
    assert completing[0][1:3] == ("é", "\r\n")
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    outcome = inlay("complete", "run")
    assert (outcome.status, outcome.out) == (2, "")
    assert "<CURSOR>" in outcome.err


def test_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    """Editors do not count it as a column, and no training row begins with one."""
    marked, plain = tmp_path / "marked.py", tmp_path / "plain.py"
    marked.write_bytes(b"\xef\xbb\xbfimport os\n")
    plain.write_bytes(b"import os\n")
    for at in ("1:1", "1:7", "2:1"):
        assert read_cursor(marked, at, None, None) == read_cursor(plain, at, None, None)
    assert read_cursor(None, None, marked, marked) == ("import os\n", "import os\n")
