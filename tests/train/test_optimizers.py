"""AdamW and Muon against torch.optim's, the orthogonalisation against fp64, and the routing of parameters."""

import pytest
import torch
from tests.train.tiny_training import MODEL
from torch import Tensor, nn

from inlay.config import Config, InlayError, validate
from inlay.model import ModelConfig, Transformer, build
from inlay.train.optimizer import optimizers, route
from inlay.train.optimizers.adamw import AdamWConfig
from inlay.train.blocks import COEFFICIENTS, adjustment, orthogonalise
from inlay.train.optimizers.muon import MuonConfig

EVERY = sorted(optimizers.members())


def model(seed: int = 0, **options: object) -> Transformer:
    return build(validate(ModelConfig, {**MODEL, **options}), 40, seed=seed)


def give_gradients(module: nn.Module, step: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in module.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


# ---- routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_routed_once_by_what_it_is(tied: bool) -> None:
    module = model(tie_embeddings=tied)
    routed = route(module)
    names = [name for group in routed.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())
    assert set(routed["embedding"]) == {"embedding.weight"} | (set() if tied else {"head.weight"})
    assert all(name.endswith("norm.weight") for name in routed["vector"])
    assert all(parameter.ndim == 2 for parameter in routed["matrix"].values())
    assert len(routed["matrix"]) == 2 * 7


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


# ---- AdamW -----------------------------------------------------------------------------------------------------------


def test_adamw_equals_torch() -> None:
    ours, theirs = model(), model()
    config = AdamWConfig(lr=0.01, embedding_lr=0.03, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-8)
    optimizer = config.build(ours)
    routed = route(theirs)
    peaks = {"matrix": (0.01, 0.2), "embedding": (0.03, 0.0), "vector": (0.01, 0.0)}
    witness = torch.optim.AdamW(
        [
            {"params": list(routed[name].values()), "weight_decay": decay, "peak": peak}
            for name, (peak, decay) in peaks.items()
        ],
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
    for name, value in weights(ours).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6, msg=name)


# ---- Muon ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torch(adjust: str, nesterov: bool) -> None:
    """Stacked by shape against torch.optim.Muon one by one: the same bf16 iteration, equal up to bf16 rounding."""
    ours, theirs = model(), model()
    before = weights(ours)
    rate = 0.02 if adjust == "original" else 0.002
    options = {"momentum": 0.9, "momentum_start": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    optimizer = validate(MuonConfig, {"lr": rate, "adjust": adjust, **options}).build(ours)
    witness = torch.optim.Muon(
        list(route(theirs)["matrix"].values()),
        lr=rate,
        weight_decay=0.1,
        momentum=0.9,
        nesterov=nesterov,
        ns_coefficients=COEFFICIENTS,
        eps=1e-7,
        ns_steps=5,
        adjust_lr_fn=adjust,
    )
    for step in range(5):
        for module in (ours, theirs):
            give_gradients(module, step)
        optimizer.step(1.0, step)
        witness.step()
    after = weights(ours)
    for name, parameter in route(theirs)["matrix"].items():
        found, expected = after[name] - before[name], parameter.detach() - before[name]
        assert float((found - expected).norm()) < 0.02 * float(expected.norm()), name


def test_momentum_warms_up_linearly() -> None:
    """At each step the buffer is lerp(buffer, gradient, 1 - momentum(step)); momenta are visible in the state."""
    module = model()
    optimizer = MuonConfig(momentum_start=0.5, momentum=0.9, momentum_warmup=4).build(module)
    name = "blocks.0.mlp.up.weight"
    expected = torch.zeros_like(route(module)["matrix"][name])
    for step, momentum in enumerate([0.5, 0.6, 0.7, 0.8, 0.9, 0.9]):
        give_gradients(module, step)
        gradient = route(module)["matrix"][name].grad
        assert gradient is not None
        expected = momentum * expected + (1.0 - momentum) * gradient.clone()
        optimizer.step(1.0, step)
        torch.testing.assert_close(optimizer.state()[f"{name}|momentum"], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 48, 16), (2, 16, 48), (5, 8, 40)])
def test_orthogonalise_against_fp64(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    found = orthogonalise(matrices, 5)
    assert found.dtype == torch.float32
    assert found.shape == shape
    a, b, c = COEFFICIENTS
    for index, matrix in enumerate(matrices.double()):
        # The iteration acts on singular values alone: u p(p(...p(s))) v'.
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = a * values + b * values**3 + c * values**5
        expected = left @ torch.diag(values) @ right
        assert float((found[index] - expected).norm()) < 0.03 * float(expected.norm())
        spectrum = torch.linalg.svdvals(found[index])
        assert 0.6 < float(spectrum.min()) <= float(spectrum.max()) < 1.3


def test_orthogonalise_survives_zero() -> None:
    assert not orthogonalise(torch.zeros(2, 4, 6), 5).any()


def test_adjustment_has_the_published_values() -> None:
    """The table of both conventions at width 2048, inner 8192: crossing them is a tenfold error."""
    shapes = [(2048, 2048), (512, 2048), (8192, 2048), (2048, 8192)]
    assert [adjustment("original", *shape) for shape in shapes] == [1.0, 1.0, 2.0, 1.0]
    found = [adjustment("match_rms_adamw", *shape) for shape in shapes]
    assert found == pytest.approx([9.05, 9.05, 18.1, 18.1], rel=1e-2)


# ---- what every optimizer must keep ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_state_round_trip(kind: str) -> None:
    """Five steps straight equal two, the state through plain tensors into a new optimizer, and three, bit for bit."""
    config: Config = optimizers.get(kind)()
    straight, first, second = model(), model(), model(seed=9)
    optimizer = config.build(straight)
    for step in range(5):
        give_gradients(straight, step)
        optimizer.step(0.5, step)
    optimizer = config.build(first)
    for step in range(2):
        give_gradients(first, step)
        optimizer.step(0.5, step)
    state = {key: value.clone() for key, value in optimizer.state().items()}
    names = {name for name, _ in first.named_parameters()}
    assert {key.split("|")[0] for key in state} == names
    second.load_state_dict(first.state_dict())
    optimizer = config.build(second)
    optimizer.load_state(state)
    for step in range(2, 5):
        give_gradients(second, step)
        optimizer.step(0.5, step)
    expected = weights(straight)
    for name, value in weights(second).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_moves_and_zero_rate_moves_none(kind: str, tied: bool) -> None:
    module = model(tie_embeddings=tied, blocks={"full": {**MODEL["blocks"]["full"]}}, layers=3)
    optimizer = optimizers.get(kind)().build(module)
    before = weights(module)
    give_gradients(module, 0)
    optimizer.step(0.0, 0)
    for name, value in weights(module).items():
        assert torch.equal(value, before[name]), name
    give_gradients(module, 1)
    optimizer.step(1.0, 1)
    for name, value in weights(module).items():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", EVERY)
def test_weight_decay_is_for_matrices(kind: str) -> None:
    """Zero gradients: only decay moves anything, and only matrices, by the unadjusted rate times the decay."""
    module = model()
    optimizer = validate(optimizers.get(kind), {"kind": kind, "lr": 0.1, "weight_decay": 0.5}).build(module)
    before = weights(module)
    give_gradients(module, 0, scale=0.0)
    optimizer.step(1.0, 0)
    matrices = route(module)["matrix"]
    for name, value in weights(module).items():
        factor = 1.0 - 0.1 * 0.5 if name in matrices else 1.0
        torch.testing.assert_close(value, before[name] * factor)
