"""A run knows its stores: from any folder, after they have moved, in a mixture, and when one was prepared again. And a
run that is refused leaves nothing behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.fake_runs import TINY
from tests.train.tiny_training import CALLBACKS, assert_same, config, lines, module, weights, write_store

from inlay.cli.main import main
from inlay.config import BadInput, InlayError, validate
from inlay.evaluate.report_data import load_run
from inlay.evaluate.run import evaluate
from inlay.evaluate.tasks.held_out import HeldOutConfig
from inlay.export.card import card, facts
from inlay.export.check import infilling_prompts
from inlay.infer import run_stores
from inlay.infer.open import open_model
from inlay.text.document import document
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter
from inlay.train.config import TrainRun
from inlay.train.run import resume, train
from inlay.train.sweep import Sweep, SweepConfig
from inlay.train.trainer import Trainer

TASK = HeldOutConfig(categories={"word": 4}, max_tokens=4)


def small(store: Path, **changes: Any) -> TrainRun:
    data = {"train": {"steps": 10}, "model": {"width": 16}, **changes}
    return config(store, **data)


def pages(folder: Path, tokenizer: Tokenizer) -> Path:
    """Another store with the same tokenizer."""
    with StoreWriter(folder, tokenizer) as writer:
        for number in range(12):
            text = module(70 + number)
            page = document(text, language="markdown", path=f"{number}.md", repo="r", licence=None, source="test")
            ids, starts = tokenizer.encode_with_starts([text])[0]
            writer.add("train" if number % 4 else "validation", page, np.asarray(ids), starts)
        writer.commit({})
    return folder


def cut_short(run: Path) -> dict[str, torch.Tensor]:
    """Takes the last checkpoint away, as if the run had been killed before it; returns what was in it."""
    expected = weights(run, 10)
    shutil.rmtree(run / "checkpoints" / "step-10")
    return expected


def without_record(run: Path) -> None:
    """As a version without one has left it."""
    (run / run_stores.FILE).unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store` and a finished `run` on it that was started with a relative path."""
    place = tmp_path_factory.mktemp("trained")
    write_store(place / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train(small(Path("store")), "run")
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it in another folder, where the recorded path leads to the original: that is taken away in tests."""
    shutil.copytree(trained, tmp_path / "place")
    return tmp_path / "place"


def test_a_run_goes_on_and_is_evaluated_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    train(small(Path("store")), "run")
    expected = cut_short(tmp_path / "run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    resume("../run")
    assert_same(weights(tmp_path / "run", 10), expected)
    assert evaluate("../run", config=TASK)["n"] == 4
    assert load_run("../run").corpus is not None
    # Its own configuration starts it again from here as well.
    again = validate(TrainRun, load_run("../run").config)
    assert TokenStore.open(str(again.data.path)).hash == TokenStore.open(tmp_path / "store").hash


@pytest.mark.parametrize("recorded", [True, False])
def test_run_and_store_that_moved_together_are_found(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "a" / "store")
    monkeypatch.chdir(tmp_path / "a")
    train(small(Path("store")), "run")
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    expected = cut_short(tmp_path / "b" / "run")
    if recorded:
        resume("run")
        assert_same(weights(tmp_path / "b" / "run", 10), expected)
        assert evaluate("run", config=TASK)["n"] == 4
        return
    without_record(tmp_path / "b" / "run")
    with pytest.raises(
        BadInput, match=r"is not there; if it is somewhere else: inlay train resume=run data.path=STORE"
    ):
        resume("run")


def test_a_store_that_moved_is_said_once(place: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, expected = place / "run", cut_short(place / "run")
    hidden = trained / "elsewhere"
    (trained / "store").rename(hidden)
    try:
        (place / "store").rename(place / "new name")
        with pytest.raises(BadInput, match=r"store .* is not there; if it is somewhere else: .* data.path=STORE"):
            resume(str(run))
        other = write_store(place / "other", first=100)
        with pytest.raises(BadInput, match=r"other is not the one that .* was trained on \(content \w+, not \w+\)"):
            resume(str(run), [f"data.path={other}"])
        assert main(["train", f"resume={run}", "train.steps=20"]) == 2
        assert main(["train", f"resume={run}", f"data.path='{place / 'new name'}'"]) == 0, capsys.readouterr().err
        assert_same(weights(run, 10), expected)
        assert evaluate(run, config=TASK)["n"] == 4, "it is known from then on"
        # Of a run that is complete too.
        (place / "new name").rename(place / "last")
        with pytest.raises(BadInput, match="is not there"):
            evaluate(run, config=TASK)
        with pytest.raises(BadInput, match="is complete: 10 of 10 steps; where its store is was noted"):
            resume(str(run), [f"data.path={place / 'last'}"])
        assert evaluate(run, config=TASK)["n"] == 4
    finally:
        hidden.rename(trained / "store")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_store_that_was_prepared_again_is_not_held_out(recorded: bool, place: Path) -> None:
    """What it holds out may be what the run has read. Every reader compares the content."""
    run, before = place / "run", TokenStore.open(place / "store").hash
    file = run / run_stores.FILE
    data = json.loads(file.read_text())
    # The run's own store: not that of the folder it was copied from.
    data["stores"][0]["path"] = str(place / "store")
    file.write_text(json.dumps({**data, "seal": run_stores._seal(data["stores"])}))
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace(str(load_run(run).config["data"]["path"]), str(place / "store")))
    expected = cut_short(run)
    shutil.rmtree(place / "store")
    write_store(place / "store", first=3)
    if not recorded:
        without_record(run)
    reason = r"is not the one that .* was trained on .* if it was prepared again, documents that it holds out may be"
    with pytest.raises(BadInput, match=reason):
        evaluate(run, config=TASK)
    with pytest.raises(BadInput, match=reason):
        resume(str(run))
    opened = open_model(run, device="cpu")
    assert "prompts from inlay's own code" in str(infilling_prompts(opened, count=2)[2])
    known = facts(opened)
    text = card("name", opened, known, "X", "float32", [])
    assert TokenStore.open(place / "store").hash not in text
    if recorded:
        assert known["data"]["hash"] == before
        assert (load_run(run).corpus or {})["content_hash"] == before
    else:
        assert "Unknown: nothing says what token store" in text
        assert load_run(run).corpus is None
    # On purpose it can be scored on.
    assert evaluate(run, data=place / "store", config=TASK)["n"] == 4
    assert expected


def test_a_mixture_knows_its_main_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = write_store(tmp_path / "code")
    text = pages(tmp_path / "pages", TokenStore.open(code).tokenizer)
    sources = {
        "english": {"path": text.name, "content": "english", "share": 0.3, "max_epochs": None},
        "code": {"path": "code", "max_epochs": None},
    }
    run = Path(str(train(small(code, data={"path": None, "sources": sources}), "run")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tmp_path / "run"
    result = evaluate(run, config=TASK)
    assert result["settings"]["corpus"]["source"] == (
        "validation split of 'code', the main store of the run's mixture"
    ), "which one is said"
    assert (load_run(run).corpus or {})["content_hash"] == TokenStore.open(code).hash
    opened = open_model(run, device="cpu")
    shown = card("name", opened, facts(opened), "X", "float32", [])
    assert "A mixture of 2 token stores" in shown
    assert all(TokenStore.open(one).hash in shown for one in (code, text))
    expected = cut_short(run)
    text.rename(tmp_path / "prose")
    with pytest.raises(BadInput, match=r"is not there; .* data.sources.NAME.path=STORE"):
        resume(str(run))
    with pytest.raises(BadInput, match="keeps its configuration"):
        resume(str(run), ["data.sources.english.share=0.5"])
    resume(str(run), ["data.sources.english.path=../prose"])
    assert_same(weights(run, 10), expected)
    without_record(run)
    assert evaluate(run, config=TASK)["n"] == 4, "one of an older version goes by its checkpoints"


def test_a_damaged_record_is_named(place: Path) -> None:
    run = place / "run"
    file = run / run_stores.FILE
    whole = file.read_bytes()
    expected = run_stores.recorded(run)
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        for bit in (1, 16):
            changed = bytearray(whole)
            changed[at] ^= bit
            file.write_bytes(bytes(changed))
            try:
                assert run_stores.recorded(run) == expected
            except InlayError as error:
                assert str(file) in str(error)
                assert "\n" not in str(error)
    for text in ("", "[]", '{"stores": 3}', "[" * 100_000):
        file.write_text(text)
        with pytest.raises(InlayError, match=r"damaged .*stores.json"):
            evaluate(run, config=TASK)


# ---- a run that is refused -----------------------------------------------------------------------------------------


def refusals(store: Path) -> dict[str, TrainRun]:
    source = {"path": str(store), "max_epochs": 0.001}
    return {
        "a mixture that the stores do not give": small(store, data={"path": None, "sources": {"code": source}}),
        "rows too short for their pieces": small(
            store, data={"path": str(store), "shortest_piece": 125}, train={"steps": 10}
        ),
    }


@pytest.mark.parametrize("name", list(refusals(Path("x"))))
def test_a_refused_run_leaves_its_name_free(name: str, store: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        train(refusals(store)[name], str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with pytest.raises(BadInput):
        train(refusals(store)[name], str(tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == [], "a folder that was there stays, as empty as it was"
    train(small(store), str(tmp_path / "run"))


@pytest.mark.parametrize("step", [1, 3])
def test_only_a_run_without_a_step_is_taken_away(
    step: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the first step, or later, when there is something to look at and to go on from."""
    honest, calls = Trainer._gradients, []

    def full(self: Trainer, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise RuntimeError("not enough memory")
        return honest(self, batch)

    monkeypatch.setattr(Trainer, "_gradients", full)
    with pytest.raises(RuntimeError, match="not enough memory"):
        train(small(store), str(tmp_path / "run"))
    assert (tmp_path / "run").exists() == (step > 1)


def test_the_last_line_has_the_last_validation(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(small(store), str(tmp_path / "run"))
    last = capsys.readouterr().err.splitlines()[-1]
    found = [line["validation/l2r/bpb"] for line in lines(tmp_path / "run") if "validation/l2r/bpb" in line]
    assert f"{found[-1]:.2f}" != f"{found[-2]:.2f}", "else this would say nothing"
    assert "step 10/10 · loss " in last
    assert f"held out {found[-1]:.2f} bits/byte" in last


@pytest.mark.parametrize("length", [32, 64])
def test_short_rows_are_sampled_in_half_of_them(
    length: int, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = {**CALLBACKS, "samples": {"kind": "samples", "times": 1, "gaps": 2, "probes": 1}}
    data = small(store, train={"steps": 10, "sequence_length": length}).to_dict()
    train(validate(TrainRun, {**data, "callbacks": callbacks}), str(tmp_path / "run"))
    assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 4
    assert f"samples are of at most {length // 2} tokens, half a row of {length}, not of 64" in capsys.readouterr().err


def test_a_sweep_goes_on_and_makes_runs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "a store")
    monkeypatch.chdir(tmp_path)
    base = [*TINY, "fim=characters", "data.path='a store'"]
    made = Sweep.create("sweep", validate(SweepConfig, {"name": "test", "base": base, "arms": {"one": []}}))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    sweep = Sweep.open("../sweep")
    assert sweep.config == made.config
    shutil.rmtree(tmp_path / "sweep" / "one-seed0")  # as of a process that was killed while it made it
    for arm in (sweep.arm(sweep.slots()[0]), *sweep.arms):
        assert arm.config.data.path == str(tmp_path / "a store")


def test_where_a_run_starts_from_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = small(Path("store"), start_from="other/run").anchored()
    assert (run.data.path, run.start_from) == (str(tmp_path / "store"), str(tmp_path / "other" / "run"))
    assert run.anchored() == run
