"""The whole loss of a step against slow definitions: document by document, slot by slot, in fp64."""

import dataclasses
import itertools
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.tiny_training import (
    MODEL,
    At,
    assert_same,
    config,
    iter_batches,
    lines,
    start,
    stop_with,
    weights,
)
from torch import Tensor
from torch.nn import functional

from inlay.config import ConfigError, validate
from inlay.config.run_dir import RunDir
from inlay.data.loader import Batch, LoaderState
from inlay.fim.format import Region
from inlay.infer.open import open_model
from inlay.model import ModelConfig, Transformer, build
from inlay.train.compiler import why_not_compiled
from inlay.train.objectives import MicroBatchLoss, Objectives, share_to_come, token_after_next
from inlay.train.optimizer import route
from inlay.train.run import train
from inlay.train.trainer import Interrupted, Trainer
from inlay.train.validate import Validator

VOCAB = 400
BOTH: dict[str, Any] = {"mtp": {"weight": 0.3}, "horizon": {"weight": 0.7}}


def model_of(seed: int = 0, **options: Any) -> Transformer:
    """Weights wide enough that every token matters, and gains that differ from one."""
    wide = {"init_std": 0.2, "embedding_std": 1.0}
    model = build(validate(ModelConfig, {**MODEL, **wide, **options}), VOCAB, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def batch(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Rows of the loader, with weights that differ from slot to slot and are zero for some."""
    trainer = start(config(store), tmp_path_factory.mktemp("batch") / "run")
    found = next(iter_batches(trainer))
    generator = np.random.default_rng(0)
    drawn = generator.uniform(0.5, 2.0, found.weights.shape) * (generator.random(found.weights.shape) < 0.8)
    return dataclasses.replace(found, weights=(found.weights * drawn).astype(np.float32))


def documents(batch: Batch) -> list[tuple[int, slice]]:
    """(row, slots) of each document, padding included."""
    found = []
    for row, positions in enumerate(batch.positions):
        borders = [*np.flatnonzero(positions == 0), len(positions)]
        found += [(row, slice(*pair)) for pair in itertools.pairwise(borders)]
    return found


def reference(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The loss from its definition: every document alone, its n ids with the terminator in n - 1 slots."""
    mtp, horizon = model.mtp, model.horizon
    assert mtp is not None
    assert horizon is not None

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + model.config.norm_eps).sqrt() * mtp.get_parameter(name)

    names = ("next", "mtp", "horizon")
    sums = {name: torch.zeros((), dtype=torch.float64) for name in names}
    totals = dict.fromkeys(names, 0.0)
    for row, slots in documents(batch):
        ids = torch.tensor([*batch.tokens[row, slots], batch.targets[row, slots][-1]], dtype=torch.int64)
        weight = batch.weights[row, slots].tolist()
        positions = torch.arange(len(ids) - 1)[None]
        hidden = model(ids[None, :-1], positions)
        logits = model.logits(hidden)[0].double()
        behind = model.embedding(ids[None, 1:])
        joined = torch.cat([norm(hidden, "hidden_norm.weight"), norm(behind, "embedding_norm.weight")], -1)
        states, _ = mtp.block(joined @ mtp.projection.weight.T, model.context(positions), None)
        deeper = model.logits(norm(states, "norm.weight"))[0].double()
        shares = (hidden[0] @ horizon.output.weight[0]).double().sigmoid()
        for slot in range(len(ids) - 1):
            sums["next"] = sums["next"] + weight[slot] * functional.cross_entropy(logits[slot], ids[slot + 1])
            totals["next"] += weight[slot]
            if slot + 2 < len(ids):
                sums["mtp"] = sums["mtp"] + weight[slot + 1] * functional.cross_entropy(deeper[slot], ids[slot + 2])
                totals["mtp"] += weight[slot + 1]
        middle = [slot for slot, region in enumerate(batch.regions[row, slots]) if region == Region.MIDDLE]
        if middle:
            assert batch.regions[row, slots][middle[-1] + 1] == Region.TERMINATOR
            for number, slot in enumerate([*middle, middle[-1] + 1]):
                if weight[slot] > 0.0:
                    sums["horizon"] = sums["horizon"] + (shares[slot] - (len(middle) - number) / len(middle)).abs()
                    totals["horizon"] += 1.0
    means = {name: sums[name] / totals[name] for name in names}
    config = model.config
    assert config.mtp is not None
    assert config.horizon is not None
    total = means["next"] + config.mtp.weight * means["mtp"] + config.horizon.weight * means["horizon"]
    return total, {name: float(value.detach()) for name, value in means.items()}


def gradients(model: Transformer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", [4, 1])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_value_and_gradients_equal_the_definition(batch: Batch, rows: int, softcap: float | None) -> None:
    """Whole and in micro-batches."""
    model = model_of(**BOTH, head_softcap=softcap)
    total, means = reference(model, batch)
    total.backward()
    expected = gradients(model)
    assert expected.keys() == dict(model.named_parameters()).keys()
    model.zero_grad()
    measured = Objectives(model).backward(batch, rows)
    each = torch.cat(measured.losses).numpy()
    found = {name: float(value) / weight for name, (value, weight) in measured.sums.items()}
    found["next"] = float((each * batch.weights.reshape(-1)).sum() / batch.weights.sum())
    assert found == pytest.approx(
        {"next": means["next"], "mtp_loss": means["mtp"], "horizon_error": means["horizon"]}, rel=1e-5
    )
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-4, msg=name)


def test_mtp_sees_its_own_document_up_to_the_next_token() -> None:
    """Every slot has an id of its own, so the gradient of the table says which tokens an output depends on."""
    lengths = (5, 1, 7, 3)
    count = sum(lengths)
    ids = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))[: count + len(lengths)].split(
        [length + 1 for length in lengths]
    )
    tokens, targets = torch.cat([part[:-1] for part in ids])[None], torch.cat([part[1:] for part in ids])[None]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    model = model_of(tie_embeddings=False, **BOTH)
    context = model.context(positions)
    assert model.mtp is not None
    deeper = MicroBatchLoss(model, 0.0).deeper(model.mtp, model(tokens, positions, None, context), targets, context)
    slot = 0
    for part in ids:
        for index in range(len(part) - 1):
            (gradient,) = torch.autograd.grad(deeper[0, slot].sum(), model.embedding.weight, retain_graph=True)
            assert set(gradient.abs().sum(-1).nonzero().flatten().tolist()) == set(part[: index + 2].tolist())
            slot += 1


def test_targets_of_a_row_by_hand() -> None:
    """Documents of 3, 1 and 2 slots, and two of padding."""
    row = {
        "tokens": [1, 2, 3, 5, 7, 8, 0, 0],
        "targets": [2, 3, 4, 6, 8, 9, 0, 0],
        "positions": [0, 1, 2, 0, 0, 1, 0, 1],
        "weights": [1.0, 0.5, 0.25, 1.0, 1.0, 2.0, 0.0, 0.0],
        "remaining": [-1, 1, 0, 0, 1, 0, -1, -1],
    }
    kinds = dict.fromkeys(("tokens", "targets", "positions", "remaining"), np.int32) | {"weights": np.float32}
    arrays = {name: np.array([values], dtype=kinds[name]) for name, values in row.items()}
    batch = Batch(**arrays, kinds=arrays["tokens"], regions=arrays["tokens"], after=LoaderState(), sources=np.zeros(1))
    after = token_after_next(batch)
    assert after.weights.tolist() == [[0.5, 0.25, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]]
    assert after.values[after.weights > 0].tolist() == [3, 4, 9]
    share = share_to_come(batch)
    # The empty middle of the second document has nothing to measure.
    assert share.weights.tolist() == [[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0]]
    assert share.values[share.weights > 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    untrained = share_to_come(dataclasses.replace(batch, weights=np.zeros_like(batch.weights)))
    assert not untrained.weights.any()


def test_nothing_to_learn_is_a_gradient_of_zero(batch: Batch) -> None:
    model = model_of(**BOTH)
    empty = dataclasses.replace(batch, weights=np.zeros_like(batch.weights))
    measured = Objectives(model).backward(empty, 2)
    assert [weight for _, weight in measured.sums.values()] == [0.0, 0.0]
    assert gradients(model).keys() == dict(model.named_parameters()).keys()
    assert not any(gradient.any() for gradient in gradients(model).values())


@pytest.mark.parametrize("extra", ["mtp", "horizon"])
def test_each_is_independent_of_the_other(batch: Batch, extra: str) -> None:
    """One alone measures what it measures beside the other, and adds its parameters only."""
    alone, both = model_of(**{extra: BOTH[extra]}), model_of(**BOTH)
    names = {name for name, _ in alone.named_parameters()} - {name for name, _ in model_of().named_parameters()}
    assert names
    assert all(name.startswith(f"{extra}.") for name in names)
    alone.load_state_dict({name: both.state_dict()[name] for name in alone.state_dict()})
    (name, (value, weight)), *others = Objectives(alone).backward(batch, 4).sums.items()
    assert not others
    expected = Objectives(both).backward(batch, 4).sums[name]
    torch.testing.assert_close(value, expected[0])
    assert weight == expected[1]


def test_the_model_draws_the_same_weights_with_and_without() -> None:
    for tied in (True, False):
        options = {**MODEL, "tie_embeddings": tied}
        plain = build(validate(ModelConfig, options), VOCAB, seed=3).state_dict()
        whole = build(validate(ModelConfig, {**options, **BOTH}), VOCAB, seed=3)
        assert_same({name: whole.state_dict()[name] for name in plain}, plain)
        assert whole.mtp is not None
        stds = [
            float(whole.mtp.get_parameter(f"{name}.weight").detach().std())
            for name in ("projection", "block.mixer.output")
        ]
        assert stds == pytest.approx([0.02, 0.01], rel=0.1)
        whole.drop_auxiliary()
        assert whole.state_dict().keys() == plain.keys()


def test_a_reader_of_shared_keys_gets_its_own_in_the_mtp_block(batch: Batch) -> None:
    model = model_of(kv_share={"kind": "pairs"}, mtp={"weight": 0.1})
    assert model.layout[-1].kv_from == 0
    assert model.mtp is not None
    assert model.mtp.block.mixer.get_submodule("key")
    Objectives(model).backward(batch, 4)
    assert gradients(model).keys() == dict(model.named_parameters()).keys()


def test_routing() -> None:
    """The horizon's weight has one row: no spectrum for Muon to flatten."""
    routed = route(model_of(**BOTH))
    assert "horizon.output.weight" in routed["vector"]
    assert "mtp.projection.weight" in routed["matrix"]
    assert {"mtp.norm.weight", "mtp.hidden_norm.weight", "mtp.embedding_norm.weight"} <= routed["vector"].keys()


def test_a_horizon_without_middles_is_refused(store: Path) -> None:
    with pytest.raises(ConfigError, match=r"fim\.rate 0") as caught:
        config(store, model={"horizon": {"weight": 0.1}}, fim={"rate": 0.0})
    assert "\n" not in str(caught.value)


# ---- in the trainer --------------------------------------------------------------------------------------------------


def test_a_run_learns_logs_and_resumes(store: Path, tmp_path: Path) -> None:
    """Bit for bit, with both; what it leaves opens for inference without them."""
    run = config(store, model={**BOTH, "head_softcap": 10.0}, train={"steps": 30})
    straight = train(run, str(tmp_path / "straight")).path
    logged = [line for line in lines(straight) if "train/loss" in line]
    for name, least in (("loss", 0.85), ("mtp_loss", 0.9), ("horizon_error", 0.95)):
        assert logged[-1][f"train/{name}"] < least * logged[0][f"train/{name}"], name
    assert logged[0]["train/horizon_error"] < 0.5
    trainer = start(run, tmp_path / "run", At(13, stop_with(signal.SIGTERM)))
    with pytest.raises(Interrupted):
        trainer.run_to_end()
    again = Trainer(run, RunDir.open(tmp_path / "run"))
    again.load()
    again.run_to_end()
    assert_same(weights(tmp_path / "run", 30), weights(straight, 30))
    resumed = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    assert [line["train/mtp_loss"] for line in resumed] == [line["train/mtp_loss"] for line in logged]
    opened = open_model(straight)
    trained = weights(straight, 30)
    assert opened.model.mtp is None
    assert opened.model.horizon is None
    assert torch.equal(opened.model.embedding.weight, trained["weights.safetensors:embedding.weight"])
    assert "weights.safetensors:mtp.projection.weight" in trained


def test_the_loss_that_is_logged_is_that_of_the_next_token(store: Path, tmp_path: Path) -> None:
    logged = []
    for index, options in enumerate(({}, BOTH)):
        run = config(store, model={**options, "head_softcap": 2.0}, train={"steps": 1})
        logged.append(lines(train(run, str(tmp_path / str(index))).path)[1])
    names = [name for name in logged[0] if name.startswith("train/loss")]
    assert "train/loss_middle" in names
    assert [logged[0][name] for name in names] == [logged[1][name] for name in names]
    assert {"train/mtp_loss", "train/horizon_error"} <= logged[1].keys() - logged[0].keys()


def test_validation_measures_the_next_token_with_the_cap(store: Path) -> None:
    model = model_of(**BOTH, head_softcap=2.0)
    validator = Validator(config(store), rows=2)
    found = validator.measure(model)
    batch = validator._batches["l2r"]
    tokens, targets, positions = (torch.from_numpy(a).long() for a in (batch.tokens, batch.targets, batch.positions))
    with torch.no_grad():
        each = functional.cross_entropy(
            model.logits(model(tokens, positions)).flatten(0, 1), targets.flatten(), reduction="none"
        )
    chosen = torch.from_numpy(batch.regions.reshape(-1) != Region.PADDING)
    assert found["validation/l2r/loss"] == pytest.approx(float(each[chosen].mean()), rel=1e-5)
    model.drop_auxiliary()
    assert validator.measure(model) == found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_and_eager_agree(batch: Batch) -> None:
    reason = why_not_compiled(torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)
    model = model_of(**BOTH, head_softcap=5.0)
    objectives = Objectives(model)
    eager = objectives.backward(batch, 4)
    expected = gradients(model)
    model.zero_grad()
    torch._dynamo.reset()
    objectives.compile()
    compiled = objectives.backward(batch, 4)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3, msg=name)
    for name, (value, weight) in compiled.sums.items():
        assert float(value) == pytest.approx(float(eager.sums[name][0]), rel=1e-4)
        assert weight == eager.sums[name][1]
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
