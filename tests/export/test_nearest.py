"""The preset that a refusal suggests."""

import pytest

from inlay.config import validate
from inlay.config.compose import compose_choice
from inlay.export.llama_cpp import refusal
from inlay.export.nearest import all_presets, leaves, nearest_preset, suggestion
from inlay.model import ModelConfig

CONTEXT = 2048


def can(config: ModelConfig) -> bool:
    return refusal(config, CONTEXT) is None


@pytest.mark.parametrize("name", ["base-1b", "mixattention-nano", "softcap-0.69b"])
def test_presets_are_read_as_hydra_composes_them(name: str) -> None:
    assert all_presets()[name] == validate(ModelConfig, compose_choice("model", name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixattention-nano", "base-nano"),
        ("mixattention-1b", "base-1b"),
        ("swa-0.69b", "base-0.69b"),
        ("relu2-nano", "base-nano"),
        ("base-1b", "base-1b"),
        ("mla-1b", "mla-1b"),
        ("lfm2-nano", "lfm2-nano"),
    ],
)
def test_nearest(name: str, expected: str) -> None:
    assert nearest_preset(all_presets()[name], can) == expected


def test_a_changed_preset_keeps_its_size() -> None:
    config = all_presets()["swa-1b"].model_copy(update={"norm_eps": 2e-5})
    assert nearest_preset(config, can) == "base-1b"
    assert suggestion(config, can) == "; the nearest preset that it can express: model=base-1b"
    assert suggestion(config, lambda other: False) == ""


def test_names_of_blocks_say_nothing() -> None:
    one = all_presets()["base-nano"]
    (name,) = one.blocks
    other = one.model_copy(update={"blocks": {"renamed": one.blocks[name]}, "pattern": ("renamed",)})
    assert leaves(one) == leaves(other)


def test_size_comes_before_nearness(monkeypatch: pytest.MonkeyPatch) -> None:
    own = all_presets()["mixattention-nano"]
    far = own.model_copy(update={"norm_eps": 0.5, "init_std": 0.5, "embedding_std": 0.5})
    presets = {"far-nano": far, "near-1b": own.model_copy(update={"norm_eps": 0.5}), "own-nano": own}
    monkeypatch.setattr("inlay.export.nearest.all_presets", lambda: presets)
    assert nearest_preset(own, lambda config: config is not own) == "far-nano"
    # Where none of its size is taken, any other is better than none.
    assert nearest_preset(own, lambda config: config is presets["near-1b"]) == "near-1b"
