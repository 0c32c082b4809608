import json
from pathlib import Path

import pytest
import torch
from benchmarks.common import Spread, Turn, interleave, ratios, spread
from benchmarks.train_step import Ceiling, main, model_flops, summary
from torch.utils.flop_counter import FlopCounterMode

from inlay.config import BadInput
from inlay.model import ModelConfig, build

MODEL = [
    "model.width=32",
    "model.layers=1",
    "model.blocks.attention.mixer.heads=2",
    "model.blocks.attention.mixer.kv_heads=1",
    "model.blocks.attention.mixer.head_size=16",
    "model.blocks.attention.mlp.inner=48",
]


def test_whole_benchmark(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    sizes = ["--rows", "2", "--length", "128", "--rounds", "2", "--search-rounds", "1", "--turn", "1"]
    peers = ["--peers", "bfloat16-eager"]
    main(["train.compile=false", *MODEL, "--store", str(store), "--json", str(file), *sizes, *peers])
    result = json.loads(file.read_text())
    told = capsys.readouterr().out
    assert set(result["tokens_per_second"]) == {"ours-adamw", "ours-muon", "peer-usual", "peer-masters", "peer-best"}
    assert result["best_setting"] in ("autocast-sdpa", "bfloat16-eager")
    assert result["best_setting_with_masters"] == "autocast-sdpa"
    assert all(0.0 < value["low"] <= value["median"] <= value["high"] for value in result["ratio"].values())
    assert len(result["goals"]) == 3
    assert told.count("reached") == 3


def test_unknown_setting_and_wrong_vocabulary(store: Path) -> None:
    with pytest.raises(BadInput, match="autocast-sdpa"):
        main(["--peers", "float16"])
    with pytest.raises(BadInput, match="tokens, not 512"):
        main(["--store", str(store), "--vocab", "512"])


def test_flops_are_those_that_torch_counts(shape: ModelConfig) -> None:
    vocabulary, rows, length = 60, 2, 16
    model = build(shape, vocabulary, seed=0)
    tokens = torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens, torch.arange(length).expand(rows, length))).sum().backward()
    # Its attention computes every pair of a row, so each query is counted with all keys; the first layer's input has a
    # gradient because the embedding is trained.
    assert model_flops(model, rows * length, visible=length) == counter.get_total_flops()


def test_ceiling_computes_the_products_of_the_step(shape: ModelConfig) -> None:
    model = build(shape, 60, seed=0)
    ceiling = Ceiling(model, tokens=1500)
    with FlopCounterMode(display=False) as counter:
        ceiling.step()
    assert counter.get_total_flops() == ceiling.flops == model_flops(model, 1500, visible=0.0)


def test_turns_alternate() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    turns = interleave(steps, rounds=2, per_turn=2)
    assert "".join(order) == "aabbaabb"
    assert [len(own) for own in turns.values()] == [2, 2]


def test_ratio_is_taken_inside_a_round() -> None:
    # The second round ran on a machine ten times slower: the ratio does not see it.
    peer, ours = ([Turn(seconds, seconds) for seconds in values] for values in ((4.0, 40.0), (2.0, 20.0)))
    assert ratios(peer, ours) == [2.0, 2.0]
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_summary_says_whether_goals_are_reached() -> None:
    def turns(seconds: float) -> list[Turn]:
        return [Turn(seconds, 2.0 * seconds)] * 3

    peers = {"peer-usual": turns(2.1), "peer-masters": turns(1.7), "peer-best": turns(1.5)}
    ours = {"ours-adamw": turns(1.0), "ours-muon": turns(1.2)}
    found = summary({**ours, **peers, "ceiling": turns(0.5)}, tokens=100, ceiling_flops=5e11, step_flops=8e11)
    assert list(found["goals"].values()) == [False, True, True]
    assert found["share_of_ceiling"]["ours-adamw"]["median"] == pytest.approx(0.8)
    assert found["tokens_per_second"]["ours-adamw"]["median"] == 100.0
