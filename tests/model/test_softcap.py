"""Capped scores and logits, against transformers' Gemma 2. Its blocks have other norms and another network, so what is
compared is its attention module, and its head over a model whose layers add nothing."""

import math
from typing import Any

import pytest
import torch
from tests.model.members import attention, config, model
from tests.model.shapes import VOCAB, packed, tiny_model
from torch import Tensor

from inlay.config import ConfigError, validate
from inlay.model import ModelConfig
from inlay.model.attend import attend
from inlay.model.masks import document_mask

CAP = 1.5


def gemma2(**options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": CAP,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 5,
        "attn_implementation": "eager",
    }
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**{**sizes, **options})).eval()


def visible(positions: Tensor, window: int | None) -> Tensor:
    """Additive mask [B, 1, T, T], pair by pair."""
    rows, length = positions.shape
    mask = torch.full((rows, 1, length, length), -torch.inf)
    for row in range(rows):
        for query in range(length):
            for key in range(query + 1):
                distance = query - key
                inside = distance <= int(positions[row, query])
                if inside and (window is None or distance < window):
                    mask[row, 0, query, key] = 0.0
    return mask


@pytest.mark.parametrize("layer", [0, 1], ids=["window", "full"])
@pytest.mark.parametrize("documents", [((24,), (24,)), ((7, 1, 16), (11, 13))], ids=["whole", "packed"])
def test_attention_equals_gemma_2s(layer: int, documents: tuple[tuple[int, ...], ...]) -> None:
    """Outputs, and the gradients of all weights and of the input."""
    window = (5, None)[layer]
    mixer = attention(window, qk_norm=False, softcap=CAP)
    ours = tiny_model(validate(ModelConfig, model(mixer)))
    peer = gemma2()
    mine, theirs = ours.layers[0].mixer, peer.model.layers[layer].self_attn
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    weights = dict(theirs.named_parameters())
    assert {f"{name}.weight" for name in names.values()} == weights.keys()
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            parameter.mul_(3.0)  # scores beyond the cap, else it would say little
            weights[f"{names[name.split('.')[0]]}.weight"].copy_(parameter)
    _, positions = packed(*documents)
    x = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(0))
    seed = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1))
    left, right = (x.clone().requires_grad_() for _ in range(2))
    found, _ = mine(left, ours.context(positions), None)
    angles = peer.model.rotary_emb(right, positions)
    expected, _ = theirs(right, angles, visible(positions, window))
    found.backward(seed)
    expected.backward(seed)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(left.grad, right.grad, **close)
    for name, parameter in mine.named_parameters():
        assert parameter.grad is not None
        gradient = weights[f"{names[name.split('.')[0]]}.weight"].grad
        torch.testing.assert_close(parameter.grad, gradient, **close, msg=name)


def test_the_cap_matters_here() -> None:
    """The comparison above can fail: without the cap, or with another, the outputs differ."""
    model = tiny_model(config("attention-softcap"))
    query, key, value = (torch.randn(1, 2, 12, 8, generator=torch.Generator().manual_seed(i)) * 2 for i in range(3))
    mask = model.context(torch.arange(12)[None]).masks[None]
    outputs = [attend(query, key, value, mask, softcap=cap) for cap in (None, CAP, 2 * CAP)]
    assert (outputs[0] - outputs[1]).abs().max() > 0.05
    assert (outputs[2] - outputs[1]).abs().max() > 0.05


def test_head_equals_gemma_2s() -> None:
    """Layers that add nothing leave norm, head and cap; the norm takes back Gemma's factor on the embedding."""
    cap = 4.0
    ours = tiny_model(config("attention", head_softcap=cap, embedding_std=3.0))
    peer = gemma2(final_logit_softcapping=cap)
    with torch.no_grad():
        for block in ours.layers:
            block.mixer.output.weight.zero_()
            block.mlp.down.weight.zero_()
        for layer in peer.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        peer.model.embed_tokens.weight.copy_(ours.embedding.weight)
        peer.model.norm.weight.copy_(ours.final_norm.weight - 1.0)
    tokens, positions = packed((9, 15))
    found = ours.logits(ours(tokens, positions))
    expected = peer(input_ids=tokens, position_ids=positions, use_cache=False).logits
    assert found.abs().max() > 0.9 * cap
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("cap", [0.5, 50.0])
def test_small_scores_pass_and_large_ones_saturate(cap: float) -> None:
    """One key with weight e^c / (e^c + e^0): its score, read back from the output, is cap tanh(score / cap)."""
    key, value = torch.tensor([[[[0.0], [1.0]]]]), torch.tensor([[[[0.0], [1.0]]]])
    mask = document_mask(torch.arange(2)[None], None, torch.float32)
    for score in (0.01, 0.3, 5.0):
        weight = float(attend(torch.full((1, 1, 2, 1), score), key, value, mask, scale=1.0, softcap=cap)[0, 0, 1, 0])
        assert math.log(weight / (1.0 - weight)) == pytest.approx(cap * math.tanh(score / cap), abs=1e-4)


@pytest.mark.parametrize("cap", [0.0, -1.0, "high"])
def test_a_cap_must_be_positive(cap: Any) -> None:
    with pytest.raises(ConfigError, match="softcap"):
        validate(ModelConfig, model(attention(softcap=cap)))
    with pytest.raises(ConfigError, match="head_softcap"):
        config("attention", head_softcap=cap)
