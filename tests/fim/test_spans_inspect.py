"""`inlay inspect spans`: what it prints of one file, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.stores import write_store

from inlay.cli.main import main
from inlay.config import BadInput
from inlay.fim.inspect import node_kinds, read_view
from inlay.fim.span import strategies
from inlay.text.tokenizer import Tokenizer

CODE = (
    "def add(first, second):\n    total = first + second  # größer 🙂\n    return total\n\n\n"
    'print("\x1b[31m", add(1, 2))\n'
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "code.py"
    path.write_text(CODE, encoding="utf-8")
    return str(path)


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["inspect", "spans", *words, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_json_is_one_span_a_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, file, "--count", "6")
    assert [span["strategy"] for span in found] == [
        name for name in ("ast_node", "ast_aligned", "sized", "empty") for _ in range(6)
    ]
    data = CODE.encode()
    for span in found:
        assert set(span) == {"strategy", "start", "end", "middle", "node_kind", "tokens"}
        assert span["middle"] == data[span["start"] : span["end"]].decode()
        # A vocabulary made for the file: fewer tokens than bytes, and none for nothing.
        size = span["end"] - span["start"]
        assert 0 <= span["tokens"] <= size
        assert (span["tokens"] > 0) == (size > 0)
        assert (span["node_kind"] is not None) == span["strategy"].startswith("ast_")
    assert sum(span["tokens"] for span in found) < 0.8 * sum(span["end"] - span["start"] for span in found)
    assert {"block", "comment"} <= {span["node_kind"] for span in found}
    assert lines(capsys, file, "--count", "6") == found


@pytest.mark.parametrize("kind", sorted(strategies.members()))
def test_any_kind_can_be_asked_for(file: str, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    found = lines(capsys, file, "--kind", kind, "--count", "2")
    assert [span["strategy"] for span in found] == [kind, kind]


def test_options_and_the_indentation_rule(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for share, expected in (("0.0", False), ("1.0", True)):
        found = lines(capsys, file, "fim=lines", f"fim.indentation={share}", "--kind", "line", "--count", "40")
        inner = [span["middle"] for span in found if "return" in span["middle"] or "total =" in span["middle"]]
        assert inner
        assert all(middle.startswith("    ") == expected for middle in inner)


def test_a_store_gives_its_tokens(
    file: str, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(write_store(tmp_path / "store", tokenizer, [CODE]).path)
    for span in lines(capsys, file, "--store", store):
        assert span["tokens"] == len(tokenizer.encode(span["middle"]))
    assert main(["inspect", "spans", file, "--store", store]) == 0
    assert " tokens" in capsys.readouterr().out


def test_text_shows_the_cut_in_its_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "spans", file, "--count", "8"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(CODE.encode())} bytes · 6 lines" in shown
    assert "⟦" in shown
    assert "⟧" in shown
    # What a file holds never acts on the terminal, nor breaks the line that shows it.
    assert "\x1b[31m" not in shown
    view, language = read_view(file, None)
    assert language == "python"
    assert view.syntax is not None
    counted = {kind: (number, size) for kind, number, size in node_kinds(view.syntax)}
    assert counted["return_statement"] == (1, len("return total"))
    assert counted["call"] == (2, len('print("\x1b[31m", add(1, 2))') + len("add(1, 2)"))
    for kind, (number, size) in list(counted.items())[:5]:
        assert any(kind in line and f" {number} " in line and f" {size} " in line for line in shown.splitlines())


def test_a_file_without_syntax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.md"
    file.write_text("one\n\ntwo [b]three[/b]\n", encoding="utf-8")
    assert {span["strategy"] for span in lines(capsys, str(file))} == {"sized", "empty"}
    assert main(["inspect", "spans", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "not parsed" in shown
    assert "training takes lines or tokens" in shown
    for name, text in (("empty.py", ""), ("blank.py", "\n"), ("x.py", "x")):
        odd = tmp_path / name
        odd.write_text(text, encoding="utf-8")
        assert main(["inspect", "spans", str(odd)]) == 0
        assert name in capsys.readouterr().out.replace("\n", "")


def test_refusals(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "unknown.qqq").write_text("x")
    for words, said in (
        ([str(tmp_path / "missing.py")], "missing.py"),
        ([str(tmp_path / "folder.py")], "folder.py"),
        ([str(tmp_path / "latin.py")], "UTF-8 at byte 5"),
        ([str(tmp_path / "unknown.qqq")], "language"),
        ([file, "--kind", "ast_nod"], "did you mean 'ast_node'"),
        ([file, "--count", "0"], "--count 0"),
        ([file, "--store", str(tmp_path)], "not a token store"),
        ([file, "fim.rat=1"], "did you mean 'fim.rate'"),
    ):
        assert main(["inspect", "spans", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("inlay: ")
        assert said in captured.err
        assert captured.err.count("\n") == 1
    with pytest.raises(BadInput):
        read_view("no_suffix", None)
