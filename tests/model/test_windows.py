"""Sliding windows against transformers' Qwen3, which has them by layer: logits and gradients in fp32."""

from typing import Any

import pytest
import torch
from tests.model.members import attention, model
from tests.model.peers import assert_same, copy_into, their_logits, their_names
from tests.model.shapes import VOCAB, packed, tiny_model

from inlay.config import validate
from inlay.model import ModelConfig, Transformer


def windowed(pattern: str, window: int) -> Transformer:
    """Layers by a letter: l local, g global."""
    mixers = {"l": attention(window), "g": attention()}
    return tiny_model(validate(ModelConfig, model(*(mixers[letter] for letter in pattern), repeat=1)))


def qwen3(pattern: str, window: int, made: Transformer) -> Any:
    """Qwen3ForCausalLM with the weights of `made`."""
    transformers = pytest.importorskip("transformers")
    kinds = {"l": "sliding_attention", "g": "full_attention"}
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=len(pattern),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        max_position_embeddings=512,
        use_sliding_window=True,
        sliding_window=window,
        layer_types=[kinds[letter] for letter in pattern],
        attn_implementation="eager",
    )
    peer = transformers.Qwen3ForCausalLM(config).eval()
    copy_into(peer, made, their_names(made))
    return peer


@pytest.mark.parametrize(("pattern", "window"), [("ll", 4), ("lg", 5), ("lllg", 7), ("lg", 2), ("l", 24), ("lg", 100)])
@pytest.mark.parametrize("documents", [((24,), (24,)), ((7, 1, 16), (11, 13))], ids=["whole", "packed"])
def test_logits_and_gradients_equal(pattern: str, window: int, documents: tuple[tuple[int, ...], ...]) -> None:
    made = windowed(pattern, window)
    tokens, positions = packed(*documents)
    assert_same(made, qwen3(pattern, window, made), their_names(made), tokens, positions)


def test_long_rows_in_strips_equal_too() -> None:
    """Rows that attention takes in strips: window inside a strip, over several, and none."""
    made = windowed("llg", 40)
    tokens, positions = packed((300,), (130, 170))
    assert_same(made, qwen3("llg", 40, made), their_names(made), tokens, positions)


def test_the_witness_would_see_one_key_more() -> None:
    made = windowed("lg", 5)
    tokens, positions = packed((24,))
    with torch.no_grad():
        found = made.logits(made(tokens, positions))
        for other in (4, 6):
            theirs = their_logits(qwen3("lg", other, made), tokens, positions)
            assert (found - theirs).abs().max() > 1e-2
