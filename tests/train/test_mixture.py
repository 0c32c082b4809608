"""Runs on a mixture whose shares change on the way: the same weights however often they were cut short, and their
validation by source."""

import re
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.train.tiny_training import At, assert_same, config, lines, start, stop_with

from inlay.config import BadInput
from inlay.config.run_dir import RunDir
from inlay.model import build, checkpoint
from inlay.text.document import document
from inlay.text.store import TokenStore
from inlay.text.writer import StoreWriter
from inlay.train.config import TrainRun
from inlay.train.run import resume, train
from inlay.train.trainer import Interrupted
from inlay.train.validate import Validator

STEPS = 24
STAGES: list[dict[str, Any]] = [
    {"name": "a", "share": 0.25},
    {"name": "b", "share": 0.25, "shares": {"code": 0.25, "english": 0.75}},
    {"name": "c", "share": 0.25},
    {"name": "long", "share": 0.25, "sequence_length": 256, "rows": 2},
]
CALLBACKS = {
    "validation": {"kind": "validation", "evaluations": 1, "rows": 2},
    "checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 1, "keep": 40},
}


@pytest.fixture(scope="module")
def english(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of prose with the tokenizer of the store of code."""
    folder = tmp_path_factory.mktemp("english") / "store"
    tokenizer = TokenStore.open(store).tokenizer
    with StoreWriter(folder, tokenizer) as writer:
        for number in range(12):
            words = [f"sentence {number} says {(number * word) % 7} things about {word}" for word in range(30)]
            text = f"# Page {number}\n\n{'. '.join(words)}.\n"
            page = document(text, language="markdown", path=f"{number}.md", repo="r", licence=None, source="test")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add("train" if number % 4 else "validation", page, np.asarray(ids), starts)
        writer.commit({})
    return folder


def mixed(code: Path, prose: Path, **english: Any) -> TrainRun:
    """A run in stages on both stores; `english` are options of that source."""
    source = {"path": str(prose), "content": "english", "share": 0.3, "max_epochs": 50.0, **english}
    data = {"path": None, "sources": {"code": {"path": str(code), "max_epochs": None}, "english": source}}
    return config(code, stages=STAGES, data=data, train={"steps": STEPS}, callbacks=CALLBACKS)


@pytest.fixture(scope="module")
def straight(store: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(mixed(store, english), str(tmp_path_factory.mktemp("mixed") / "run")).path


def loader(run: Path, step: int) -> dict[str, Any]:
    return checkpoint.read_record(run / "checkpoints" / f"step-{step}")["loader"]


def parameters(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step}"
    checkpoint.read_record(folder, checkpoint.WEIGHTS)
    return checkpoint.read_tensors(folder, checkpoint.WEIGHTS)


@pytest.mark.parametrize("step", [2, 6, 7, 12, 18, 19])
def test_killed_and_resumed_is_straight(straight: Path, tmp_path: Path, step: int) -> None:
    """Inside stages, right at their borders, and where a stage has the shares of the first one again."""
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    for later in RunDir.open(out).steps():
        if later > step:
            shutil.rmtree(out / "checkpoints" / f"step-{later}")
    resume(str(out))
    assert loader(out, STEPS) == loader(straight, STEPS)
    assert_same(parameters(out, STEPS), parameters(straight, STEPS))


def test_stages_have_their_shares_and_lose_no_row(straight: Path) -> None:
    states = [loader(straight, step) for step in range(1, STEPS + 1)]
    quotas = [state["sources"]["english"]["quota"] for state in states]
    assert len(set(quotas[:6])) == len(set(quotas[6:12])) == len(set(quotas[12:18])) == len(set(quotas[18:])) == 1
    assert quotas[0] == quotas[12]
    assert quotas[6] > 2 * quotas[0]
    assert [state["row"] for state in states] == [*range(4, 25, 4)] * 3 + [*range(2, 13, 2)]
    # Across borders of stages of one length each source goes on where it stood.
    for before, after in pairwise(states[:18]):
        for name, place in after["sources"].items():
            old = before["sources"][name]
            assert (place["epoch"], place["row"]) >= (old["epoch"], old["row"])
            assert place["epoch"] > old["epoch"] or place["row"] - old["row"] <= 4


def test_validation_by_source(straight: Path, store: Path, english: Path) -> None:
    """The main source under the names and with the numbers of a single store; English left to right."""
    run = mixed(store, english)
    model = build(run.model, TokenStore.open(store).tokenizer.vocab_size, seed=1)
    found = Validator(run, 2).measure(model)
    alone = Validator(config(store), 2).measure(model)
    assert {name: found[name] for name in alone} == alone
    assert set(found) - set(alone) == {"validation/english/l2r/loss", "validation/english/l2r/bpb"}
    only = Validator(config(english, fim={"rate": 0.0}, data={"shortest_piece": None}), 2).measure(model)
    assert found["validation/english/l2r/loss"] == only["validation/l2r/loss"]
    logged = [line for line in lines(straight) if "validation/english/l2r/loss" in line]
    assert [line["step"] for line in logged] == [0, STEPS]
    cut = Validator(mixed(store, english, fim_rate=0.5), 2).measure(model)
    assert {"validation/english/psm_middle/loss", "validation/english/spm_terminator/loss"} <= set(cut)
    assert {name: cut[name] for name in alone} == alone


def test_a_store_may_move_and_a_cap_may_rise_but_not_a_share(straight: Path, tmp_path: Path, english: Path) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(straight, out)
    shutil.copytree(english, moved)
    for later in RunDir.open(out).steps():
        if later > 20:
            shutil.rmtree(out / "checkpoints" / f"step-{later}")
    file = out / "config.yaml"
    data = yaml.safe_load(file.read_text())
    source = data["data"]["sources"]["english"]
    source["share"] = 0.31
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    with pytest.raises(BadInput, match="has changed in data since"):
        resume(str(out))
    source.update(share=0.3, path=str(moved), max_epochs=60.0)
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    resume(str(out))
    assert_same(parameters(out, STEPS), parameters(straight, STEPS))


def test_achieved_shares_are_logged_and_survive_a_kill(straight: Path, tmp_path: Path) -> None:
    """Tokens by source since the run began, and the loss of each since the last line."""
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    for later in RunDir.open(out).steps():
        if later > 13:
            shutil.rmtree(out / "checkpoints" / f"step-{later}")
    resume(str(out))
    found, wanted = ([line for line in lines(path) if "train/loss" in line] for path in (out, straight))
    assert [line["step"] for line in found] == [10, 20, STEPS]
    for line, other in zip(found, wanted, strict=True):
        names = [name for name in other if name.startswith(("mixture/", "train/loss_"))]
        assert {name: line[name] for name in names} == {name: other[name] for name in names}
        assert line["mixture/code/share"] + line["mixture/english/share"] == pytest.approx(1.0)
        assert line["train/loss_english"] > 0.0
    tokens = [line["mixture/english/tokens"] for line in found]
    assert tokens == sorted(tokens)
    # Three stages with 30 % of English and one with 75 %, of 512 slots a step.
    assert found[-1]["mixture/english/share"] == pytest.approx(0.4125, abs=0.03)


def test_a_mixture_that_the_sources_do_not_give(store: Path, english: Path, tmp_path: Path) -> None:
    run = mixed(store, english, max_epochs=0.25)
    with pytest.raises(
        BadInput, match=r"source 'english' .* max_epochs is 0.25; the nearest shares .* code 0\."
    ) as caught:
        train(run, str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists(), "a refused run leaves its name free"
    trainer = start(mixed(store, english), tmp_path / "other", At(1, stop_with(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        trainer.run_to_end()
    table = trainer.notices[-1].splitlines()
    assert any(re.match(r"\s*the run\s+code\s+58\.2%", line) for line in table), trainer.notices
