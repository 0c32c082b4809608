import json
from pathlib import Path

import pytest
from benchmarks.scaling import main

from inlay.config import BadInput


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whole_benchmark(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    sizes = [
        "model.layers=1",
        "model.width=32",
        "model.blocks.attention.mlp.inner=48",
        "train.compile=false",
        "fim=short",
    ]
    turns = ["--rounds", "1", "--steps", "20", "--rows", "4", "--length", "64", "--scaling", "strong"]
    main([*sizes, "--store", str(store), "--json", str(file), *turns])
    result = json.loads(file.read_text())
    assert set(result["tokens_per_second"]) == {"single", "strong-ddp-2", "strong-fsdp-2"}
    assert set(result["efficiency"]) == {"strong-ddp-2", "strong-fsdp-2"}
    assert all(value["median"] > 0.0 for value in result["tokens_per_second"].values())
    assert capsys.readouterr().out.count("of perfect") == 2


def test_steps_that_log_too_little_are_refused() -> None:
    with pytest.raises(BadInput, match="multiple of 10, at least 20"):
        main(["--steps", "15"])
