"""Cached decode against the full forward pass."""

import pytest
import torch
from tests.model.shapes import VOCAB, packed, tiny, tiny_model
from torch import Tensor

from inlay.model import Transformer
from inlay.model.transformer import Cache

LENGTH = 200


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(tiny(4, 2, rope_theta=500_000.0)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def row(model: Transformer) -> tuple[Tensor, Tensor]:
    """Tokens [1, T] and the hidden states [1, T, d] of the full forward pass."""
    tokens, positions = packed((LENGTH,))
    return tokens, model(tokens, positions)


def feed(model: Transformer, cache: Cache, tokens: Tensor, start: int, chunk: int) -> Tensor:
    """Hidden states of tokens [1, T] fed from position `start` in chunks."""
    parts = []
    for begin in range(0, tokens.shape[1], chunk):
        part = tokens[:, begin : begin + chunk]
        parts.append(model.decode(part, start + begin + torch.arange(part.shape[1])[None], cache))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("chunk", [1, 7, 64, LENGTH])
def test_decode_equals_forward(model: Transformer, row: tuple[Tensor, Tensor], chunk: int) -> None:
    tokens, expected = row
    cache = model.new_cache(1, LENGTH)
    torch.testing.assert_close(feed(model, cache, tokens, 0, chunk), expected, atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist() == [LENGTH]
    assert cache.seen == LENGTH


def test_rows_of_different_lengths_with_padding(model: Transformer) -> None:
    """Left or right padding of -1 changes nothing; then all rows go on together, each from its own length."""
    lengths = [3, 17, 1, 9]
    longest = max(lengths)
    texts = [packed((length + 5,), seed=length)[0][0] for length in lengths]
    for left in (True, False):
        tokens = torch.full((len(lengths), longest), VOCAB - 1)
        positions = torch.full_like(tokens, -1)
        for index, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            where = slice(longest - length, longest) if left else slice(0, length)
            tokens[index, where], positions[index, where] = text[:length], torch.arange(length)
        cache = model.new_cache(len(lengths), longest + 5)
        hidden = [model.decode(tokens, positions, cache)]
        assert cache.lengths.tolist() == lengths
        for extra in range(5):
            step = torch.stack([text[length + extra] for text, length in zip(texts, lengths, strict=True)])[:, None]
            hidden.append(model.decode(step, cache.lengths[:, None].clone(), cache))
        for index, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            expected = model(text[None], torch.arange(length + 5)[None])[0]
            found = torch.cat([hidden[0][index][positions[index] >= 0], *(part[index] for part in hidden[1:])])
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_truncate_and_go_on(model: Transformer, row: tuple[Tensor, Tensor]) -> None:
    """An editor's keystroke: the cache forgets what comes behind position 120 and goes on with other tokens."""
    tokens, _ = row
    cache = model.new_cache(1, LENGTH)
    feed(model, cache, tokens, 0, 64)
    cache.truncate(torch.tensor([120]))
    assert cache.lengths.tolist() == [120]
    assert cache.seen == 120
    other = (tokens[:, 120:160] + 1) % VOCAB
    found = feed(model, cache, other, 120, 7)
    changed = torch.cat([tokens[:, :120], other], dim=1)
    expected = model(changed, torch.arange(160)[None])[:, 120:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    cache.truncate(torch.tensor([500]))  # never makes it longer
    assert cache.lengths.tolist() == [160]


def test_select_reorders_and_repeats_rows(model: Transformer) -> None:
    tokens, positions = packed((20,), (20,))
    cache = model.new_cache(2, 40)
    model.decode(tokens, positions, cache)
    chosen = cache.select(torch.tensor([1, 0, 1]))
    following = torch.tensor([[3], [4], [5]])
    found = model.decode(following, torch.full((3, 1), 20), chosen)
    for index, source in enumerate((1, 0, 1)):
        text = torch.cat([tokens[source], following[index]])[None]
        torch.testing.assert_close(found[index], model(text, torch.arange(21)[None])[0, 20:], atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist() == [20, 20]  # the original is untouched
    assert model.decode(torch.tensor([[1], [2]]), torch.full((2, 1), 20), cache).shape == (2, 1, 32)


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
