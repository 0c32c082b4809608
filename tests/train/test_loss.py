"""The chunked loss against torch's own, whole, in fp32 and fp64."""

from pathlib import Path

import pytest
import torch
from tests.train.tiny_training import config, lines, start
from torch import Tensor
from torch.nn import functional

from inlay.train.loss import CHUNK, chunk_step, cross_entropy, step_with, token_losses

WIDTH, VOCAB = 24, 97


def inputs(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCAB, WIDTH, generator=generator).requires_grad_()
    targets = torch.randint(VOCAB, (count,), generator=generator)
    weights = torch.rand(count, generator=generator) * (torch.rand(count, generator=generator) < 0.8)
    return hidden, weight, targets, weights


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor,
    dtype: torch.dtype,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean loss, loss of each token, and gradients for hidden and weight, unchunked in `dtype`."""
    wide, table = (tensor.detach().to(dtype).requires_grad_() for tensor in (hidden, weight))
    each = functional.cross_entropy(capped(wide @ table.T, softcap), targets, reduction="none")
    loss = (each * weights.to(dtype)).sum() / weights.to(dtype).sum()
    loss.backward()
    assert wide.grad is not None
    assert table.grad is not None
    return loss.detach(), each.detach(), wide.grad, table.grad


@pytest.mark.parametrize("count", [1, 7, CHUNK, CHUNK + 1, 2 * CHUNK + 513])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradients_equal_the_whole_table(count: int, dtype: torch.dtype) -> None:
    hidden, weight, targets, weights = inputs(count, seed=count)
    weights[0] = 0.5
    loss, each = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum())
    loss.backward()
    expected = reference(hidden, weight, targets, weights, dtype)
    for found, witness in zip((loss, each, hidden.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(found, witness.float(), atol=1e-5, rtol=1e-5)
    assert each.dtype == torch.float32
    assert not each.requires_grad
    assert loss.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("count", [7, CHUNK + 1])
@pytest.mark.parametrize("softcap", [None, 2.0, 30.0])
@pytest.mark.parametrize("z_loss", [1e-4, 0.1])
def test_z_loss_is_in_the_slope_alone(count: int, softcap: float | None, z_loss: float) -> None:
    """Against autograd in float64: what is differentiated is each token's loss and z log(Z)^2 of its capped logits, in
    the same weights; what is reported is the loss."""
    hidden, weight, targets, weights = inputs(count, seed=count)
    loss, each = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum(), step_with(softcap, z_loss))
    loss.backward()
    wide, table = (tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    logits = capped(wide @ table.T, softcap)
    plain = functional.cross_entropy(logits, targets, reduction="none")
    scaled = weights.double() / weights.double().sum()
    (scaled * (plain + z_loss * torch.logsumexp(logits, -1).square())).sum().backward()
    torch.testing.assert_close(loss.detach(), (scaled * plain).sum().float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(each, plain.detach().float(), atol=1e-5, rtol=1e-5)
    for found, witness in ((hidden.grad, wide.grad), (weight.grad, table.grad)):
        assert found is not None
        assert witness is not None
        torch.testing.assert_close(found, witness.float(), atol=1e-5, rtol=1e-4)
    without, _ = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum(), step_with(softcap))
    hidden.grad = None
    without.backward()
    assert torch.equal(without, loss)
    assert hidden.grad is not None
    assert witness is not None
    bare = wide.grad.float() - hidden.grad  # what z adds: enough to be seen
    assert float(bare.norm()) > 1e-5 * float(hidden.grad.norm())


def test_z_loss_draws_the_normaliser_to_zero() -> None:
    """What it is for: with no say from targets, log Z shrinks where it is large on either side."""
    hidden, weight, targets, _ = inputs(40)
    step = step_with(None, 1.0)
    for offset in (8.0, -8.0):
        shifted = torch.cat([hidden.detach(), torch.full((40, 1), offset)], 1).requires_grad_()
        table = torch.cat([0.01 * weight.detach(), torch.ones(VOCAB, 1)], 1)
        cross_entropy(shifted, table, targets, torch.ones(40), torch.tensor(1 / 40), step)[0].backward()
        assert shifted.grad is not None
        assert bool((shifted.grad[:, -1] * offset > 0).all())  # descent makes the offset smaller


def test_a_run_with_z_loss_reports_losses_without_it(store: Path, tmp_path: Path) -> None:
    """`train.z_loss` comes through to the gradient, and not to the log."""
    logged, moved = [], []
    for z_loss in (0.0, 0.1):
        trainer = start(config(store, train={"steps": 1, "z_loss": z_loss}), tmp_path / f"run{z_loss}")
        trainer.run_to_end()
        (record,) = [line for line in lines(trainer.run.path) if "train/gradient_norm" in line]
        logged.append({name: value for name, value in record.items() if name.startswith("train/loss")})
        moved.append(record["train/gradient_norm"])
    assert logged[0]
    assert logged[0] == logged[1]
    assert moved[0] != pytest.approx(moved[1], rel=1e-3)


@pytest.mark.parametrize("count", [7, CHUNK + 1])
@pytest.mark.parametrize("softcap", [2.0, 30.0])
def test_a_softcap_is_in_the_value_and_in_the_slope(count: int, softcap: float) -> None:
    """Logits have a standard deviation of five: the smaller cap bends most of them."""
    hidden, weight, targets, weights = inputs(count, seed=count)
    loss, each = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum(), step_with(softcap))
    loss.backward()
    expected = reference(hidden, weight, targets, weights, torch.float64, softcap)
    for found, witness in zip((loss, each, hidden.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(found, witness.float(), atol=1e-5, rtol=1e-5)


def test_a_capped_loss_in_bfloat16_loses_only_its_rounding() -> None:
    hidden, weight, targets, weights = inputs(CHUNK + 100, torch.bfloat16)
    loss, _ = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum(), step_with(5.0))
    loss.backward()
    rounded = weight.detach().bfloat16().float()
    expected = reference(hidden, rounded, targets, weights, torch.float64, 5.0)
    assert float(loss.detach()) == pytest.approx(float(expected[0]), abs=5e-3)
    for found, witness in ((hidden.grad, expected[2]), (weight.grad, expected[3])):
        assert found is not None
        assert (found - witness).norm() < 0.02 * witness.norm()


def test_a_saturated_softcap_stays_finite() -> None:
    hidden = torch.full((2, WIDTH), 100.0, requires_grad=True)
    weight = torch.cat([torch.full((1, WIDTH), 10.0), torch.full((VOCAB - 1, WIDTH), -10.0)]).requires_grad_()
    loss, each = cross_entropy(hidden, weight, torch.tensor([0, 1]), torch.ones(2), torch.tensor(0.5), step_with(30.0))
    loss.backward()
    assert each.tolist() == pytest.approx([0.0, 60.0])
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_bfloat16_activations_lose_only_their_rounding() -> None:
    """Logits are widened before anything is summed: the loss is that of the rounded inputs."""
    hidden, weight, targets, weights = inputs(CHUNK + 100, torch.bfloat16)
    loss, each = cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum())
    loss.backward()
    rounded = weight.detach().bfloat16().float()
    expected = reference(hidden, rounded, targets, weights, torch.float64)
    assert float(loss.detach()) == pytest.approx(float(expected[0]), abs=5e-3)
    torch.testing.assert_close(each, expected[1].float(), atol=0.1, rtol=0.02)
    for found, witness in ((hidden.grad, expected[2]), (weight.grad, expected[3])):
        assert found is not None
        assert (found - witness).norm() < 0.02 * witness.norm()


def test_the_gradient_of_a_scaled_loss_is_scaled() -> None:
    hidden, weight, targets, weights = inputs(50)
    (3.0 * cross_entropy(hidden, weight, targets, weights, 1.0 / weights.sum())[0]).backward()
    _, _, hidden_gradient, weight_gradient = reference(hidden, weight, targets, weights, torch.float64)
    torch.testing.assert_close(hidden.grad, 3 * hidden_gradient.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weight.grad, 3 * weight_gradient.float(), atol=1e-5, rtol=1e-5)


def test_a_batch_without_trained_tokens_is_zero_and_connected() -> None:
    hidden, weight, targets, weights = inputs(9)
    loss, each = cross_entropy(hidden, weight, targets, torch.zeros_like(weights), torch.tensor(1e9))
    assert float(loss.detach()) == 0.0
    loss.backward()  # a fresh tensor would raise here, and hang ranks that wait for its gradients
    for gradient in (hidden.grad, weight.grad):
        assert gradient is not None
        assert not gradient.any()
    assert (each > 0).all()  # still measured


def test_untrained_tokens_give_no_gradient() -> None:
    hidden, weight, targets, weights = inputs(40)
    cross_entropy(hidden, weight, targets, weights, torch.tensor(1.0))[0].backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad.abs().sum(-1) > 0, weights > 0)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_with_the_global_scale_add_up(parts: int) -> None:
    """Uneven masks: a mean of means would be wrong here."""
    hidden, weight, targets, weights = inputs(400)
    weights[:100] = 0.0
    scale = 1.0 / weights.sum()
    whole, _ = cross_entropy(hidden, weight, targets, weights, scale)
    whole.backward()
    expected = [hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    total = torch.zeros(())
    for part in torch.arange(400).chunk(parts):
        loss, _ = cross_entropy(hidden[part], weight, targets[part], weights[part], scale)
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(total, whole.detach())
    for found, witness in zip([hidden.grad, weight.grad], expected, strict=True):
        torch.testing.assert_close(found, witness, atol=1e-6, rtol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.full((3, WIDTH), 100.0, requires_grad=True)
    weight = torch.cat([torch.full((1, WIDTH), 10.0), torch.full((VOCAB - 1, WIDTH), -10.0)]).requires_grad_()
    loss, each = cross_entropy(hidden, weight, torch.tensor([0, 1, 2]), torch.ones(3), torch.tensor(1 / 3))
    loss.backward()
    assert each.tolist() == pytest.approx([0.0, 48_000.0, 48_000.0])
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


@pytest.mark.parametrize("count", [1, CHUNK + 3])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_token_losses_for_evaluation(count: int, softcap: float | None) -> None:
    hidden, weight, targets, _ = inputs(count)
    expected = functional.cross_entropy(capped((hidden @ weight.T).double(), softcap), targets, reduction="none")
    torch.testing.assert_close(token_losses(hidden, weight, targets, softcap), expected.float(), atol=1e-5, rtol=1e-5)


def test_the_step_of_a_chunk_is_used_as_given() -> None:
    """The trainer hands in a compiled one: it is called once a chunk, with chunk-sized views."""
    sizes: list[int] = []

    def step(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes.append(len(hidden))
        return chunk_step(hidden, weight, targets, weights)

    hidden, weight, targets, weights = inputs(2 * CHUNK + 5)
    cross_entropy(hidden, weight, targets, weights, torch.tensor(1.0), step)
    assert sizes == [CHUNK, CHUNK, 5]
