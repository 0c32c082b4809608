"""Muon against torch.optim.Muon and against a dense float64 one, its blocks, and the laws of the orthogonalisation."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.members import MEMBERS, MLA, attention
from tests.model.members import model as model_options
from tests.train.muon_reference import DenseMuon, flattened, give_gradients, pieces, weights
from torch import Tensor, nn

from inlay.config import ConfigError, InlayError, validate
from inlay.model import ModelConfig, Transformer, build
from inlay.model.mixer import Fused, Mixer
from inlay.train import blocks
from inlay.train.blocks import (
    COEFFICIENTS,
    Blocks,
    adjustment,
    blocks_of,
    iteration_dtype,
    orthogonalise,
    orthogonalise_blocks,
)
from inlay.train.optimizer import route
from inlay.train.optimizers.muon import MuonConfig

SHORT = {"kind": "short_conv", "kernel": 3}
ALL_SORTS = model_options(attention(), SHORT, {**MLA, "q_rank": 10}, repeat=1, mtp={"weight": 0.1})
"""Width 32: 4 query heads of 8 over 2 key heads; a latent of 12 beside a rotary key of 4, 4 heads of 6 + 4 query, 6 key
and 5 value channels. The block that predicts one token more is latent attention too."""


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Both formats of the iteration, whatever this machine would choose."""
    monkeypatch.setattr(blocks, "multiplies_bfloat16", lambda device: request.param == torch.bfloat16)
    assert iteration_dtype(torch.device("cpu")) == request.param
    return request.param


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "multiplies_bfloat16", lambda device: False)


def model(options: dict[str, Any] = ALL_SORTS, seed: int = 0) -> Transformer:
    return build(validate(ModelConfig, options), 40, seed=seed)


def span(begin: int, size: int) -> Tensor:
    return torch.arange(begin, begin + size)


def matrices_of(name: str, shape: tuple[int, int], per_head: bool) -> list[tuple[Tensor, Tensor]]:
    """The matrices of a weight of ALL_SORTS, written out by hand."""
    layer, _, part = name.removeprefix("mtp.").removeprefix("blocks.").removesuffix(".weight").rpartition(".")
    latent = layer.startswith("2.") or name.startswith("mtp.block.")
    if part == "input":
        return pieces(shape, span(0, 32), span(32, 32), span(64, 32))
    if part == "kv_down":
        return pieces(shape, span(0, 12), span(12, 4))
    if part in ("query_up", "kv_up"):
        first, second = (6, 4) if part == "query_up" else (6, 5)
        starts = [head * (first + second) for head in range(4)]
        one, two = ([span(start, first) for start in starts], [span(start + first, second) for start in starts])
        return pieces(shape, *one, *two) if per_head else pieces(shape, torch.cat(one), torch.cat(two))
    if part in ("query", "key", "value") and per_head:
        return pieces(shape, *[span(start, 8) for start in range(0, shape[0], 8)])
    if part == "output" and layer.startswith("0.") and per_head:
        return pieces(shape, *[span(start, 8) for start in range(0, 32, 8)], columns=True)
    if part == "output" and latent and per_head:
        return pieces(shape, *[span(start, 5) for start in range(0, 20, 5)], columns=True)
    return pieces(shape)


# ---- the optimizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize(("nesterov", "per_head"), [(True, False), (False, True)])
def test_muon_equals_torch(adjust: str, nesterov: bool, per_head: bool, dtype: torch.dtype) -> None:
    """Stacked by shape against torch.optim.Muon, which is given each matrix as a parameter of its own."""
    module = model()
    before = weights(module)
    rate = 0.02 if adjust == "original" else 0.002
    options = {"momentum": 0.9, "momentum_start": 0.9, "nesterov": nesterov, "weight_decay": 0.1, "per_head": per_head}
    optimizer = validate(MuonConfig, {"lr": rate, "adjust": adjust, **options}).build(module)
    routed = route(module)["matrix"]
    parts = {name: matrices_of(name, tuple(parameter.shape), per_head) for name, parameter in routed.items()}
    theirs = {
        name: [nn.Parameter(before[name][rows][:, columns].clone()) for rows, columns in parts[name]] for name in parts
    }
    witness = torch.optim.Muon(
        [parameter for group in theirs.values() for parameter in group],
        lr=rate,
        weight_decay=0.1,
        momentum=0.9,
        nesterov=nesterov,
        ns_coefficients=COEFFICIENTS,
        eps=1e-7,
        ns_steps=5,
        adjust_lr_fn=adjust,
    )
    for step in range(4):
        give_gradients(module, step)
        for name, parameter in routed.items():
            assert parameter.grad is not None
            for piece, (rows, columns) in zip(theirs[name], parts[name], strict=True):
                piece.grad = parameter.grad[rows][:, columns].clone()
        optimizer.step(1.0, step)
        witness.step()
    for name, parameter in routed.items():
        for piece, (rows, columns) in zip(theirs[name], parts[name], strict=True):
            start = before[name][rows][:, columns]
            found, expected = parameter.detach()[rows][:, columns] - start, piece.detach() - start
            # Torch iterates in bf16, whose eight bits are all that sets the two apart.
            ratio = float((found - expected).norm() / expected.norm())
            assert ratio < (0.005 if dtype == torch.bfloat16 else 0.04), name


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "weight_decay": 0.2},
        {"per_head": True, "weight_decay": 0.2, "decay_schedule": "linear"},
        {"per_head": True, "weight_decay": 0.2, "cautious_decay": True},
    ],
    ids=["plain", "no nesterov", "per head, decay to zero", "per head, cautious"],
)
def test_muon_equals_a_dense_float64_one(adjust: str, options: dict[str, Any]) -> None:
    """Every option, six steps, weights of every sort: 1e-4 of the distance travelled."""
    module = model()
    before = weights(module)
    rate = 0.05 if adjust == "original" else 0.01
    config = validate(MuonConfig, {"lr": rate, "adjust": adjust, "momentum_warmup": 4, **options})
    optimizer = config.build(module)
    witnesses = {
        name: DenseMuon(
            before[name],
            matrices_of(name, tuple(parameter.shape), config.per_head),
            rate,
            adjust,
            config.nesterov,
            config.weight_decay,
            config.cautious_decay,
        )
        for name, parameter in route(module)["matrix"].items()
    }
    for step in range(6):
        give_gradients(module, step)
        gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
        multiplier, remaining = 1.0 / (step + 1), 1.0 - step / 6
        optimizer.step(multiplier, step, remaining)
        for name, witness in witnesses.items():
            mu = 0.85 + 0.1 * min(1.0, step / 4)
            share = remaining if config.decay_schedule == "linear" else 1.0
            witness.step(gradients[name], mu, multiplier, share)
    after = weights(module)
    for name, witness in witnesses.items():
        travelled = float((witness.weight - before[name]).norm())
        assert float((after[name] - witness.weight).norm()) < 1e-4 * travelled, name
        state = optimizer.state()[f"{name}|momentum"]
        torch.testing.assert_close(state, witness.momentum.float(), atol=1e-6, rtol=1e-5)


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


def test_no_gradient_is_a_gradient_of_zero() -> None:
    """Nothing moves at first, and the momentum of earlier steps goes on."""
    module = model()
    optimizer = MuonConfig().build(module)
    before = weights(module)
    optimizer.step(1.0, 0)
    for name in route(module)["matrix"]:
        assert torch.equal(weights(module)[name], before[name]), name
    give_gradients(module, 0)
    optimizer.step(1.0, 1)
    moved = weights(module)
    for parameter in module.parameters():
        parameter.grad = None
    optimizer.step(1.0, 2)
    for name in route(module)["matrix"]:
        assert not torch.equal(weights(module)[name], moved[name]), name


def test_a_fused_projection_is_another_step_than_its_parts() -> None:
    """What the split is for: with one part's gradient a hundred times the others', the whole is nearly that part alone,
    and each part by itself moves as far as the others."""
    module = model()
    weight = route(module)["matrix"]["blocks.1.mixer.input.weight"]
    before = weight.detach().clone()
    give_gradients(module, 0)
    assert weight.grad is not None
    weight.grad[:32] *= 100.0
    gradient = weight.grad.double().clone()
    MuonConfig().build(module).step(1.0, 0)
    moved = (weight.detach() - before).split(32)
    assert [float(part.norm()) / float(moved[0].norm()) for part in moved] == pytest.approx([1.0] * 3, abs=0.15)
    whole = flattened(gradient).split(32)
    assert float(whole[1].norm()) < 0.5 * float(whole[0].norm())


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("adjust", "lr"), [("match_rms_adamw", 0.5), ("original", 3.0)])
def test_an_absurd_rate_is_refused(adjust: str, lr: float) -> None:
    with pytest.raises(ConfigError, match=rf"lr {lr:g} is as large as the weights .* {adjust}: give ") as caught:
        validate(MuonConfig, {"lr": lr, "adjust": adjust})
    assert "\n" not in str(caught.value)


def test_a_rate_of_the_other_convention_is_noticed() -> None:
    mixed = [("match_rms_adamw", 0.02), ("match_rms_adamw", 0.035), ("original", 3e-4), ("original", 3e-3)]
    for adjust, lr in mixed:
        (line,) = validate(MuonConfig, {"lr": lr, "adjust": adjust}).notices()
        assert f"optim.lr={lr:g} is unusual for optim.adjust={adjust}" in line
        assert "\n" not in line
    usual = [("match_rms_adamw", 3e-4), ("match_rms_adamw", 3e-3), ("original", 0.02), ("original", 0.035)]
    for adjust, lr in usual:
        assert validate(MuonConfig, {"lr": lr, "adjust": adjust}).notices() == []


def test_cautious_decay_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="weight_decay is 0: set one of them"):
        validate(MuonConfig, {"cautious_decay": True})


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_blocks_of_every_member_cover_each_matrix_once(member: str, per_head: bool) -> None:
    module = model(MEMBERS[member])
    matrices = route(module)["matrix"]
    for division, (name, parameter) in zip(blocks_of(module, matrices, per_head), matrices.items(), strict=True):
        numbered = torch.arange(parameter.numel(), dtype=torch.float32).view(parameter.shape)
        parts = division.take(numbered)
        assert [tuple(part.shape) for part in parts] == list(division.shapes), name
        assert torch.equal(torch.cat([part.flatten() for part in parts]).sort().values, numbered.flatten())
        assert torch.equal(division.join(parts), numbered), name


@pytest.mark.parametrize("per_head", [True, False])
def test_blocks_are_those_of_the_definition(per_head: bool) -> None:
    module = model()
    matrices = route(module)["matrix"]
    divided = 0
    for division, (name, parameter) in zip(blocks_of(module, matrices, per_head), matrices.items(), strict=True):
        numbered = torch.arange(parameter.numel(), dtype=torch.float32).view(parameter.shape)
        shape = (parameter.shape[0], parameter.shape[1])
        expected = [numbered[rows][:, columns] for rows, columns in matrices_of(name, shape, per_head)]
        found = [block for part in division.take(numbered) for block in part]
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other), name
        divided += len(found) > 1
    assert divided == (13 if per_head else 7)


def test_a_declaration_that_does_not_fit_is_refused() -> None:
    class Wrong(Mixer):
        def __init__(self) -> None:
            super().__init__()
            self.input = nn.Linear(4, 9)

        def fused(self) -> dict[str, Fused]:
            return {"input": Fused(0, 2, (4,))}

    module = nn.ModuleDict({"mixer": Wrong()})
    with pytest.raises(InlayError, match=r"'mixer\.input\.weight' \[9, 4\] is declared as 2 x \(4,\) along axis 0"):
        blocks_of(module, route(module)["matrix"], per_head=True)


def test_adjustment_has_the_published_values() -> None:
    """The table of both conventions at width 2048, inner 8192: crossing them is a tenfold error."""
    shapes = [(2048, 2048), (512, 2048), (8192, 2048), (2048, 8192)]
    assert [adjustment("original", *shape) for shape in shapes] == [1.0, 1.0, 2.0, 1.0]
    found = [adjustment("match_rms_adamw", *shape) for shape in shapes]
    assert found == pytest.approx([9.05, 9.05, 18.1, 18.1], rel=1e-2)


# ---- the orthogonalisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 48, 16), (2, 16, 48), (5, 8, 40)])
def test_orthogonalise_against_fp64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    found = orthogonalise(matrices, 5)
    assert found.dtype == torch.float32
    assert found.shape == shape
    wide = orthogonalise(matrices.double(), 5, torch.float64)
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-4
    for index, matrix in enumerate(matrices.double()):
        expected = flattened(matrix)
        torch.testing.assert_close(wide[index], expected, atol=1e-10, rtol=1e-8)
        assert float((found[index] - expected).norm()) < tolerance * float(expected.norm())
        spectrum = torch.linalg.svdvals(found[index])
        assert 0.6 < float(spectrum.min()) <= float(spectrum.max()) < 1.3


def test_orthogonalise_survives_zero_and_lower_rank(dtype: torch.dtype) -> None:
    """Zeros stay zeros, also beside other matrices; a missing direction stays missing (in bf16 its rounding takes the
    place), the others are flattened."""
    generator = torch.Generator().manual_seed(3)
    low = torch.randn(24, 3, generator=generator) @ torch.randn(3, 16, generator=generator)
    found = orthogonalise(torch.stack([torch.zeros(24, 16), low, torch.full((24, 16), 1e-30)]), 5)
    assert not found[0].any()
    assert torch.isfinite(found).all()
    values = torch.linalg.svdvals(found[1])
    assert float(values[2]) > 0.5
    assert float(values[0]) < 1.3
    assert float(values[3]) < (0.1 if dtype == torch.float32 else 0.8)


SIZES = st.tuples(st.integers(1, 4), st.integers(2, 12), st.integers(2, 12))


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(0, 10**6), st.integers(-12, 12))
def test_the_update_does_not_know_the_scale_of_the_gradient(shape: tuple[int, int, int], seed: int, power: int) -> None:
    """By powers of two bit for bit, in the float32 iteration."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = orthogonalise(2.0**power * matrices, 5, torch.float32)
    assert torch.equal(found, orthogonalise(matrices, 5, torch.float32))


@settings(max_examples=30, deadline=None)
@given(SIZES, st.integers(0, 10**6))
def test_the_iteration_commutes_with_transposing_and_with_rotations(shape: tuple[int, int, int], seed: int) -> None:
    """f(A') = f(A)' and f(U A V') = U f(A) V' for orthogonal U and V: nothing but singular values changes."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(shape, generator=generator, dtype=torch.float64)
    found = orthogonalise(matrices, 5, torch.float64)
    torch.testing.assert_close(orthogonalise(matrices.mT, 5, torch.float64), found.mT, atol=1e-8, rtol=1e-6)
    left, right = (
        torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0] for size in shape[1:]
    )
    turned = orthogonalise(left @ matrices @ right.mT, 5, torch.float64)
    torch.testing.assert_close(turned, left @ found @ right.mT, atol=1e-8, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([(4, 6), (6, 4), (12, 6), (6, 12)]), min_size=1, max_size=8), st.randoms())
def test_the_order_and_the_company_of_matrices_do_not_matter(shapes: list[tuple[int, int]], random: Any) -> None:
    generator = torch.Generator().manual_seed(len(shapes))
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    halves = [Fused(0, 2, (rows // 2,)) if random.random() < 0.5 else None for rows, _ in shapes]
    divisions = [Blocks(shape, half, per_head=True) for shape, half in zip(shapes, halves, strict=True)]
    found = orthogonalise_blocks(matrices, divisions, 5, torch.float32)
    order = list(range(len(shapes)))
    random.shuffle(order)
    shuffled = orthogonalise_blocks([matrices[at] for at in order], [divisions[at] for at in order], 5, torch.float32)
    for place, at in enumerate(order):
        torch.testing.assert_close(shuffled[place], found[at], atol=1e-5, rtol=1e-4)
        (alone,) = orthogonalise_blocks([matrices[at]], [divisions[at]], 5, torch.float32)
        torch.testing.assert_close(alone, found[at], atol=1e-5, rtol=1e-4)
