"""Routing, weight decay, AdamW against torch.optim's in float64, and what every optimizer must keep. Muon's own:
`test_muon.py`, several processes: `test_muon_ranks.py`."""

import json
import re
from typing import Any

import pytest
import torch
from tests.model.members import MEMBERS
from tests.model.presets import PRESETS, preset
from tests.train.muon_reference import give_gradients, weights
from tests.train.tiny_training import MODEL
from torch import nn

from inlay.config import BadInput, ConfigError, InlayError, validate
from inlay.model import ModelConfig, Transformer, build
from inlay.train.optimizer import OptimizerConfig, optimizers, route
from inlay.train.optimizers.adamw import AdamWConfig
from inlay.train.optimizers.muon import MuonConfig
from inlay.train.routing import print_routing, routing_table

EVERY = sorted(optimizers.members())
SMALL = [name for name in PRESETS if not name.endswith(("-1b", "-0.69b"))]


def model(seed: int = 0, **options: object) -> Transformer:
    return build(validate(ModelConfig, {**MODEL, **options}), 40, seed=seed)


def config(kind: str, **options: Any) -> OptimizerConfig:
    made = validate(optimizers.get(kind), {"kind": kind, **options})
    assert isinstance(made, OptimizerConfig)
    return made


# ---- routing ---------------------------------------------------------------------------------------------------------


BY_NAME = {
    "embedding": r"embedding\.weight",
    "head": r"head\.weight",
    "matrix": r"(mtp\.)?(block|blocks\.\d+)\.(mixer|mlp)\."
    r"(query|key|value|output|input|gate|up|down|(query|kv)_(up|down))\.weight|mtp\.projection\.weight",
    "vector": r".*norm\.(weight|bias)|.*\.bias|.*\.mixer\.kernel|horizon\.output\.weight",
}
"""What each class holds, written out: routing goes by shapes."""


def class_by_name(name: str) -> str:
    (found,) = (kind for kind, pattern in BY_NAME.items() if re.fullmatch(pattern, name))
    return found


def on_meta(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config, 1000)


@pytest.mark.parametrize("name", [*SMALL, *MEMBERS])
def test_every_parameter_is_routed_once_by_what_it_is(name: str) -> None:
    """All small presets, and every member of the architectures' own tests: biases, LayerNorm, untied heads, latents."""
    module = on_meta(preset(name) if name in SMALL else validate(ModelConfig, MEMBERS[name]))
    found = {key: kind for kind, group in route(module).items() for key in group}
    assert found == {key: class_by_name(key) for key, _ in module.named_parameters()}
    assert ("head.weight" in found) != module.config.tie_embeddings


def test_a_table_that_would_go_to_muon_is_refused() -> None:
    with pytest.raises(InlayError, match=r"embedding table '0\.embedding' is routed as matrix"):
        route(nn.Sequential(model()))  # a wrapper changes the names that routing goes by


def test_a_parameter_of_two_classes_is_refused() -> None:
    module = model()
    module.blocks[0].mlp.up.weight = module.embedding.weight
    with pytest.raises(
        InlayError, match=r"routed twice: as embedding by 'embedding\.weight' and as matrix by 'blocks\.0"
    ):
        route(module)


def test_frozen_parameters_are_left_out() -> None:
    module = model()
    module.embedding.weight.requires_grad_(False)
    assert not route(module)["embedding"]


def test_a_row_or_column_is_a_vector() -> None:
    module = nn.ModuleDict({"horizon": nn.Linear(8, 1, bias=True)})
    assert set(route(module)["vector"]) == {"horizon.weight", "horizon.bias"}


# ---- rates and decay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("member", ["attention", "starcoder2", "mla-query-rank", "lfm2", "mixattention"])
def test_weight_decay_is_for_matrices(kind: str, member: str) -> None:
    """Zero gradients: only decay moves anything, by the rate (without a factor) times the decay."""
    extra = {"mtp": {"weight": 0.1}, "horizon": {"weight": 0.1}}
    module = build(validate(ModelConfig, {**MEMBERS[member], **extra}), 40, seed=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5)  # biases too
    optimizer = config(kind, lr=0.1, weight_decay=0.5).build(module)
    before = weights(module)
    give_gradients(module, 0, scale=0.0)
    optimizer.step(0.5, 0)
    for name, value in weights(module).items():
        factor = 1.0 - 0.05 * 0.5 if class_by_name(name) == "matrix" else 1.0
        torch.testing.assert_close(value, before[name] * factor, msg=name)


@pytest.mark.parametrize("kind", EVERY)
def test_other_classes_decay_when_asked(kind: str) -> None:
    """Each at its own rate; with `linear` all decays are at their share of the run to come."""
    module = model(tie_embeddings=False)
    options = {"weight_decay": 0.5, "embedding_decay": 0.25, "vector_decay": 0.125, "decay_schedule": "linear"}
    rates = {"lr": 0.1, "embedding_lr": 0.2, "head_lr": 0.4}
    made = config(kind, **options, **rates)
    vector = made.treatments()["vector"].lr
    optimizer = made.build(module)
    before = weights(module)
    give_gradients(module, 0, scale=0.0)
    optimizer.step(1.0, 0, 0.25)
    shares = {"matrix": 0.1 * 0.5, "embedding": 0.2 * 0.25, "head": 0.4 * 0.25, "vector": vector * 0.125}
    for name, value in weights(module).items():
        torch.testing.assert_close(value, before[name] * (1.0 - 0.25 * shares[class_by_name(name)]), msg=name)


@pytest.mark.parametrize("kind", EVERY)
def test_embedding_and_head_have_rates_of_their_own(kind: str) -> None:
    """The first step of AdamW goes by the sign of the gradient: its size is the rate."""
    for options, embedding, head in (
        ({"embedding_lr": 0.2, "head_lr": 0.4}, 0.2, 0.4),
        ({"embedding_lr": 0.2}, 0.2, 0.2),
    ):
        module = model(tie_embeddings=False)
        before = weights(module)
        optimizer = config(kind, **options).build(module)
        give_gradients(module, 0)
        optimizer.step(0.5, 0)
        for name, rate in (("embedding.weight", embedding), ("head.weight", head)):
            moved = (weights(module)[name] - before[name]).abs()
            torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * rate), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", EVERY)
def test_a_rate_for_a_head_that_is_the_embedding_is_refused(kind: str) -> None:
    with pytest.raises(BadInput, match=r"optim\.head_lr=0\.4: the head of this model is its embedding") as caught:
        config(kind, head_lr=0.4).build(model())
    assert "\n" not in str(caught.value)


# ---- AdamW -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_equals_torch(dtype: torch.dtype) -> None:
    """Fused, in groups, against the plain loop of torch: in float64 to its last digits."""
    ours, theirs = model().to(dtype), model().to(dtype)
    optimizer = AdamWConfig(lr=0.01, embedding_lr=0.03, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-8).build(ours)
    peaks = {"matrix": (0.01, 0.2), "embedding": (0.03, 0.0), "vector": (0.01, 0.0)}
    grouped: dict[str, list[nn.Parameter]] = {kind: [] for kind in peaks}
    for name, parameter in theirs.named_parameters():
        grouped[class_by_name(name)].append(parameter)
    witness = torch.optim.AdamW(
        [{"params": grouped[kind], "weight_decay": decay, "peak": peak} for kind, (peak, decay) in peaks.items()],
        betas=(0.8, 0.9),
        eps=1e-8,
        foreach=False,
        fused=False,
    )
    for step in range(6):
        multiplier = 1.0 / (step + 1)
        for module in (ours, theirs):
            give_gradients(module, step)
        optimizer.step(multiplier, step)
        for group in witness.param_groups:
            group["lr"] = group["peak"] * multiplier
        witness.step()
    expected = weights(theirs)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, expected[name], atol=tolerance, rtol=tolerance, msg=name)


def test_adamw_is_the_formula_of_its_paper() -> None:
    """1711.05101, algorithm 2, in float64, for one matrix."""
    module = model().double()
    optimizer = AdamWConfig(lr=0.01, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-8).build(module)
    name = "blocks.1.mlp.down.weight"
    weight = weights(module)[name]
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 5):
        give_gradients(module, step)
        gradient = dict(module.named_parameters())[name].grad
        assert gradient is not None
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        direction = (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-8)
        weight = weight - 0.5 * 0.01 * (direction + 0.2 * weight)
        optimizer.step(0.5, step - 1)
    torch.testing.assert_close(weights(module)[name], weight, atol=1e-13, rtol=1e-13)


# ---- what every optimizer must keep ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("before_state", [0, 2])
def test_state_round_trip(kind: str, before_state: int) -> None:
    """Five steps straight equal some, the state through plain tensors into a new optimizer, and the rest: bit for bit.
    The state has its whole form before the first step."""
    straight, first, second = model(), model(), model(seed=9)
    optimizer = config(kind).build(straight)
    for step in range(5):
        give_gradients(straight, step)
        optimizer.step(0.5, step)
    last = optimizer.state()
    optimizer = config(kind).build(first)
    for step in range(before_state):
        give_gradients(first, step)
        optimizer.step(0.5, step)
    state = {key: value.clone() for key, value in optimizer.state().items()}
    assert state.keys() == last.keys()
    assert {key.split("|")[0] for key in state} == {name for name, _ in first.named_parameters()}
    second.load_state_dict(first.state_dict())
    optimizer = config(kind).build(second)
    give_gradients(second, 7)
    optimizer.step(0.0, 0)  # its own state is replaced
    optimizer.load_state(state)
    for step in range(before_state, 5):
        give_gradients(second, step)
        optimizer.step(0.5, step)
    expected = weights(straight)
    for name, value in weights(second).items():
        assert torch.equal(value, expected[name]), name
    for key, value in optimizer.state().items():
        assert torch.equal(value, last[key]), key


@pytest.mark.parametrize("kind", EVERY)
def test_a_state_that_does_not_fit_is_refused(kind: str) -> None:
    optimizer = config(kind).build(model())
    state = optimizer.state()
    key = next(key for key in state if key.startswith("blocks.0.mlp.up.weight|") and state[key].ndim)
    for wrong, message in (
        ({**state, key: state[key][1:]}, r"of the optimizer state is \[47, 32\], here it is \[48, 32\]"),
        ({name: value for name, value in state.items() if name != key}, "the optimizer state has no 'blocks"),
    ):
        with pytest.raises(InlayError, match=message) as caught:
            config(kind).build(model()).load_state(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", EVERY)
def test_a_state_from_before_the_first_step_of_an_older_version(kind: str) -> None:
    """It had no AdamW moments yet then."""
    optimizer = config(kind).build(model())
    optimizer.load_state({key: value for key, value in optimizer.state().items() if key.endswith("|momentum")})
    assert not any(bool(value.any()) for value in optimizer.state().values())


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_moves_and_zero_rate_moves_none(kind: str, tied: bool) -> None:
    module = model(tie_embeddings=tied, layers=3)
    optimizer = config(kind).build(module)
    before = weights(module)
    give_gradients(module, 0)
    optimizer.step(0.0, 0)
    for name, value in weights(module).items():
        assert torch.equal(value, before[name]), name
    give_gradients(module, 1)
    optimizer.step(1.0, 1)
    for name, value in weights(module).items():
        assert not torch.equal(value, before[name]), name


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", ["base-nano", "mla-nano", "lfm2-nano", "mtp-nano", "horizon-nano"])
def test_the_table_counts_every_parameter(kind: str, name: str) -> None:
    module = on_meta(preset(name))
    rows = routing_table(module, config(kind))
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in module.parameters())
    for row in rows:
        assert row.kind == class_by_name(row.name.replace("*", "0"))
        assert row.optimizer == ("muon" if kind == "muon" and row.kind == "matrix" else "adamw")
        blocks = sum(block.count * block.rows * block.columns for block in row.blocks)
        assert blocks in ((row.parameters // row.count,) if row.optimizer == "muon" else (0,))


def test_the_table_shows_blocks_factors_and_the_like_of_adamw() -> None:
    """At width 2048 the rate 3e-3 in the convention `original` is AdamW's at 1.7e-4 to 3.3e-4: the seed's best one."""
    rows = {row.name: row for row in routing_table(on_meta(preset("lfm2-1b")), config("muon", lr=3e-3))}
    fused = rows["blocks.*.mixer.input.weight"]
    assert fused.shape == (6144, 2048)
    assert fused.blocks == ((3, 2048, 2048, 1.0),)
    assert fused.like_adamw == pytest.approx([3.3e-4], rel=0.01)
    rows = {row.name: row for row in routing_table(on_meta(preset("base-1b")), config("muon", lr=3e-3))}
    assert rows["blocks.*.mlp.up.weight"].blocks[0].factor == 2.0
    assert rows["blocks.*.mlp.down.weight"].like_adamw == pytest.approx([1.66e-4], rel=0.01)
    assert rows["blocks.*.mlp.down.weight"].count == 16
    assert rows["embedding.weight"].lr == MuonConfig().embedding_lr


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_routing("lfm2-nano", ["optim.lr=0.003"])
    printed = capsys.readouterr().out
    assert "10 x mixer.input" in printed
    assert "3 of 96x96" in printed
    assert "optim.lr=0.003 is unusual" in " ".join(printed.split())
    print_routing("lfm2-nano", ["optim=adamw"], as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["optimizer"] for row in rows} == {"adamw"}
    assert next(row for row in rows if row["name"] == "embedding.weight")["decay"] == 0.0
    with pytest.raises(ConfigError, match="learning_rate"):
        print_routing("lfm2-nano", ["optim.learning_rate=0.003"])
