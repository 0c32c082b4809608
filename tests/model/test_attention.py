import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.model.shapes import tiny
from torch.nn import functional

from inlay.config import ConfigError
from inlay.model.attend import attend
from inlay.model.masks import cache_mask, document_mask
from inlay.model.parts import RMSNorm, rotate, rotation

documents = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def positions_of(lengths: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


@given(documents, st.none() | st.integers(1, 8))
def test_document_mask_is_its_definition(lengths: list[int], window: int | None) -> None:
    owner = [index for index, length in enumerate(lengths) for _ in range(length)]
    mask = document_mask(positions_of(lengths), window, torch.float32)
    assert mask.shape == (1, 1, len(owner), len(owner))
    assert mask.dtype == torch.float32
    for query in range(len(owner)):
        for key in range(len(owner)):
            visible = owner[key] == owner[query] and key <= query and (window is None or query - key < window)
            assert mask[0, 0, query, key].item() == (0.0 if visible else -math.inf)


def test_a_window_counts_its_own_key() -> None:
    row = document_mask(torch.arange(11)[None], 4, torch.float32)[0, 0, 10]
    assert torch.isfinite(row).nonzero().flatten().tolist() == [7, 8, 9, 10]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.none() | st.integers(1, 5))
def test_cache_mask_is_its_definition(starts: list[int], window: int | None) -> None:
    positions = torch.tensor(starts)[:, None] + torch.arange(3)
    seen = int(positions.max()) + 1
    mask = cache_mask(positions, positions[:, -1] + 1, 40, seen, window, torch.bfloat16)
    assert mask.shape == (len(starts), 1, 3, seen)
    assert mask.dtype == torch.bfloat16
    for row, start in enumerate(starts):
        for query in range(3):
            for slot in range(seen):
                distance = start + query - slot
                visible = distance >= 0 and (window is None or distance < window)
                assert mask[row, 0, query, slot].item() == (0.0 if visible else -math.inf)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 5), st.integers(3, 9))
def test_cache_mask_of_a_ring_is_its_definition(starts: list[int], window: int, rollback: int) -> None:
    """A ring of window + rollback slots, written position by position: each slot holds what was written to it last."""
    positions = torch.tensor(starts)[:, None] + torch.arange(3)
    slots = window + rollback
    seen = min(slots, int(positions.max()) + 1)
    mask = cache_mask(positions, positions[:, -1] + 1, slots, seen, window, torch.float32)
    for row, start in enumerate(starts):
        content = {position % slots: position for position in range(start + 3)}
        for query in range(3):
            for slot in range(seen):
                distance = start + query - content[slot] if slot in content else -1
                visible = 0 <= distance < window
                assert mask[row, 0, query, slot].item() == (0.0 if visible else -math.inf)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("keys", [12, 20])
def test_attend_equals_scaled_dot_product_attention(heads: int, groups: int, keys: int) -> None:
    """Forward and backward, packed rows and cached keys, every ratio of heads."""
    generator = torch.Generator().manual_seed(heads * 10 + groups)
    shapes = ((2, heads, 12, 8), (2, groups, keys, 8), (2, groups, keys, 8))
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    if keys == 12:
        mask = document_mask(torch.cat([positions_of([5, 7]), positions_of([12])]), None, torch.float32)
    else:
        positions = torch.stack([torch.arange(8, 20), torch.arange(12)])
        mask = cache_mask(positions, positions[:, -1] + 1, keys, keys, None, torch.float32)
    seed = torch.randn(query.shape, generator=generator)
    results = []
    for function in (
        attend,
        lambda q, k, v, m: functional.scaled_dot_product_attention(q, k, v, attn_mask=m, enable_gqa=True),
    ):
        inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        output = function(*inputs, mask)
        output.backward(seed)
        results.append([output, *(tensor.grad for tensor in inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


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


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads 4 is not a multiple of kv_heads 3"):
        tiny(4, 3)
    with pytest.raises(ConfigError, match="head_size"):
        tiny(4, 2, 15)
