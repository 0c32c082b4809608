"""Parameters, FLOPs and cache bytes are counted from the built model, and checked against torch's own counters."""

import json

import pytest
import torch
from tests.model.presets import PRESETS, preset
from tests.model.shapes import VOCAB, tiny, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from inlay.model import ModelConfig
from inlay.model.masks import document_mask
from inlay.model.table import _visible, count, print_table
from inlay.model.transformer import Transformer


@pytest.mark.parametrize(("name", "millions"), [("nano", 3), ("micro", 10), ("small", 30)])
def test_non_embedding_sizes(name: str, millions: int) -> None:
    assert count(preset(name), 8192, 512).non_embedding == pytest.approx(millions * 1e6, rel=0.15)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_counts(name: str) -> None:
    counted = count(preset(name), 8192, 512)
    parts = sum(layer.parameters for layer in counted.layers) + counted.embedding + counted.head + counted.auxiliary
    assert parts + preset(name).width == counted.parameters


@pytest.mark.parametrize("name", ["nano", "mtp-nano"])
def test_a_preset_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    counted = count(preset(name), 8192, 512)
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


def test_the_table_says_who_owns_kv_and_where_a_model_can_go(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def exports(config: ModelConfig, context: int) -> list[str]:
        seen.append((config, context))
        return ["--to somewhere: [yes]"]

    print_table("mixattention-nano", ["model.layers=4"], context=100, exports=exports)
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split()[:5] for line in lines if line.split()[:1] in (["0"], ["1"], ["3"])]
    assert cells[:2] == [["0", "local", "attention", "64", "own"], ["1", "local", "attention", "64", "of"]]
    assert cells[2][:4] == ["3", "global", "attention", "own"]
    assert "--to somewhere: [yes]" in lines
    assert [(config.layers, context) for config, context in seen] == [(4, 100)]
    assert max(map(len, lines)) <= 80


def test_what_only_training_uses_is_counted_apart() -> None:
    counted = count(preset("mtp-nano"), 8192, 512)
    base = count(preset("base-nano"), 8192, 512)
    assert counted.auxiliary == counted.parameters - base.parameters > 0
    assert counted.flops == base.flops
    assert base.auxiliary == 0


def test_json_holds_what_the_table_shows(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("mixattention-nano", [], context=256, exports=lambda config, context: ["nowhere"], as_json=True)
    shown = json.loads(capsys.readouterr().out)
    counted = count(preset("mixattention-nano"), 8192, 256)
    assert shown["parameters"] == counted.parameters
    assert [layer["kv_from"] for layer in shown["layers"]] == [layer.kv_from for layer in counted.layers]
    assert (shown["cache_bytes"], shown["exports"]) == (counted.cache_bytes, ["nowhere"])
