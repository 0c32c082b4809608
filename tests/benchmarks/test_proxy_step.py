import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.proxy_step import PEAKS, made_up_store, main, step_flops
from tests.benchmarks.test_train_step import MODEL
from tests.train.tiny_training import MODEL as SHAPE
from torch.utils.flop_counter import FlopCounterMode

from inlay.config import BadInput, validate
from inlay.model import ModelConfig, build
from inlay.text.store import TokenStore

SIZES = ["--rows", "2", "--accumulation", "2", "--length", "128", "--steps", "2"]


def test_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    made = ["--preset", "pico", "--vocab", "512", "--tokens", "4000", "--profile", "--peak-tflops", "0.5"]
    main(["train.compile=false", *MODEL, *made, *SIZES, "--json", str(file)])
    result, told = json.loads(file.read_text()), capsys.readouterr().out
    assert (result["vocabulary"], result["rows"], result["accumulation"], result["length"]) == (512, 2, 2, 128)
    assert not result["compiled"]
    assert "NOT compiled" in told
    assert result["documents_per_row"] >= 1.0
    speed, share = result["tokens_per_second"]["median"], result["mfu"]["median"]
    assert 0.0 < result["mfu"]["low"] <= share <= result["mfu"]["high"]
    assert share == pytest.approx(speed / 256 * result["step_teraflop"] / 0.5, rel=0.5)
    assert result["goals"]["115,000 tokens/s"] is None  # a CPU does not count
    assert 0.0 < result["profile"]["busy_share"] <= 1.0
    assert sum(kernel["share"] for kernel in result["profile"]["kernels"]) <= 1.0 + 1e-6
    assert "Self CPU" in told
    assert "not judged" in told


def test_a_store_of_ones_own_and_no_known_peak(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train.compile=false", *MODEL, "--preset", "pico", "--store", str(store), *SIZES])
    assert "no peak is known" in capsys.readouterr().out


def test_the_made_up_store_has_the_vocabulary_and_uses_it(tmp_path: Path) -> None:
    opened = TokenStore.open(made_up_store(tmp_path / "store", 700, 20_000))
    assert opened.tokenizer.vocab_size == 700
    rows = opened.split("train")
    assert 10_000 < rows.token_count < 40_000
    with pytest.raises(BadInput, match="at least 267"):
        made_up_store(tmp_path / "none", 200, 100)


def test_the_first_peak_that_fits_is_the_nearest_name() -> None:
    names = {"NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H100 PCIe": 756.0, "NVIDIA H200": 989.0}
    for name, peak in names.items():
        assert next(value for part, value in PEAKS if part in name) == peak


@pytest.mark.parametrize("options", [{}, {"mtp": {"weight": 0.1}}, {"tie_embeddings": False}])
def test_flops_are_those_that_torch_counts(options: dict[str, object]) -> None:
    model = build(validate(ModelConfig, {**SHAPE, **options}), 60, seed=0)
    rows, length = 2, 16
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    positions = torch.arange(length).expand(rows, length)
    with FlopCounterMode(display=False) as counter:
        context = model.context(positions)
        hidden = model(tokens, positions, None, context)
        outputs = model.logits(hidden).sum()
        if model.mtp is not None:
            outputs = outputs + model.logits(model.mtp(hidden, model.embedding(tokens), context, model.mtp.block)).sum()
        outputs.backward()
    # Here every query computes all keys of the row: a position that sees them all is the last one.
    seen = np.full((rows, length), length - 1)
    assert step_flops(model, 60, seen) * rows * length == counter.get_total_flops()


def test_flops_go_by_what_a_query_sees() -> None:
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    shape = {**SHAPE, "layers": 2}
    windowed = json.loads(json.dumps(shape))
    windowed["blocks"]["full"]["mixer"]["window"] = 2

    def flops(data: dict[str, object]) -> float:
        return step_flops(build(validate(ModelConfig, data), 60), 60, positions)

    per_key = 3.0 * 2 * 4.0 * 2 * 16  # three forwards, two layers, scores and values of two heads of 16
    assert flops(shape) - flops(windowed) == pytest.approx(per_key * (2.5 - 1.75))
    assert flops({**shape, "document_masks": False}) - flops(shape) == pytest.approx(per_key * (4.5 - 2.5))
