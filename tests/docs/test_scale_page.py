"""docs/scale.md says what its script computes, and the script counts what the models are; the Slurm script does what it
says, with Slurm's programs replaced by small ones."""

import os
import re
import runpy
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "docs" / "slurm" / "train.sbatch"


@pytest.fixture(scope="module")
def generate() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate_scale.py"))


def test_the_tables_are_up_to_date(generate: dict[str, Any]) -> None:
    assert generate["render"](PAGE) == PAGE
    changed = PAGE.replace("7,113,814,016 |", "7,113,814,017 |")
    assert changed != PAGE
    assert generate["render"](changed) == PAGE


def test_sizes_are_those_of_the_page_s_own_arithmetic(generate: dict[str, Any]) -> None:
    small, large = (generate["size"](plan) for plan in generate["PLANS"])
    assert small.all == 1_241_583_616
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 13312
    gains = 32 * (2 * 4096 + 2 * 128) + 4096
    assert (large.matrices, large.all) == (32 * layer, 32 * layer + gains + 2**17 * 4096)
    for number in (layer, 32 * layer, gains, large.all):
        assert f"{number:,}" in PAGE
    # Six for each element of a matrix, and 12 L H D (T + 1) / 2 for causal attention.
    assert large.flops == pytest.approx(6 * (32 * layer + 2**17 * 4096) + 12 * 32 * 4096 * 4097 / 2)
    assert small.saved == 7 * 2048 + 3 * 512 + 3 * 8192
    assert f"{small.saved:,} numbers" in PAGE


def test_state_is_twelve_or_sixteen_bytes(generate: dict[str, Any]) -> None:
    small = generate["size"](generate["PLANS"][0])
    assert sum(generate["state"](small, "adamw").values()) == 16.0 * small.all
    assert sum(generate["state"](small, "muon").values()) == 12.0 * small.matrices + 16.0 * (small.all - small.matrices)


def test_every_option_that_the_page_names_exists() -> None:
    from inlay.train.config import TrainConfig
    from inlay.train.parallel import ParallelConfig

    for group, cls in (("train", TrainConfig), ("parallel", ParallelConfig)):
        for name in re.findall(rf"\b{group}\.(\w+)=", PAGE):
            assert name in cls.model_fields, name


# ---- the Slurm script ------------------------------------------------------------------------------------------------

STUBS = {
    "srun": 'exec "$@"',
    "scontrol": 'echo "scontrol $*" >> "$LOG"; [[ $1 == show ]] && echo node1',
    # What Slurm does: the signal goes to all processes of the step.
    "scancel": 'echo "scancel $*" >> "$LOG"; kill -USR1 "$(cat "$LOG.pid")"',
    "torchrun": 'echo "torchrun $*" >> "$LOG"; echo $$ > "$LOG.pid"; exec python3 -c "$PROGRAM"',
}
WAITING = """
import os, pathlib, signal, sys, time
assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN  # inherited by what starts processes
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
pathlib.Path(os.environ["LOG"] + ".ready").touch()
until = time.monotonic() + 60
while not asked and time.monotonic() < until:
    time.sleep(0.02)
sys.exit(1)
"""


def script(tmp_path: Path, program: str, *words: str) -> tuple["subprocess.Popen[bytes]", Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_GPUS_ON_NODE": "4",
    }
    log = tmp_path / "log"
    environment = os.environ | slurm | {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(log), "PROGRAM": program}
    return subprocess.Popen(["bash", str(SCRIPT), *words], env=environment), log


def test_it_starts_a_run_and_a_failure_without_progress_ends_it(tmp_path: Path) -> None:
    process, log = script(tmp_path, "raise SystemExit(1)", str(tmp_path / "run"), "model=nano")
    assert process.wait(60) == 1
    text = log.read_text()
    assert "--nnodes 2 --nproc-per-node 4 " in text
    assert f"--rdzv-endpoint node1:29500 -m inlay train model=nano out={tmp_path / 'run'}\n" in text
    assert "requeue" not in text


def test_a_fault_after_progress_queues_it_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "step-9").mkdir(parents=True)
    (run / "config.yaml").touch()
    program = f"import os; os.mkdir({str(run / 'checkpoints' / 'step-10')!r}); raise SystemExit(1)"
    process, log = script(tmp_path, program, str(run), "model=nano", "parallel.strategy=fsdp")
    assert process.wait(60) == 1
    assert f"-m inlay train resume={run} parallel.strategy=fsdp\n" in log.read_text()
    assert "scontrol requeue 7\n" in log.read_text()


def test_the_warning_before_the_time_limit_reaches_the_trainers_and_queues_it_again(tmp_path: Path) -> None:
    process, log = script(tmp_path, WAITING, str(tmp_path / "run"))
    until = time.monotonic() + 60
    while not Path(f"{log}.ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 1
    assert log.read_text().endswith("scancel --signal=USR1 7\nscontrol requeue 7\n")
