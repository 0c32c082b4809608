"""`inlay export` from the command line, on a run as training leaves it, with the real peers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.export.models import ATTENTION, shape, write_run
from tests.tiny_run import MODEL

from inlay.cli.main import main
from inlay.export.peers import TransformersPeer
from inlay.text.tokenizer import Tokenizer

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", MODEL, tokenizer)


@pytest.fixture
def inlay(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call


def test_gguf(inlay: Any, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "tiny.gguf"
    status, printed, err = inlay("export", run, "--to", "gguf", "--out", out, "--type", "q8_0")
    assert status == 0
    assert printed.splitlines() == [str(out), f"{out}.Modelfile"]
    assert out.read_bytes()[:4] == b"GGUF"
    assert "FROM ./tiny.gguf\n" in Path(f"{out}.Modelfile").read_text()
    assert "export to q8_0: " in err
    assert "kept in f16: rows of 48 do not divide" in err
    status, _, err = inlay("export", run, "--to", "gguf", "--out", out)
    assert (status, err) == (2, f"inlay: '{out}' exists: choose another --out, or remove it\n")
    out.unlink()
    status, _, err = inlay("export", run, "--to", "gguf", "--out", out)
    assert (status, err) == (2, f"inlay: '{out}.Modelfile' exists: choose another --out, or remove it\n")
    # A checkpoint is a target as well.
    other = tmp_path / "other.gguf"
    assert inlay("export", run / "checkpoints" / "step-10", "--to", "gguf", "--out", other)[0] == 0


@pytest.mark.parametrize("to", ["gguf", "hf"])
def test_check(to: str, inlay: Any, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("transformers")
    status, printed, _ = inlay("export", run, "--to", to, "--out", tmp_path / "copy", "--type", "f32", "--check")
    rows = {line.split("  ")[1].strip(): line.split()[-5:-1] for line in printed.splitlines() if "  20  " in line}
    assert status == 0, printed
    assert rows == {name: ["20", "0", "0", "20"] for name in ("transformers", "llama.cpp, f32")}
    assert "llama.cpp's /infill builds our prompt, id by id: 3 of 3" in printed
    assert "prompts from inlay's own code" in printed
    assert list(tmp_path.glob(".inlay-check-*")) == []


@pytest.mark.parametrize("to", ["gguf", "hf"])
def test_check_of_a_padded_head(to: str, inlay: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Half of the rows mean nothing, and with random weights they are as likely as the others: both sides leave them
    out, in what they choose and in what they normalise over."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("transformers")
    run = write_run(tmp_path / "run", MODEL, tokenizer, padding=tokenizer.vocab_size)
    status, printed, _ = inlay("export", run, "--to", to, "--out", tmp_path / "copy", "--type", "f32", "--check")
    rows = {line.split("  ")[1].strip(): line.split()[-5:] for line in printed.splitlines() if "  20  " in line}
    assert status == 0, printed
    assert {name: row[:-1] for name, row in rows.items()} == {
        name: ["20", "0", "0", "20"] for name in ("transformers", "llama.cpp, f32")
    }
    assert all(float(row[-1]) < 1e-4 for row in rows.values()), printed
    assert f"{tokenizer.vocab_size} rows of the head have no token: left out on both sides" in printed


def test_a_copy_that_differs_is_a_failure(
    inlay: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(TransformersPeer, "is_installed", staticmethod(lambda: False))
    # Rows in the other layout: what a forgotten permutation looks like.
    monkeypatch.setattr("inlay.export.ggufs.qwen3.Qwen3.INTERLEAVED", True)
    out = tmp_path / "copy.gguf"
    status, printed, err = inlay("export", run, "--to", "gguf", "--out", out, "--check")
    assert status == 1
    assert "the copy does not compute the same" in err
    assert "transformers is missing: pip install transformers" in printed
    assert out.exists()


def test_no_peer_proves_nothing(inlay: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformersPeer, "is_installed", staticmethod(lambda: False))
    monkeypatch.setattr("inlay.export.run.is_installed", lambda: False)
    status, printed, err = inlay("export", run, "--to", "gguf", "--out", tmp_path / "copy.gguf", "--check")
    assert status == 1
    assert "nothing is proven" in err
    assert "transformers is missing" in printed
    assert "llama.cpp is missing" in printed


def test_a_broken_file_is_one_line(inlay: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setattr(TransformersPeer, "is_installed", staticmethod(lambda: False))
    monkeypatch.setattr("inlay.export.ggufs.qwen3.Qwen3.FINAL_NORM", "elsewhere")
    status, _, err = inlay("export", run, "--to", "gguf", "--out", tmp_path / "copy.gguf", "--check")
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("inlay: llama.cpp could not load the file: ")
    assert "output_norm.weight" in last


def test_bad_input(
    inlay: Any, run: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    for words, message in (
        (("--to", "gguf", "--type", "q5_0"), "--type q5_0: --to gguf writes f32, f16, bf16, q8_0, q4_0"),
        (("--to", "hf", "--type", "q8_0"), "--type q8_0: --to hf writes f32, bf16"),
    ):
        assert inlay("export", run, *words, "--out", out) == (2, "", f"inlay: {message}\n")
    assert inlay("export", tmp_path / "none", "--to", "gguf", "--out", out)[0] == 2
    status, _, err = inlay("export", run, "--to", "onnx", "--out", out)
    assert status == 2
    assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "gguf", None)
    message = "inlay: GGUF export needs the package gguf: pip install gguf\n"
    assert inlay("export", run, "--to", "gguf", "--out", out) == (2, "", message)
    assert not out.exists()


def test_a_model_that_llama_cpp_lacks(inlay: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", shape({**ATTENTION, "window": 16}), tokenizer)
    status, out, err = inlay("export", folder, "--to", "gguf", "--out", tmp_path / "x.gguf")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "qwen3: layer 0 (main): mixer.window = 16 of 128 positions, and its graph ignores windows" in err
    assert "; the nearest preset that it can express: model=" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
