"""The peer must be what the benchmarks say it is: our shape, our loss, and with position ids our document mask."""

import numpy as np
import pytest
import torch
from benchmarks.peer import SETTINGS, USUAL, AsOurs, Peer

from inlay.config import BadInput, validate
from inlay.data.loader import Batch, LoaderState
from inlay.model import ModelConfig, Transformer, build
from inlay.train.loss import cross_entropy

VOCABULARY = 60
NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "mixer_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mixer.query_norm": "self_attn.q_norm",
    "mixer.key_norm": "self_attn.k_norm",
    "mixer.query": "self_attn.q_proj",
    "mixer.key": "self_attn.k_proj",
    "mixer.value": "self_attn.v_proj",
    "mixer.output": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def give_weights(ours: Transformer, peer: Peer) -> None:
    """Our weights under transformers' names."""
    state = {}
    for name, value in ours.state_dict().items():
        where = name
        if name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            where = f"model.layers.{index}.{NAMES[rest.removesuffix('.weight')]}.weight"
        state[NAMES.get(where, where)] = value.clone()
    _, unexpected = peer.model.load_state_dict(state, strict=False)
    assert not unexpected


@pytest.fixture
def batch() -> Batch:
    draw = np.random.Generator(np.random.PCG64(0))
    rows, length = 2, 24
    tokens, targets = (draw.integers(0, VOCABULARY, (rows, length), dtype=np.int32) for _ in range(2))
    positions = np.stack([np.concatenate([np.arange(9), np.arange(15)]), np.arange(length)]).astype(np.int32)
    weights = np.ones((rows, length), dtype=np.float32)
    weights[0, -4:] = 0.0
    zeros = np.zeros((rows, length), dtype=np.uint8)
    return Batch(tokens, targets, positions, weights, zeros, zeros, zeros, LoaderState(), zeros[:, 0])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_same_loss_as_ours_on_documents(shape: ModelConfig, batch: Batch, attention: str) -> None:
    ours = build(shape, VOCABULARY, seed=3)
    # In fp32: a setting of the peer that the benchmarks do not offer, so that the two can be compared closely.
    peer = Peer(shape, VOCABULARY, 24, SETTINGS[f"bfloat16-{attention}"], documents=True)
    peer.model.float()
    give_weights(ours, peer)
    tokens, targets, positions = (torch.from_numpy(a).long() for a in (batch.tokens, batch.targets, batch.positions))
    weights = torch.from_numpy(batch.weights).flatten()
    hidden = ours(tokens, positions).flatten(0, 1)
    loss, _ = cross_entropy(hidden, ours.head_weight, targets.flatten(), weights, 1.0 / weights.sum())
    before = {name: value.clone() for name, value in peer.model.state_dict().items()}
    assert peer.step(batch) == pytest.approx(loss.item(), rel=1e-5)
    assert any(not torch.equal(value, before[name]) for name, value in peer.model.state_dict().items())


def test_measured_as_ours_is(shape: ModelConfig, batch: Batch) -> None:
    ours = build(shape, VOCABULARY, seed=3)
    peer = Peer(shape, VOCABULARY, 24, SETTINGS["bfloat16-sdpa"], documents=True)
    peer.model.float()
    give_weights(ours, peer)
    tokens, positions = (torch.from_numpy(array).long() for array in (batch.tokens, batch.positions))
    with torch.no_grad():
        found = AsOurs(peer)(tokens, positions)
        expected = ours(tokens, positions)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.02, rtol=0.01)
    assert torch.equal(AsOurs(peer).head_weight, ours.head_weight)


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if not setting.compiled])
def test_settings_learn(shape: ModelConfig, batch: Batch, name: str) -> None:
    peer = Peer(shape, VOCABULARY, 24, SETTINGS[name], rate=1e-2)
    losses = [peer.step(batch) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1
    masters = {parameter.dtype for parameter in peer.model.parameters()}
    assert masters == {torch.float32 if SETTINGS[name].numbers == "autocast" else torch.bfloat16}


def test_without_documents_positions_are_not_looked_at(shape: ModelConfig, batch: Batch) -> None:
    one_document = Batch(**{**vars(batch), "positions": np.tile(np.arange(24, dtype=np.int32), (2, 1))})
    first, second = (Peer(shape, VOCABULARY, 24, SETTINGS[USUAL]).step(rows) for rows in (batch, one_document))
    assert first == second


def test_refuses_what_is_not_qwen3(shape: ModelConfig) -> None:
    data = shape.to_dict()
    data["blocks"]["full"]["mixer"]["qk_norm"] = False
    with pytest.raises(BadInput, match="qk_norm"):
        Peer(validate(ModelConfig, data), VOCABULARY, 24, SETTINGS[USUAL])
