"""Attention itself against slow ways to compute it, the rotary embedding and the norm."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from inlay.model.attend import attend
from inlay.model.masks import Mask, Strips, block_mask, cache_mask, document_mask, row_mask
from inlay.model.parts import RMSNorm, rotate, rotation


def positions_of(*rows: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])


def slow(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Row by row, head by head, in fp64; scaled_dot_product_attention where there is no cap."""
    groups = query.shape[1] // key.shape[1]
    query, key, value, mask = (tensor.double() for tensor in (query, key, value, mask))
    if softcap is None:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)
    rows = []
    for row in range(query.shape[0]):
        heads = []
        for head in range(query.shape[1]):
            scores = scale * query[row, head] @ key[row, head // groups].T
            scores = softcap * torch.tanh(scores / softcap) + mask[row, 0]
            heads.append(torch.softmax(scores, dim=-1) @ value[row, head // groups])
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def inputs(heads: int, groups: int, queries: int, keys: int, size: int = 8, value_size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(heads * 10 + groups)
    shapes = ((2, heads, queries, size), (2, groups, keys, size), (2, groups, keys, value_size))
    return [torch.randn(shape, generator=generator) * 2.0 for shape in shapes]


def assert_as_slow(tensors: list[Tensor], mask: Mask, dense: Tensor, scale: float, softcap: float | None) -> None:
    """Forward and gradients, against the slow one with the dense mask."""
    left, right = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    found = attend(*left, mask, scale=scale, softcap=softcap)
    expected = slow(*right, dense, scale, softcap)
    seed = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(seed)
    expected.backward(seed.double())
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 2), (3, 1)])
def test_attend_equals_the_slow_way(heads: int, groups: int, softcap: float | None) -> None:
    """Packed rows and cached keys, every ratio of heads, values of another size, scales."""
    packed = document_mask(positions_of((5, 7), (12,)), 4, torch.float32)
    assert_as_slow(inputs(heads, groups, 12, 12), packed, packed, 8**-0.5, softcap)
    assert_as_slow(inputs(heads, groups, 12, 12, 8, 5), packed, packed, 0.7, softcap)
    positions = torch.stack([torch.arange(8, 20), torch.arange(12)])
    cached = cache_mask(positions, positions[:, -1] + 1, 20, 20, None, torch.float32)
    assert_as_slow(inputs(heads, groups, 12, 20), cached, cached, 8**-0.5, softcap)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 30, 128, 150, 400])
@pytest.mark.parametrize("rows", [((290,), (290,)), ((100, 1, 189), (7, 283))], ids=["whole", "packed"])
def test_strips_equal_the_slow_way(
    rows: tuple[tuple[int, ...], ...], window: int | None, softcap: float | None
) -> None:
    positions = positions_of(*rows)
    mask = row_mask(positions, window, torch.float32)
    assert isinstance(mask, Strips)
    dense = document_mask(positions, window, torch.float32)
    assert_as_slow(inputs(4, 2, 290, 290, 8, 5), mask, dense, 8**-0.5, softcap)


# The first call of FlexAttention traces it, and warns that it is not compiled.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 30, 150])
@pytest.mark.parametrize("sizes", [(8, 5), (16, 16), (8, 24)])
def test_flex_attention_equals_the_slow_way(sizes: tuple[int, int], window: int | None, softcap: float | None) -> None:
    """On a CPU it has a forward pass alone: here the definition is proven, small heads and shared heads included."""
    positions = positions_of((100, 1, 189), (7, 283))
    tensors = inputs(4, 2, 290, 290, *sizes)
    found = attend(*tensors, block_mask(positions, window), scale=0.3, softcap=softcap)
    expected = slow(*tensors, document_mask(positions, window, torch.float32), 0.3, softcap)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: FlexAttention's kernels, with gradients")
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 64, 300])
@pytest.mark.parametrize("sizes", [(64, 64), (96, 64), (8, 8)])
def test_flex_attention_on_a_gpu(sizes: tuple[int, int], window: int | None, softcap: float | None) -> None:
    """Forward and gradients in fp32, called eagerly: the kernel is compiled all the same."""
    positions = positions_of((100, 1, 411), (7, 505))
    mask = row_mask(positions.cuda(), window, torch.float32)
    assert isinstance(mask, BlockMask)
    tensors = inputs(4, 2, 512, 512, *sizes)
    left = [tensor.cuda().requires_grad_() for tensor in tensors]
    right = [tensor.clone().requires_grad_() for tensor in tensors]
    found = attend(*left, mask, scale=0.2, softcap=softcap)
    expected = slow(*right, document_mask(positions, window, torch.float32), 0.2, softcap)
    seed = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    found.backward(seed.cuda())
    expected.backward(seed.double())
    torch.testing.assert_close(found.cpu(), expected.float(), atol=1e-3, rtol=1e-3)
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("length", [128, 300])
def test_attend_in_bfloat16_is_close(length: int) -> None:
    mask, dense = (
        row_mask(torch.arange(length).expand(2, -1), 50, torch.bfloat16),
        document_mask(torch.arange(length).expand(2, -1), 50, torch.float32),
    )
    tensors = inputs(4, 2, length, length)
    found = attend(*(tensor.bfloat16() for tensor in tensors), mask, softcap=5.0)
    assert found.dtype == torch.bfloat16
    expected = slow(*tensors, dense, 8**-0.5, 5.0)
    assert (found - expected).pow(2).mean().sqrt() < 0.05 * expected.pow(2).mean().sqrt()


@pytest.mark.parametrize(("theta", "size"), [(10_000.0, 16), (500_000.0, 64)])
def test_rope_is_a_complex_rotation(theta: float, size: int) -> None:
    """Channel i and i + D/2 are one complex number, turned by position * theta^(-2i/D); computed here in fp64."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([[0, 1, 2, 511, 0, 1]])
    x = torch.randn(1, 3, 6, size, generator=generator)
    found = rotate(x, *rotation(positions, theta, size))
    number = torch.complex(*x.double().chunk(2, dim=-1))
    speed = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    turned = number * torch.polar(torch.ones(1, 1, 6, size // 2, dtype=torch.float64), positions[0][:, None] * speed)
    torch.testing.assert_close(found.double(), torch.cat([turned.real, turned.imag], dim=-1), atol=2e-4, rtol=0)
    torch.testing.assert_close(found[:, :, 0], x[:, :, 0])  # position 0 turns nothing


def test_rope_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(1, 1, 1, 16, generator=generator), torch.randn(1, 1, 1, 16, generator=generator)

    def score(at: int, other: int) -> float:
        turned = [
            rotate(x, *rotation(torch.tensor([[position]]), 10_000.0, 16))
            for x, position in ((query, at), (key, other))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_rms_norm_against_torch() -> None:
    norm = RMSNorm(12, 1e-5)
    norm.weight.data.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(norm(x), functional.rms_norm(x, (12,), norm.weight, 1e-5))
    # In bf16 the statistics are still fp32: the result is the fp32 one up to two roundings.
    torch.testing.assert_close(norm(x.bfloat16()).float(), norm(x), atol=0.0, rtol=2**-6)
