"""The cache of a model: its bounds and its precision. That decode equals forward stands in `test_contract.py`."""

import pytest
import torch
from tests.model.peers import feed
from tests.model.shapes import packed, tiny, tiny_model
from torch import Tensor

from inlay.model import Transformer

LENGTH = 200


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(tiny(4, 2, rope_theta=500_000.0)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def row(model: Transformer) -> tuple[Tensor, Tensor]:
    """Tokens [1, T] and the hidden states [1, T, d] of the full forward pass."""
    tokens, positions = packed((LENGTH,))
    return tokens, model(tokens, positions)


def test_truncate_never_makes_a_cache_longer(model: Transformer, row: tuple[Tensor, Tensor]) -> None:
    cache = model.new_cache(1, LENGTH)
    feed(model, cache, row[0][:, :160], 0, 64)
    assert cache.lengths.tolist() == [160]
    assert cache.seen == 160
    assert cache.truncate(torch.tensor([500])).tolist() == [160]
    assert cache.truncate(torch.tensor([120])).tolist() == [120]
    assert cache.lengths.tolist() == [120]
    assert cache.seen == 120


def test_a_full_cache_is_an_error(model: Transformer) -> None:
    cache = model.new_cache(1, 4)
    model.decode(torch.zeros(1, 4, dtype=torch.int64), torch.arange(4)[None], cache)
    with pytest.raises(ValueError, match="position 4 does not fit a cache of 4"):
        model.decode(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[4]]), cache)


def test_decode_in_bfloat16_is_close(row: tuple[Tensor, Tensor]) -> None:
    tokens, expected = row
    narrow = tiny_model(tiny(4, 2, rope_theta=500_000.0)).eval().requires_grad_(False)
    narrow.compute_dtype = torch.bfloat16
    cache = narrow.new_cache(1, LENGTH)
    assert cache.layers[0].tensors[0].dtype == torch.bfloat16
    found = feed(narrow, cache, tokens, 0, 64).float()
    assert (found - expected).pow(2).mean().sqrt() < 0.03 * expected.pow(2).mean().sqrt()
