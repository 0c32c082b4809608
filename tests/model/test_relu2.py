"""Squared ReLU against transformers' Arcee and Nemotron."""

from typing import Any

import pytest
import torch
from tests.model.peers import assert_same, copy_into, their_names
from tests.model.shapes import VOCAB, packed, tiny, tiny_model

from inlay.config import ConfigError
from inlay.model import ModelConfig
from inlay.model.mlps.relu2 import ReLU2Config

DOCUMENTS = [((24,), (24,)), ((7, 1, 16), (11, 13))]
MIXER = {"kind": "attention", "heads": 4, "kv_heads": 2, "head_size": 8, "qk_norm": False, "rope_theta": 500_000.0}


def relu2(inner: Any = 40, **options: Any) -> ModelConfig:
    return tiny(blocks={"full": {"mixer": MIXER, "mlp": {"kind": "relu2", "inner": inner}}}, **options)


def their_options(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB,
        "hidden_size": config.width,
        "intermediate_size": 40,
        "num_hidden_layers": config.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "tie_word_embeddings": config.tie_embeddings,
        "attn_implementation": "eager",
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("documents", DOCUMENTS, ids=["whole", "packed"])
def test_arcee(documents: tuple[tuple[int, ...], ...], tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_model(relu2(tied=tied, norm_eps=1e-5))
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    config = transformers.ArceeConfig(**their_options(model.config), rms_norm_eps=1e-5, rope_parameters=rope)
    peer = transformers.ArceeForCausalLM(config).eval()
    names = their_names(model)
    copy_into(peer, model, names)
    assert_same(model, peer, names, *packed(*documents))


@pytest.mark.parametrize("documents", DOCUMENTS, ids=["whole", "packed"])
def test_nemotron(documents: tuple[tuple[int, ...], ...]) -> None:
    """LayerNorm whose gain is stored less one, and all channels rotated instead of its usual half."""
    transformers = pytest.importorskip("transformers")
    model = tiny_model(relu2(tied=False, norm="layer", norm_eps=1e-5))
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.bias"):
            parameter.data.uniform_(-0.5, 0.5, generator=generator)
    rope = {"rope_type": "default", "rope_theta": 500_000.0, "partial_rotary_factor": 1.0}
    options = {**their_options(model.config), "norm_eps": 1e-5, "rope_parameters": rope, "partial_rotary_factor": 1.0}
    peer = transformers.NemotronForCausalLM(transformers.NemotronConfig(**options)).eval()
    names = their_names(model)
    copy_into(peer, model, names, offset=-1.0)
    assert_same(model, peer, names, *packed(*documents))


def test_its_definition_by_hand() -> None:
    module = ReLU2Config(inner=2).build(3)
    module.up.weight.data = torch.tensor([[1.0, -2.0, 0.5], [1.0, 1.0, 1.0]])
    module.down.weight.data = torch.tensor([[1.0, 0.0], [0.0, -1.0], [2.0, 0.5]])
    # up gives -1.5 and 6; relu and square make them 0 and 36.
    assert module(torch.tensor([1.0, 2.0, 3.0])).tolist() == [0.0, -36.0, 18.0]


def test_weights_are_drawn() -> None:
    module = ReLU2Config(inner=300).build(200)
    module.initialise(0.1, 0.02, torch.Generator().manual_seed(0))
    assert float(module.up.weight.detach().std()) == pytest.approx(0.1, rel=0.02)
    assert float(module.down.weight.detach().std()) == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("inner", [0, -3, "many"])
def test_a_bad_inner_is_refused(inner: Any) -> None:
    with pytest.raises(ConfigError, match="inner"):
        relu2(inner)
