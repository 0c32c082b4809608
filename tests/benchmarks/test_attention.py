import json
from pathlib import Path

import pytest
import torch
from benchmarks.attention import contenders, main, summary
from benchmarks.common import Turn

from inlay.config import BadInput
from inlay.model.masks import Strips


def test_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    sizes = ["--lengths", "64", "192", "--windows", "0", "70", "--tokens", "192", "--rounds", "2", "--turn", "1"]
    main([*sizes, "--precision", "float32", "--json", str(file)])
    result = json.loads(file.read_text())
    # A window that is no shorter than the row is none.
    assert [(case["length"], case["window"]) for case in result["cases"]] == [(64, None), (192, None), (192, 70)]
    for case in result["cases"]:
        assert set(case["milliseconds"]) == {"ours", "softcap", "whole", "sdpa"}
        assert all(0.0 < value["low"] <= value["median"] <= value["high"] for value in case["ratio"].values())
    assert capsys.readouterr().out.count("\n") == 6


def test_every_contender_computes_the_same() -> None:
    """What enters the residual stream; a cap far above the scores changes it little."""
    seen: list[torch.Tensor] = []
    masks: list[object] = []

    def keep(block: torch.nn.Module, inputs: tuple, output: tuple) -> None:
        seen.append(output[0].detach())
        masks.append(inputs[1].masks[70])

    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: keep(module, inputs, output) if type(module).__name__ == "Block" else None
    )
    try:
        for step in contenders(192, 2, 70, torch.float32, compiled=False).values():
            step()
    finally:
        hook.remove()
    assert len(seen) == 4
    for other, close in zip(seen[1:], (1e-3, 1e-5, 1e-5), strict=True):
        torch.testing.assert_close(other, seen[0], atol=close, rtol=1e-5)
    assert [type(mask) for mask in masks] == [Strips, Strips, torch.Tensor, torch.Tensor]


def test_a_ratio_is_that_of_the_other_to_ours() -> None:
    found = summary({"ours": [Turn(1.0, 2.0)] * 3, "whole": [Turn(3.0, 2.0)] * 3})
    assert found["ratio"]["whole"]["median"] == 3.0
    assert found["ratio_of_processor_time"]["whole"]["median"] == 1.0
    assert found["milliseconds"]["ours"]["median"] == 1000.0


def test_tokens_must_fill_rows() -> None:
    with pytest.raises(BadInput, match="--lengths 100: --tokens 4096 is no multiple"):
        main(["--lengths", "100"])
