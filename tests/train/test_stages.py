"""Runs whose rows, batch, mixture of tasks and rotary embedding change on the way: exact resumption, and what is left
at the end."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.train.test_kill import check
from tests.train.tiny_training import MODEL, assert_same, config, lines, module, start, stop_with
from torch import Tensor

from inlay.config import validate
from inlay.config.run_dir import RunDir
from inlay.export.hf import export_hf
from inlay.fim.format import Kind
from inlay.infer.open import open_model
from inlay.model import ModelConfig, build, checkpoint
from inlay.model.parts import RopeScaling
from inlay.text.document import document
from inlay.text.store import TokenStore
from inlay.text.writer import StoreWriter
from inlay.train.callback import Callback
from inlay.train.config import TrainRun
from inlay.train.plan import TIMED_STEPS
from inlay.train.run import resume, train
from inlay.train.stage import with_rotary
from inlay.train.trainer import Interrupted, Trainer

LINEAR = {"kind": "linear", "factor": 2.0}
STAGES: list[dict[str, Any]] = [
    {"name": "short", "share": 0.4},
    {"name": "long", "share": 0.3, "sequence_length": 256, "rows": 2, "rope_theta": 1e5, "rewarm_steps": 2},
    {"name": "back", "share": 0.1},
    {"name": "last", "share": 0.2, "sequence_length": 256, "rows": 2, "accumulation": 2, "rope_theta": 1e5}
    | {"rope_scaling": LINEAR, "fim_rate": 1.0, "lr": 0.5},
]
BORDERS = (8, 14, 16)
EVERY_STEP = {
    "metrics": {"kind": "metrics"},
    "checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 1, "keep": 40},
}


AT_THE_END = {
    "metrics": {"kind": "metrics"},
    "checkpoints": {"kind": "checkpoints", "every_seconds": None, "every_steps": 100, "keep": 2},
}


def staged(store: Path, **changes: Any) -> TrainRun:
    changes = {"callbacks": EVERY_STEP, "stages": STAGES, **changes}
    return validate(TrainRun, {**config(store, **changes).to_dict(), "callbacks": changes["callbacks"]})


def weights(run: Path, step: int) -> dict[str, Tensor]:
    """Those of a checkpoint. Where they are the same some steps later, so was the state of the optimizer."""
    folder = run / "checkpoints" / f"step-{step}"
    checkpoint.read_record(folder, checkpoint.WEIGHTS)
    return checkpoint.read_tensors(folder, checkpoint.WEIGHTS)


@pytest.fixture(scope="module")
def straight(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRun, Path]:
    """Twenty steps in four stages, one as the first, with every checkpoint."""
    torch.set_num_threads(1)
    run = staged(store)
    return run, train(run, str(tmp_path_factory.mktemp("staged") / "run")).path


class Seen(Callback):
    """Notes what each step is trained on."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.plain: list[float] = []
        self.thetas: list[float] = []
        self.phases: list[str] = []

    def phase(self, trainer: Trainer, name: str) -> None:
        self.phases.append(name)

    def update(self, trainer: Trainer, batch: Any) -> None:
        self.shapes.append(batch.tokens.shape)
        self.plain.append(float((batch.kinds == Kind.L2R).mean()))
        self.thetas.append(trainer.model.layers[0].mixer.config.rope_theta)


def test_each_stage_trains_what_the_plan_says(store: Path, straight: tuple[TrainRun, Path], tmp_path: Path) -> None:
    seen = Seen()
    run, expected = straight
    trainer = start(validate(TrainRun, {**run.to_dict(), "callbacks": AT_THE_END}), tmp_path / "run", seen)
    trainer.run_to_end()
    assert seen.shapes == [(4, 128)] * 8 + [(2, 256)] * 6 + [(4, 128)] * 2 + [(2, 256)] * 4
    assert seen.thetas == [1e4] * 8 + [1e5] * 6 + [1e4] * 2 + [1e5] * 4
    assert min(max(seen.plain[:8]), max(seen.plain[8:16])) > 0.0
    assert seen.plain[16:] == [0.0] * 4
    assert [name for name in seen.phases if name.startswith("stage")] == ["stage long", "stage back", "stage last"]
    assert trainer.tokens == trainer.plan.tokens(20) == 20 * 512
    assert trainer.plan.context(trainer.stage) == 256
    logged = {line["step"]: line for line in lines(tmp_path / "run") if "train/loss" in line}
    assert sorted(logged) == [10, 20]
    assert logged[20]["lr_multiplier"] == trainer.plan.multiplier(19)
    assert_same(weights(tmp_path / "run", 20), weights(expected, 20))


@pytest.mark.parametrize("step", [1, *(border + near for border in BORDERS for near in (-1, 0, 1)), 19])
def test_killed_at_any_step_and_resumed_is_straight(straight: tuple[TrainRun, Path], tmp_path: Path, step: int) -> None:
    """Inside, at and right behind a border: all that was saved later is gone, as if the process had died there."""
    _, expected = straight
    out = tmp_path / "run"
    shutil.copytree(expected, out)
    drop_behind(out, step)
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))
    found, wanted = (checkpoint.read_record(path / "checkpoints" / "step-20") for path in (out, expected))
    assert all(found[key] == wanted[key] for key in ("loader", "model", "tokens", "sequence_length"))


def drop_behind(run: Path, step: int) -> None:
    """Takes away what was saved behind `step`; what is trained again is saved at the end only."""
    data = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**data, "callbacks": AT_THE_END}))
    for later in RunDir.open(run).steps():
        if later > step:
            shutil.rmtree(run / "checkpoints" / f"step-{later}")


class StopsAtPhase(Callback):
    """Asks the run to stop while it goes over to a stage."""

    def __init__(self, name: str) -> None:
        self.name = name

    def phase(self, trainer: Trainer, name: str) -> None:
        if name == self.name:
            stop_with(signal.SIGTERM)(trainer)


@pytest.mark.parametrize(("name", "border"), [("stage long", 8), ("stage back", 14), ("stage last", 16)])
def test_stopped_between_two_stages(straight: tuple[TrainRun, Path], tmp_path: Path, name: str, border: int) -> None:
    """The next stage is entered, and none of its steps is done: it is entered again, with the same rows."""
    run, expected = straight
    out = tmp_path / "run"
    trainer = start(validate(TrainRun, {**run.to_dict(), "callbacks": AT_THE_END}), out, StopsAtPhase(name))
    with pytest.raises(Interrupted, match=f"SIGTERM at step {border}"):
        trainer.run_to_end()
    assert RunDir.open(out).steps()[-1] == border
    resume(str(out))
    assert_same(weights(out, 20), weights(expected, 20))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments(store: Path, tmp_path: Path) -> None:
    callbacks = {**EVERY_STEP, "checkpoints": {**EVERY_STEP["checkpoints"], "every_steps": 3, "keep": 2}}
    check(staged(store, train={"steps": 60}, callbacks=callbacks), tmp_path, kills=10, longest=0.6)


def test_the_last_rotary_embedding_and_length_go_with_the_weights(
    straight: tuple[TrainRun, Path], tmp_path: Path
) -> None:
    """In inference and in exports; and at a checkpoint of an earlier stage, that stage's."""
    _, run = straight
    first, last = (open_model(run / "checkpoints" / f"step-{step}", device="cpu") for step in (8, 20))
    mixers = [opened.model.layers[0].mixer.config for opened in (first, last)]
    assert [mixer.rope_theta for mixer in mixers] == [1e4, 1e5]
    assert [mixer.rope_scaling for mixer in mixers] == [None, RopeScaling(kind="linear", factor=2.0)]
    assert [opened.sequence_length for opened in (first, last)] == [128, 256]
    # A stage of short rows behind a long one with other angles: those of the long one are gone.
    assert open_model(run / "checkpoints" / "step-16", device="cpu").sequence_length == 128
    export_hf(last, tmp_path / "out")
    again = open_model(tmp_path / "out", device="cpu")
    assert again.sequence_length == 256
    tokens = torch.arange(40)[None] % 300
    positions = torch.arange(40)[None]
    with torch.no_grad():
        ours = last.model(tokens, positions)
        assert torch.equal(again.model(tokens, positions), ours)
        # The witness: transformers reads the exported folder and rotates by its own code.
        peer = _peer(tmp_path / "out")
        assert torch.allclose(peer(input_ids=tokens).logits, last.model.logits(ours), atol=1e-4)
        # The rotary embedding is part of what the weights mean: without it they say something else.
        last.model.adopt(first.model.config)
        assert not torch.allclose(last.model(tokens, positions), ours, atol=1e-2)


def _peer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_a_run_goes_on_with_the_rotary_embedding_it_ended_with(
    store: Path, straight: tuple[TrainRun, Path], tmp_path: Path
) -> None:
    _, run = straight
    second = train(config(store, start_from=str(run), train={"steps": 2}), str(tmp_path / "second")).path
    assert open_model(second, device="cpu").model.layers[0].mixer.config.rope_theta == 1e5


def test_minutes_are_planned_over_all_stages(store: Path, tmp_path: Path) -> None:
    """However few steps the time allows, what was timed is of the first stage, and resuming makes the same plan."""
    stages = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "sequence_length": 256, "rows": 2}]
    run = staged(store, stages=stages, train={"steps": None, "minutes": 1e-6})
    trainer = start(run, tmp_path / "run")
    trainer.run_to_end()
    assert trainer.total_steps == trainer.step == TIMED_STEPS + 2
    assert [stage.stop for stage in trainer.plan.stages] == [TIMED_STEPS + 1, TIMED_STEPS + 2]
    assert trainer.tokens == trainer.plan.tokens(trainer.step)
    out = tmp_path / "again"
    shutil.copytree(tmp_path / "run", out)
    shutil.rmtree(out / "checkpoints" / f"step-{TIMED_STEPS + 2}")
    resume(str(out))
    assert_same(weights(out, TIMED_STEPS + 2), weights(tmp_path / "run", TIMED_STEPS + 2))


def test_another_share_of_infilling_continues_the_same_rows(store: Path, tmp_path: Path) -> None:
    stages = [{"name": "plain", "share": 0.5, "fim_rate": 0.0}, {"name": "cut", "share": 0.5, "fim_rate": 1.0}]
    seen = Seen()
    run = staged(store, stages=stages, train={"steps": 4})
    trainer = start(run, tmp_path / "run", seen)
    trainer.run_to_end()
    plain = start(config(store, train={"steps": 4}), tmp_path / "plain")
    plain.run_to_end()
    assert trainer.loader_state == plain.loader_state
    assert [share > 0.0 for share in seen.plain] == [True, True, False, False]


def test_a_mixture_changes_at_a_border(store: Path, tmp_path: Path) -> None:
    sources = {
        "code": {"path": str(store), "share": 0.9, "max_epochs": None},
        "english": {"path": str(second_store(store, tmp_path / "other")), "share": 0.1, "content": "english"},
    }
    stages = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "shares": {"code": 0.2, "english": 0.8}}]
    data = staged(store).to_dict()
    run = validate(TrainRun, {**data, "data": {"sources": sources, "shortest_piece": 24}, "stages": stages})
    plain = Seen()
    trainer = start(run, tmp_path / "run", plain)
    trainer.run_to_end()
    # English is trained left to right: of it comes the plain text that the second half has more of.
    halves = [sum(shares) / 10 for shares in (plain.plain[:10], plain.plain[10:])]
    assert halves[1] > halves[0] + 0.2
    for step in (9, 10, 11):
        out = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "run", out)
        drop_behind(out, step)
        resume(str(out))
        assert_same(weights(out, 20), weights(tmp_path / "run", 20))


def second_store(store: Path, folder: Path) -> Path:
    """Other documents in the tokens of `store`."""
    tokenizer = TokenStore.open(store).tokenizer
    with StoreWriter(folder, tokenizer) as writer:
        for number in range(24):
            item = document(
                module(500 + number), language="english", path=f"e{number}.md", repo="e", licence="MIT", source="test"
            )
            ids, starts = tokenizer.encode_with_starts([item.text])[0]
            writer.add("train" if number % 6 else "validation", item, np.asarray(ids), starts)
        writer.commit({})
    return folder


def test_only_the_rotary_embedding_may_change() -> None:
    model = build(validate(ModelConfig, MODEL), 300, seed=0)
    changed = with_rotary(model.config, 1e5, None)
    assert changed.blocks["full"].mixer.rope_theta == 1e5
    assert validate(ModelConfig, changed.to_dict()) == changed
    tokens = torch.arange(24)[None]
    before = _hidden(model, tokens)
    model.adopt(changed)
    fresh = build(changed, 300, seed=0)
    assert torch.equal(_hidden(model, tokens), _hidden(fresh, tokens))
    assert not torch.allclose(_hidden(model, tokens), before, atol=1e-4)
    for change in ({"head_softcap": 30.0}, {"norm_eps": 1e-5}, {"layers": 3}, {"document_masks": False}):
        other = validate(ModelConfig, {**MODEL, **change})
        with pytest.raises(ValueError, match="rotary embedding and nothing else"):
            model.adopt(other)
    narrow = {**MODEL["blocks"]["full"], "mixer": {**MODEL["blocks"]["full"]["mixer"], "window": 8}}
    with pytest.raises(ValueError, match="rotary embedding and nothing else"):
        model.adopt(validate(ModelConfig, {**MODEL, "blocks": {"full": narrow}}))
    assert model.config == changed


def _hidden(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, torch.arange(tokens.shape[1])[None])


@pytest.mark.parametrize("shared", [False, True])
def test_every_layer_and_auxiliary_block_changes(shared: bool) -> None:
    full = MODEL["blocks"]["full"]
    local = {**full, "mixer": {**full["mixer"], "window": 8, "rope_theta": 5e3}}
    pattern = {"blocks": {"full": full, "local": local}, "pattern": ["full", "local"], "layers": 4}
    data = {**MODEL, **pattern, "mtp": {"weight": 0.1}, "kv_share": {"kind": "pairs" if shared else "none"}}
    model = build(validate(ModelConfig, data), 300, seed=0)
    model.adopt(with_rotary(model.config, 1e6, RopeScaling(kind="llama3", factor=8.0, original_context=64)))
    assert model.mtp is not None
    for block in (*model.layers, model.mtp.block):
        assert block.mixer.config.rotation == (1e6, 16, (8.0, 1.0, 4.0, 64.0))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_blocks_notice_another_rotary_embedding() -> None:
    """A compiled graph that kept the old angles would train on without a sign of it."""
    model = build(validate(ModelConfig, MODEL), 300, seed=0)
    tokens = torch.arange(48).reshape(2, 24)
    positions = torch.arange(24).expand(2, -1)
    blocks = [torch.compile(block, dynamic=False) for block in model.blocks]
    with torch.no_grad():
        for theta in (1e4, 1e5, 1e6, 1e4):
            model.adopt(with_rotary(model.config, theta, None))
            assert torch.allclose(model(tokens, positions, blocks), model(tokens, positions), atol=1e-5)
