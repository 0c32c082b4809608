import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.tiny_run import tiny_model, write_run

from inlay.config import BadInput, InlayError
from inlay.infer.open import open_model
from inlay.model import checkpoint
from inlay.text.tokenizer import Tokenizer


@pytest.fixture
def run(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return write_run(tmp_path / "run", tokenizer, steps=(9, 10, 100))


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_the_newest_checkpoint_is_taken(run: Path, tokenizer: Tokenizer) -> None:
    opened = open_model(run)
    assert opened.step == 100
    assert opened.sequence_length == 128
    assert opened.orders == ("spm", "psm")
    expected = tiny_model(tokenizer.vocab_size + 16, seed=100).state_dict()
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, expected[name])
    record = json.loads((run / "checkpoints" / "step-100" / "checkpoint.json").read_text())
    assert opened.weights_hash == record["hashes"]["weights.safetensors"]
    assert opened.identity["run"] == "run"
    assert opened.identity["tokenizer_hash"] == tokenizer.hash


def test_a_checkpoint_folder_opens_as_that_checkpoint(run: Path) -> None:
    assert open_model(run / "checkpoints" / "step-9").step == 9


@pytest.mark.parametrize("damage", ["flip", "no weights", "no record", "bad record", "incomplete"])
def test_a_damaged_checkpoint_is_skipped_with_one_line(
    run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = run / "checkpoints" / "step-100"
    if damage == "flip":
        flip_byte(newest / "weights.safetensors")
    elif damage == "no weights":
        (newest / "weights.safetensors").unlink()
    elif damage == "no record":
        (newest / "checkpoint.json").unlink()
    elif damage == "bad record":
        (newest / "checkpoint.json").write_text("{")
    else:
        record = json.loads((newest / "checkpoint.json").read_text())
        (newest / "checkpoint.json").write_text(checkpoint.seal({**record, "complete": False}))
    assert open_model(run).step == 10
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "step-100" in printed.err
    assert "step-10\n" in printed.err


def test_no_good_checkpoint_is_an_error(run: Path) -> None:
    for weights in run.glob("checkpoints/*/weights.safetensors"):
        flip_byte(weights)
    with pytest.raises(InlayError, match="none of the 3 checkpoints"):
        open_model(run)
    with pytest.raises(InlayError, match="does not match its recorded hash"):
        open_model(run / "checkpoints" / "step-9")


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run at"):
        open_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"no config\.yaml"):
        open_model(tmp_path / "empty")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(BadInput, match="no checkpoint yet"):
        open_model(run)
    (run / "config.yaml").write_text("model: {}\n")
    (run / "checkpoints" / "step-1").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"fim\.family"):
        open_model(run)


def test_weights_of_another_shape_are_an_error(run: Path) -> None:
    record = run / "checkpoints" / "step-100" / "checkpoint.json"
    data = json.loads(record.read_text())
    record.write_text(checkpoint.seal({**data, "vocab_size": data["vocab_size"] + 1}))
    with pytest.raises(InlayError, match="do not fit"):
        open_model(run)


def test_dtypes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_model(run, dtype="bfloat16").dtype == torch.bfloat16
    # A model this small decodes fastest in fp32, on any CPU.
    assert open_model(run, device="cpu", dtype="auto").dtype == torch.float32
    half = open_model(run, device="cpu", dtype="bfloat16")
    assert half.model.embedding.weight.dtype == half.model.head_weight.dtype == torch.float32
    assert {parameter.dtype for parameter in half.model.blocks.parameters()} == {torch.bfloat16}
    monkeypatch.setattr("inlay.infer.open.has_bfloat16_units", lambda: True)
    assert open_model(run, device="cpu", dtype="auto").dtype == torch.float32
    assert open_model(run, device="cpu", dtype="auto", rows=64).dtype == torch.bfloat16
    with pytest.raises(BadInput, match="unknown dtype"):
        open_model(run, dtype="float8")  # type: ignore[arg-type]
