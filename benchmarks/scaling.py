"""Tokens per second of one run on 1 and more processes, with DDP and with FSDP2, in turns.

On a CPU all contenders have the same cores: one process with all of them as threads, and N processes that share them,
so that a ratio of 1 is perfect and what is missing is the price of exchanging gradients. With GPUs each process has one
of its own, and the ratio is against N times one GPU. `strong` keeps the rows of a step, `weak` gives every process as
many rows as the single one has. Each turn is a run of its own under torchrun, timed between its logged steps (start-up
and compiling are outside); turns are interleaved, and told as the median with its range.

    python -m benchmarks.scaling --preset nano --rows 8 --length 512 --rounds 3 --json scaling.json
    python -m benchmarks.scaling --processes 1 2 4 8 --preset base-1b --rows 16 --length 2048 --vocab 131072
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import machine, open_store, quoted_override, run_main, say, spread, write_json

from inlay.cli.runtime import available_cores
from inlay.config import BadInput, InlayError
from inlay.config.compose import compose
from inlay.config.yaml_file import dump_yaml

LOGGED_EVERY = 10
"""Steps between two logged lines of a run."""


def main(arguments: Sequence[str] | None) -> None:
    """Measures, prints, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    if options.steps < 2 * LOGGED_EVERY or options.steps % LOGGED_EVERY:
        raise BadInput(f"--steps {options.steps}: take a multiple of {LOGGED_EVERY}, at least {2 * LOGGED_EVERY}")
    gpus = torch.cuda.device_count()
    if gpus and max(options.processes) > gpus:
        raise BadInput(f"--processes {max(options.processes)}: this machine has {gpus} GPUs")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    _print(result)
    write_json(options.json, result)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, as plain JSON types."""
    store = open_store(options.store, options.vocab, folder)
    contenders = [
        (scaling, strategy, world)
        for scaling in options.scaling
        for world in sorted(set(options.processes) | {1})
        for strategy in (["auto"] if world == 1 else options.strategies)
        if world > 1 or scaling == options.scaling[0]  # one process is the same under both
    ]
    speeds: dict[tuple[str, str, int], list[float]] = {contender: [] for contender in contenders}
    for number in range(options.rounds):
        for contender in contenders:
            scaling, strategy, world = contender
            rows = options.rows * (world if scaling == "weak" else 1)
            run = folder / f"{scaling}-{strategy}-{world}-{number}"
            speeds[contender].append(_tokens_per_second(options, store, run, strategy, world, rows))
            say(f"round {number + 1} of {options.rounds}: {_name(*contender)} {speeds[contender][-1]:,.0f} tokens/s")
    single = next(values for (_, _, world), values in speeds.items() if world == 1)
    gpu = torch.cuda.is_available()
    return {
        "benchmark": "scaling",
        "machine": machine(),
        "gpus": torch.cuda.device_count(),
        "preset": options.preset,
        "rows": options.rows,
        "length": options.length,
        "tokens_per_second": {_name(*key): spread(values).to_dict() for key, values in speeds.items()},
        # Of what the same hardware, or so many times the hardware, would do without any exchange.
        "efficiency": {
            _name(*key): spread(
                [after / before / (key[2] if gpu else 1) for before, after in zip(single, values, strict=True)]
            ).to_dict()
            for key, values in speeds.items()
            if key[2] > 1
        },
    }


def _name(scaling: str, strategy: str, world: int) -> str:
    return "single" if world == 1 else f"{scaling}-{strategy}-{world}"


def _tokens_per_second(
    options: argparse.Namespace, store: str, run: Path, strategy: str, world: int, rows: int
) -> float:
    """The median of what a run of its own logged, without its first line."""
    words = [quoted_override("data.path", store), f"model={options.preset}", f"optim={options.optim}"]
    words += [f"train.rows={rows}", f"train.sequence_length={options.length}", f"train.steps={options.steps}"]
    if world > 1:
        words.append(f"parallel.strategy={strategy}")
    data = compose("train", [*words, *options.overrides])
    data["callbacks"] = {"metrics": {"kind": "metrics"}}
    file = run.with_suffix(".yaml")
    file.write_text(dump_yaml(data), encoding="utf-8")
    launch = ["torch.distributed.run", f"--nproc-per-node={world}", f"--master-port={_free_port()}", "-m"]
    command = [sys.executable, "-m", *(launch if world > 1 else []), "inlay", "train"]
    command += ["--config", str(file), f"out={run}"]
    threads = max(1, available_cores() // (1 if torch.cuda.is_available() else world))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "INLAY_NO_REEXEC": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("inlay: ")]
        raise InlayError(said[0].removeprefix("inlay: ") if said else f"{' '.join(command)} ended with an error")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
    return spread(logged[1:]).median


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _print(result: dict[str, Any]) -> None:
    print(f"{result['preset']}, {result['rows']} rows of {result['length']}; {result['machine']['processor']}")
    for name, speed in result["tokens_per_second"].items():
        told = f"{name:<16} {speed['median']:>12,.0f} tokens/s ({speed['low']:,.0f} to {speed['high']:,.0f})"
        share = result["efficiency"].get(name)
        if share is not None:
            told += f"  {share['median']:.2f} ({share['low']:.2f} to {share['high']:.2f}) of perfect"
        print(told)


def _parser() -> argparse.ArgumentParser:
    gpus = torch.cuda.device_count()
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="options as for `inlay train`")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, gpus if gpus > 1 else 2])
    parser.add_argument("--strategies", nargs="+", default=["ddp", "fsdp"], choices=["ddp", "fsdp"])
    parser.add_argument("--scaling", nargs="+", default=["strong", "weak"], choices=["strong", "weak"])
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--optim", default="muon")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step of the single process")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40, help="steps of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", help="a token store; without it one is made of installed packages")
    parser.add_argument("--vocab", type=int, help="tokens of the store")
    parser.add_argument("--json", help="where to write the result")
    return parser


if __name__ == "__main__":
    run_main(main)
