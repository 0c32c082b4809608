"""Sampling against frequencies computed by hand."""

import numpy as np
import pytest
import torch

from inlay.infer.sampling import SamplingConfig, choose

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def frequencies(sampling: SamplingConfig, count: int = 4000) -> np.ndarray:
    tokens = choose(LOGITS.expand(count, -1), sampling, list(range(count)), step=5)
    return np.bincount(tokens.numpy(), minlength=len(LOGITS)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    expected = np.exp(LOGITS.numpy() / temperature)
    expected /= expected.sum()
    assert np.abs(frequencies(SamplingConfig(temperature=temperature)) - expected).max() < 0.03


def test_top_k_and_top_p_keep_the_head() -> None:
    assert (frequencies(SamplingConfig(temperature=1.0, top_k=2)) > 0).tolist() == [True, True] + [False] * 4
    # Probabilities .53 .20 .12 .07 ...: the first three reach .8, two do not.
    assert (frequencies(SamplingConfig(temperature=1.0, top_p=0.8)) > 0).tolist() == [True] * 3 + [False] * 3
    assert frequencies(SamplingConfig(temperature=1.0, top_p=0.01))[0] == 1.0


def test_greedy_is_the_argmax_and_draws_are_keyed() -> None:
    assert choose(LOGITS[None], SamplingConfig(), [0], 0).tolist() == [0]
    sampling = SamplingConfig(temperature=1.0)
    rows = LOGITS.expand(50, -1)
    keys = list(range(50))
    first = choose(rows, sampling, keys, 0)
    assert torch.equal(first, choose(rows, sampling, keys, 0))
    assert not torch.equal(first, choose(rows, sampling, keys, 1))
    # A row's draw is its key's, wherever it stands in the batch.
    assert torch.equal(first.flip(0), choose(rows, sampling, keys[::-1], 0))
