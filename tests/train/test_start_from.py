"""Runs that begin with other weights: a run of ours or a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.train.tiny_training import At, assert_same, config, lines, weights

from inlay.cli.main import main
from inlay.config import BadInput, validate
from inlay.config.run_dir import RunDir
from inlay.export.hf import export_hf
from inlay.infer.open import open_model
from inlay.model import checkpoint
from inlay.text.tokenizer import Tokenizer
from inlay.train import run as running
from inlay.train.config import TrainRun
from inlay.train.run import resume, train
from inlay.train.trainer import Trainer


@pytest.fixture(scope="session")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that transformers made: another shape than the run's, and a vocabulary padded to 448 rows."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("hf") / "model"
    torch.manual_seed(0)
    made = transformers.Qwen2Config(
        vocab_size=448,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    transformers.Qwen2ForCausalLM(made).save_pretrained(place)
    Tokenizer.load(store / "tokenizer").save(place)
    return place


def start(store: Path, source: Path, **changes: Any) -> TrainRun:
    return validate(TrainRun, {**config(store, **changes).to_dict(), "start_from": str(source)})


SHORT = {"steps": 4}


def test_a_run_starts_with_the_weights_of_a_folder(store: Path, folder: Path, tmp_path: Path) -> None:
    run = train(start(store, folder, train=SHORT), str(tmp_path / "run")).path
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert (saved["start_from"], saved["model"]["width"], saved["model"]["layers"]) == (str(folder), 48, 3)
    first = checkpoint.read_record(run / "checkpoints" / "step-0")
    assert (first["vocab_size"], first["step"], first["tokens"]) == (448, 0, 0)
    original = dict(open_model(folder, device="cpu").model.named_parameters())
    begun = checkpoint.read_tensors(run / "checkpoints" / "step-0", checkpoint.WEIGHTS)
    assert_same(begun, {name: value.data for name, value in original.items()})
    trained = open_model(run, device="cpu")
    assert trained.step == 4
    assert trained.model.vocab_size == 448
    moved = dict(trained.model.named_parameters())
    assert all(not torch.equal(moved[name], value) for name, value in original.items() if value.numel() > 48)
    export_hf(trained, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "qwen2"


def test_resuming_never_needs_the_folder_again(
    store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(folder, tmp_path / "source"))
    options = start(store, source, train={"steps": 8})
    whole = train(options, str(tmp_path / "whole")).path

    def stopped_at(step: int, out: Path) -> Path:
        def make(*arguments: Any) -> Trainer:
            trainer = Trainer(*arguments)
            trainer.callbacks.insert(0, At(step, lambda _: setattr(trainer, "_asked_to_stop", 15)))
            return trainer

        monkeypatch.setattr(running, "Trainer", make)
        with pytest.raises(Exception, match="resume="):
            train(options, str(out))
        monkeypatch.undo()
        return out

    cut = stopped_at(6, tmp_path / "cut")
    early = stopped_at(1, tmp_path / "early")
    shutil.rmtree(early / "checkpoints" / "step-1")  # as if it had been killed as soon as the start was saved
    shutil.rmtree(source)
    for run in (cut, early):
        resume(str(run))
        assert_same(weights(run, 8), weights(whole, 8))


def test_a_run_killed_before_its_first_checkpoint_begins_again(store: Path, folder: Path, tmp_path: Path) -> None:
    options = start(store, folder, train=SHORT)
    whole = train(options, str(tmp_path / "whole")).path
    resolved = validate(TrainRun, yaml.safe_load((whole / "config.yaml").read_text()))
    run = RunDir.create(str(tmp_path / "run"), resolved)
    resume(str(run))
    assert_same(weights(run.path, 4), weights(whole, 4))


def test_a_run_of_ours_is_a_start_too(store: Path, straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    _, before = straight
    for name, source in (("run", before), ("checkpoint", before / "checkpoints" / "step-15")):
        run = train(start(store, source, train=SHORT, model={"width": 64}), str(tmp_path / name)).path
        begun = checkpoint.read_tensors(run / "checkpoints" / "step-0", checkpoint.WEIGHTS)
        newest = source if name == "checkpoint" else before / "checkpoints" / "step-20"
        assert_same(begun, checkpoint.read_tensors(newest, checkpoint.WEIGHTS))
        losses = [line["train/loss"] for line in lines(run) if "train/loss" in line]
        fresh = [line["train/loss"] for line in lines(before) if "train/loss" in line]
        assert losses[0] < fresh[0]


def test_an_export_of_ours_is_a_start_too(store: Path, straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    _, before = straight
    out = export_hf(open_model(before, device="cpu"), tmp_path / "out").path
    run = train(start(store, out, train=SHORT), str(tmp_path / "run")).path
    begun = checkpoint.read_tensors(run / "checkpoints" / "step-0", checkpoint.WEIGHTS)
    assert_same(begun, checkpoint.read_tensors(before / "checkpoints" / "step-20", checkpoint.WEIGHTS))


def test_starts_that_do_not_fit_leave_no_run(store: Path, folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    Tokenizer.train(["select a, b from c where a = b order by b"] * 9, vocab_size=400).save(other)
    with pytest.raises(BadInput, match=rf"tokenizer=file tokenizer.path={other}") as error:
        train(start(store, other), str(tmp_path / "run"))
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="no run at"):
        train(start(store, tmp_path / "nothing"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_same_vocabulary_with_other_names_fits(store: Path, folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    (copied / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    assert Tokenizer.load(copied).hash != Tokenizer.load(folder).hash
    train(start(store, copied, train={"steps": 1}), str(tmp_path / "run"))


def test_a_model_that_is_not_that_of_the_start_is_refused(
    store: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["train", f"data.path={store}", f"start_from={folder}", "train.steps=2", f"out={tmp_path / 'run'}"]
    assert main([*asked, "model=pico"]) == 2
    said = capsys.readouterr().err
    assert "model.width" in said
    assert "model.layers" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_model_of_a_file_is_not_replaced_in_silence(
    store: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    data = start(store, folder, train={"steps": 1}).to_dict()
    data["model"]["width"] *= 2
    file.write_text(yaml.safe_dump(json.loads(json.dumps(data))))
    assert main(["train", "--config", str(file), f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "brings its own model" in said
    assert "model.width" in said
    assert not (tmp_path / "run").exists()
    # Of a run, whose file has the model of its start, it is the same one.
    first = train(start(store, folder, train={"steps": 1}), str(tmp_path / "first"))
    assert main(["train", "--config", str(first.config_file), f"out={tmp_path / 'run'}"]) == 0
