"""Parameters, FLOPs and cache bytes are counted from the built model, and checked against torch's own counters."""

from pathlib import Path

import pytest
import torch
from tests.model.shapes import VOCAB, tiny, tiny_model
from torch.utils.flop_counter import FlopCounterMode

import inlay.conf
from inlay.config import validate
from inlay.config.compose import compose
from inlay.model import ModelConfig
from inlay.model.masks import document_mask
from inlay.model.table import _visible, count, print_table
from inlay.model.transformer import Transformer

PRESETS = sorted(file.stem for file in (Path(inlay.conf.__path__[0]) / "model").glob("*.yaml"))


def preset(name: str, *overrides: str) -> ModelConfig:
    return validate(
        ModelConfig, compose("train", [f"model={name}", "data.path=x", "train.steps=1", *overrides])["model"]
    )


def test_the_seed_shapes_have_exactly_the_published_sizes() -> None:
    base = preset("base-1b")
    assert count(base, 1 << 17, 512).parameters == 1_241_583_616
    bare = preset("base-1b", "model.blocks.attention.mixer.qk_norm=false")
    assert count(bare, 1 << 17, 512).parameters == 1_241_581_568
    assert count(preset("proxy-0.69b"), 100_352, 512).parameters == pytest.approx(0.69e9, rel=0.005)


@pytest.mark.parametrize(("name", "millions"), [("nano", 3), ("micro", 10), ("small", 30)])
def test_non_embedding_sizes(name: str, millions: int) -> None:
    assert count(preset(name), 8192, 512).non_embedding == pytest.approx(millions * 1e6, rel=0.15)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_counts_and_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    counted = count(preset(name), 8192, 512)
    assert sum(layer.parameters for layer in counted.layers) + counted.embedding + counted.head + preset(
        name
    ).width == (counted.parameters)
    print_table(name, [])
    printed = capsys.readouterr().out
    assert f"{counted.parameters:,}" in printed
    assert f"{counted.non_embedding:,}" in printed


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_flops_equal_torchs_counter(tied: bool, kv_heads: int) -> None:
    config = tiny(4, kv_heads, tied=tied)
    model = tiny_model(config)
    length = 24
    tokens, positions = torch.zeros(1, length, dtype=torch.int64), torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.logits(model(tokens, positions))
    # The counter sees whole T x T products; a context of 2 T - 1 makes the causal average T.
    assert counter.get_total_flops() == length * count(config, VOCAB, 2 * length - 1).flops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_equal_the_allocated_cache(dtype: torch.dtype) -> None:
    config = tiny(4, 2)
    model = tiny_model(config)
    model.compute_dtype = dtype
    cache = model.new_cache(3, 10)
    allocated = sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors)
    per_token = sum(block.mixer.cache_bytes(dtype.itemsize) for block in model.blocks)
    assert allocated == 3 * (10 + 1) * per_token  # one more slot takes what padding writes
    if dtype == torch.bfloat16:
        assert count(config, VOCAB, 512).cache_bytes == per_token


@pytest.mark.parametrize("window", [None, 1, 4, 9, 50])
def test_visible_keys_are_the_mean_of_the_mask(window: int | None) -> None:
    mask = document_mask(torch.arange(9)[None], window, torch.float32)
    assert _visible(9, window) == pytest.approx(float(torch.isfinite(mask).sum()) / 9)


def test_counting_allocates_nothing() -> None:
    with torch.device("meta"):
        model = Transformer(preset("base-1b"), 1 << 17)
    assert all(parameter.is_meta for parameter in model.parameters())
