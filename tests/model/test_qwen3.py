"""transformers' Qwen3ForCausalLM as the independent witness of the default architecture: logits and gradients, fp32."""

from typing import Any

import pytest
import torch
from tests.model.peers import copy_into, their_logits, their_names
from tests.model.shapes import VOCAB, packed, tiny, tiny_model
from torch.nn import functional

from inlay.model import Transformer

SHAPES = [(4, 4, 8), (4, 2, 16), (6, 1, 8), (8, 2, 4)]


def theirs(model: Transformer) -> Any:
    """Qwen3ForCausalLM with the weights of `model`; every parameter of each must find its partner."""
    transformers = pytest.importorskip("transformers")
    mixer = model.layout[0].block.mixer
    peer = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=VOCAB,
            hidden_size=model.config.width,
            intermediate_size=model.layout[0].block.mlp.inner,
            num_hidden_layers=model.config.layers,
            num_attention_heads=mixer.heads,
            num_key_value_heads=mixer.kv_heads,
            head_dim=mixer.head_size,
            rms_norm_eps=model.config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": mixer.rope_theta},
            tie_word_embeddings=model.config.tie_embeddings,
            max_position_embeddings=512,
            attn_implementation="eager",
        )
    ).eval()
    copy_into(peer, model, their_names(model))
    return peer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_size"), SHAPES)
@pytest.mark.parametrize("documents", [((24,), (24,)), ((7, 1, 16), (11, 13))], ids=["whole", "packed"])
def test_logits_and_gradients_equal(
    heads: int, kv_heads: int, head_size: int, tied: bool, documents: tuple[tuple[int, ...], ...]
) -> None:
    model = tiny_model(tiny(heads, kv_heads, head_size, tied=tied, rope_theta=500_000.0, norm_eps=1e-5))
    peer = theirs(model)
    tokens, positions = packed(*documents)
    logits = model.logits(model(tokens, positions))
    expected = their_logits(peer, tokens, positions)
    assert logits.std() > 0.5  # else equality would say little
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)

    targets = torch.roll(tokens, -1, dims=1)
    for table in (logits, expected):
        functional.cross_entropy(table.flatten(0, 1), targets.flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    names = their_names(model)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, gradients[names[name]], atol=1e-5, rtol=1e-4, msg=name)


def test_the_witness_would_see_a_leak() -> None:
    """Without restarting positions the same tokens give other logits: the packed comparison above can fail."""
    model = tiny_model()
    peer = theirs(model)
    tokens, positions = packed((12, 12))
    whole = torch.arange(24)[None]
    with torch.no_grad():
        assert not torch.allclose(their_logits(peer, tokens, positions), model.logits(model(tokens, whole)), atol=1e-2)


def test_layers_without_qk_norm_are_llama() -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_model(tiny(qk_norm=False))
    mixer = model.layout[0].block.mixer
    peer = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=mixer.heads,
            num_key_value_heads=mixer.kv_heads,
            head_dim=mixer.head_size,
            rms_norm_eps=model.config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": mixer.rope_theta},
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    ).eval()
    copy_into(peer, model, their_names(model))
    with torch.no_grad():
        tokens, positions = packed((9, 15))
        logits = model.logits(model(tokens, positions))
        torch.testing.assert_close(logits, their_logits(peer, tokens, positions), atol=1e-4, rtol=1e-5)
