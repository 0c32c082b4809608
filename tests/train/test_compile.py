import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.tiny_training import config

from inlay.config.run_dir import RunDir
from inlay.train import trainer as trainer_module
from inlay.train.compiler import why_not_compiled
from inlay.train.trainer import Trainer


def losses(store: Path, out: Path, **options: Any) -> list[float]:
    """Training loss of each of five steps."""
    run = config(
        store, train={"steps": 5, **options}, callbacks=dict.fromkeys(("progress", "validation", "checkpoints"))
    )
    trainer = Trainer(run, RunDir.create(out, run))
    found = []
    account = trainer.meters.note_batch

    def keep(each: Any, batch: Any, *others: Any) -> None:
        found.append(float((each * batch.weights.reshape(-1)).sum() / batch.weights.sum()))
        account(each, batch, *others)

    trainer.meters.note_batch = keep  # type: ignore[method-assign]
    trainer.run_to_end()
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.03)])
def test_compiled_and_eager_losses_agree(store: Path, tmp_path: Path, precision: str, tolerance: float) -> None:
    reason = why_not_compiled(torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)
    eager = losses(store, tmp_path / "eager", precision=precision)
    torch._dynamo.reset()
    compiled = losses(store, tmp_path / "compiled", precision=precision, compile=True)
    assert eager[0] != eager[-1]
    assert compiled == pytest.approx(eager, abs=tolerance)
    frames = torch._dynamo.utils.counters["frames"]
    assert frames["ok"] > 0, "nothing was compiled"
    assert "recompile_limit" not in str(torch._dynamo.utils.counters["unimplemented"])


def test_without_a_compiler_it_trains_eagerly_with_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer_module, "why_not_compiled", lambda device: "no C++ compiler ('g++' is not on the path)")
    run = config(store, train={"steps": 2, "compile": True})
    Trainer(run, RunDir.create(tmp_path / "run", run)).run_to_end()
    notices = [line for line in capsys.readouterr().err.splitlines() if "torch.compile" in line]
    assert len(notices) == 1
    assert "no C++ compiler" in notices[0]
    assert RunDir.open(tmp_path / "run").steps() == [2]


def test_the_reason_names_the_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    why_not_compiled.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    try:
        reason = why_not_compiled(torch.device("cpu"))
    finally:
        why_not_compiled.cache_clear()
    assert reason is not None
    assert "no C++ compiler" in reason
    assert "\n" not in reason


def test_with_a_compiler_there_is_no_reason() -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("this machine has no C++ compiler")
    why_not_compiled.cache_clear()
    assert why_not_compiled(torch.device("cpu")) is None


def test_a_compiler_that_fails_costs_speed_not_the_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("CppCompileError: C++ compile error\nomp.h: no such file")

        return call

    expected = losses(store, tmp_path / "eager", compile=False)
    monkeypatch.setattr(trainer_module, "why_not_compiled", lambda device: None)
    monkeypatch.setattr(trainer_module.torch, "compile", broken)
    said: list[str] = []
    monkeypatch.setattr(Trainer, "notice", lambda self, line: said.append(line))
    assert losses(store, tmp_path / "broken", compile=True) == expected
    assert len(said) == 1
    assert "CppCompileError" in said[0]
    assert "\n" not in said[0]
