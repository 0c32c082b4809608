import json
from pathlib import Path

import pytest
import torch
from benchmarks.decode import Completion, Ours, Products, main, narrowed, summary, untrained

from inlay.config import BadInput
from inlay.infer.engine import Engine

PROMPT = list(range(300, 330))


def test_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("transformers", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    file = tmp_path / "result.json"
    sizes = ["--vocab", "512", "--prompt", "24", "--tokens", "6", "--rounds", "2", "--formats", "f32", "q8_0"]
    main(["--models", "pico", *sizes, "--json", str(file)])
    result = json.loads(file.read_text())
    found = result["models"]["pico"]
    assert set(found["tokens_per_second"]) == {"ours-f32", "transformers-f32", "llama-f32", "llama-q8_0"}
    assert all(0.0 < value["low"] <= value["high"] for value in found["first_token_ms"].values())
    # The same weights in the same format: the same text.
    assert {found["same_ids_as_ours_f32"][name] for name in ("ours-f32", "transformers-f32", "llama-f32")} == {6}
    assert set(found["goals"]) == {"3.0 times transformers-f32", "0.7 times llama-f32"}
    assert capsys.readouterr().out.count("reached") == 2


def test_ours_is_what_the_engine_generates() -> None:
    opened = untrained("pico", 512, 64)
    engine = Engine(opened)
    engine.stop_ids = frozenset()
    expected = engine.generate([PROMPT], max_tokens=8)[0]
    found = Ours(opened)(PROMPT, 8)
    assert tuple(found.ids) == expected.ids
    assert found.first_seconds > 0 < found.tokens_per_second
    half = narrowed(opened, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.model.head_weight, opened.model.head_weight)


def test_products_are_those_of_a_step() -> None:
    opened = untrained("pico", 512, 64)
    work = Products(opened)._work
    assert len(work) == 4 * opened.model.config.layers + 1
    assert Products(opened).per_second(3) > 0


def test_summary_compares_inside_a_round() -> None:
    def turns(*speeds: float) -> list[Completion]:
        return [Completion(1.0 / speed, speed, []) for speed in speeds]

    # The second round ran on a machine ten times slower: the ratios do not see it.
    peers = {"transformers-f32": turns(10.0, 1.0), "llama-f32": turns(60.0, 6.0), "llama-q8_0": turns(80.0, 8.0)}
    found = summary({"ours-f32": turns(40.0, 4.0), **peers}, products=[80.0, 8.0])
    assert found["goals"] == {"3.0 times transformers-f32": True, "0.7 times llama-f32": False}
    ratio = found["times_faster"]["ours-f32 / transformers-f32"]
    assert (ratio["low"], ratio["median"], ratio["high"]) == (4.0, 4.0, 4.0)
    assert found["times_sooner"]["ours-f32 / llama-q8_0"]["median"] == pytest.approx(0.5)
    assert found["share_of_products"]["median"] == pytest.approx(0.5)


def test_unknown_model() -> None:
    with pytest.raises(BadInput, match="nano"):
        main(["--models", "nanno"])
