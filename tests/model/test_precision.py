"""Number formats follow the machine."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inlay.config import BadInput, validate
from inlay.model import precision
from inlay.train import blocks
from inlay.train.config import TrainConfig


@pytest.fixture(params=[True, False])
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU with and without bf16 units, and no GPU."""
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return request.param


def test_auto_reads_as_what_this_machine_multiplies_fast(units: bool) -> None:
    """A configuration that was read holds a format, so that the file of a run names it and other machines keep it."""
    config = validate(TrainConfig, {"steps": 1})
    assert config.precision == ("bfloat16" if units else "float32")
    assert validate(TrainConfig, config.to_dict()) == config
    for given in ("bfloat16", "float32"):
        assert validate(TrainConfig, {"steps": 1, "precision": given}).precision == given


def test_muon_iterates_in_the_fast_format(units: bool) -> None:
    matrices = torch.randn(2, 12, 20, generator=torch.Generator().manual_seed(0))
    seen: list[torch.dtype] = []
    product = torch.baddbmm

    def watched(*arguments: torch.Tensor, **options: float) -> torch.Tensor:
        seen.append(arguments[1].dtype)
        return product(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "baddbmm", watched)
        found = blocks.orthogonalise(matrices, 5)
    assert set(seen) == {torch.bfloat16 if units else torch.float32}
    assert found.dtype == torch.float32
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.6
    assert singular.max() < 1.3


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only: nothing else lists the units")
def test_units_are_read_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(precision.VARIABLE)
    for flags, expected in (("fma avx2", False), ("avx512f avx512_bf16 fma", True), ("asimd bf16 sve", True)):
        monkeypatch.setattr(Path, "read_text", lambda self, flags=flags, **_: f"flags : {flags}\n")
        assert precision.has_bfloat16_units.__wrapped__() is expected


def test_the_environment_overrules_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    # In every process: what a test starts has the environment of `tests/conftest.py`.
    for told in ("0", "1"):
        monkeypatch.setenv(precision.VARIABLE, told)
        assert precision.has_bfloat16_units.__wrapped__() is (told == "1")
        code = "from inlay.model.precision import has_bfloat16_units as h; print(int(h()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == told
    monkeypatch.setenv(precision.VARIABLE, "yes")
    with pytest.raises(BadInput, match="INLAY_BFLOAT16_UNITS is 'yes': give 1, 0"):
        precision.has_bfloat16_units.__wrapped__()
