import math

import pytest
import torch
from tests.model.shapes import packed, tiny, tiny_model
from torch.nn import functional

from inlay.config import ConfigError, validate
from inlay.config.compose import compose
from inlay.model import ModelConfig, build
from inlay.model.layout import resolve


def first_loss(config: ModelConfig, vocabulary: int) -> float:
    model = build(config, vocabulary, seed=0)
    generator = torch.Generator().manual_seed(3)
    tokens, targets = torch.randint(vocabulary, (2, 2, 64), generator=generator)
    with torch.no_grad():
        logits = model.logits(model(tokens, torch.arange(64).expand(2, 64)))
    return float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize("name", ["nano", "micro"])
def test_first_loss_of_a_preset(name: str) -> None:
    """ln V + d std^2 / 2: logits of a normalised hidden state of norm sqrt(d) against rows of variance std^2.

    A tied table whose residual stream the blocks hardly touch would read its own token back: about d std instead.
    """
    config = validate(ModelConfig, compose("train", [f"model={name}", "data.path=x", "train.steps=1"])["model"])
    expected = math.log(8192) + config.width * config.embedding_std**2 / 2
    assert first_loss(config, 8192) == pytest.approx(expected, abs=0.3)


def test_first_loss_of_an_untied_head() -> None:
    """A wide head, so that the second term counts."""
    config = tiny(2, 1, 32, width=128, tied=False, init_std=0.02, embedding_std=0.1)
    assert first_loss(config, 4096) == pytest.approx(math.log(4096) + 128 * 0.1**2 / 2, abs=0.3)


def test_weights_come_from_the_seed_alone() -> None:
    config = tiny()
    torch.manual_seed(1)
    first = build(config, 60, seed=5)
    torch.manual_seed(2)
    second = build(config, 60, seed=5)
    second.compute_dtype = torch.bfloat16
    other = build(config, 60, seed=6)
    for name, parameter in first.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, second.state_dict()[name])
        assert name.endswith("norm.weight") or not torch.equal(parameter, other.state_dict()[name])


def test_standard_deviations() -> None:
    """Inner projections take init_std; those into the residual stream take init_std / sqrt(2 layers); gains are one."""
    model = build(tiny(4, 4, 32, width=128, layers=8, init_std=0.1, embedding_std=0.3), 500, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))
            continue
        into_residual = name.endswith(("mixer.output.weight", "mlp.down.weight"))
        expected = 0.3 if name == "embedding.weight" else 0.1 / 4 if into_residual else 0.1
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name
        assert abs(float(parameter.detach().mean())) < expected * 0.05, name


def test_bfloat16_forward_is_close_to_float32() -> None:
    model = tiny_model()
    tokens, positions = packed((20, 12), (32,))
    with torch.no_grad():
        wide = model.logits(model(tokens, positions))
        model.compute_dtype = torch.bfloat16
        narrow = model(tokens, positions)
        assert narrow.dtype == torch.bfloat16
        narrow = model.logits(narrow)
    assert narrow.dtype == torch.float32
    assert (narrow - wide).pow(2).mean().sqrt() < 0.03 * wide.pow(2).mean().sqrt()


def test_layout_repeats_the_pattern() -> None:
    block = tiny().blocks["full"].to_dict()
    config = tiny(layers=6, blocks={"a": block, "b": block}, pattern=["a", "a", "b"])
    layers = resolve(config)
    assert [layer.name for layer in layers] == ["a", "a", "b", "a", "a", "b"]
    assert [layer.index for layer in layers] == list(range(6))
    assert all(layer.kv_from is None for layer in layers)


def test_a_pattern_of_unknown_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern names block 'ful'.*did you mean 'full'"):
        tiny(pattern=["ful"])
    with pytest.raises(ConfigError, match="unknown key 'widht'"):
        validate(ModelConfig, {**tiny().to_dict(), "widht": 3})
    with pytest.raises(ConfigError, match="pattern"):
        tiny(pattern=[])
    with pytest.raises(ConfigError, match="layers 3 is not a multiple of the pattern's 2 blocks"):
        tiny(layers=3, pattern=["full", "full"])
