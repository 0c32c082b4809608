"""Held-out bits per byte after so many minutes of training on a CPU: ours with the demo's defaults against the peer.

The peer is transformers' Qwen3ForCausalLM of the same shape with fused AdamW and a cosine schedule, at each learning
rate of a small grid; its best one counts, chosen by the very number that is compared. Both read the same store through
the same tokenizer, in rows of the same size, start their clock when compiling is done, and turn minutes into steps the
same way. The peer trains on left-to-right rows with position ids, so that it masks documents from each other; ours
trains as the demo does, mostly on infilling rows, and with `--l2r` on left-to-right rows too. One code measures all of
them, on the same held-out left-to-right rows. Runs take turns, and each result is written when it is there: the same
command goes on where it was stopped.

    python -m benchmarks.speedrun --work runs/speedrun --minutes 1,2,5 --repetitions 3 --peer-lr 1e-3,3e-3,6e-3 --l2r
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.common import Spread, machine, quoted_override, run_main, say, spread, write_json
from benchmarks.peer import SETTINGS, AsOurs, Peer

from inlay.cli.demo import schema
from inlay.config import BadInput, validate
from inlay.config.compose import compose
from inlay.config.run_dir import RunDir
from inlay.data.loader import Loader, Rows
from inlay.model import Transformer
from inlay.text.prepare import prepare
from inlay.text.progress import RichProgress
from inlay.train.config import TrainRun
from inlay.train.schedules.cosine import Cosine
from inlay.train.trainer import TIMED_STEPS, Trainer
from inlay.train.validate import Validator

MEASURE = "validation/l2r/bpb"


@dataclass(frozen=True)
class Job:
    """One training run: who, for how long, and which repetition (which is the seed)."""

    contender: str
    minutes: float
    repetition: int

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        return f"{self.contender}, {self.minutes:g} minutes, repetition {self.repetition}"


def jobs(contenders: Sequence[str], minutes: Sequence[float], repetitions: int) -> Iterator[Job]:
    """All runs, contenders taking turns: a repetition is complete before the next begins."""
    for repetition in range(repetitions):
        for budget in minutes:
            for contender in contenders:
                yield Job(contender, budget, repetition)


def main(arguments: Sequence[str] | None) -> None:
    """Runs what is missing, prints, and writes JSON."""
    options = _parser().parse_args(arguments)
    if options.peer_setting not in SETTINGS:
        raise BadInput(f"unknown setting of the peer '{options.peer_setting}'; allowed: {', '.join(SETTINGS)}")
    minutes, rates = _numbers("--minutes", options.minutes), _numbers("--peer-lr", options.peer_lr)
    if options.repetitions < 1 or options.rows < 1:
        raise BadInput("--repetitions and --rows are at least 1")
    work = Path(options.work)
    run = demo_run(work, options.store, options.overrides)
    contenders = ["ours", *(["ours-l2r"] if options.l2r else []), *(f"peer at {rate:g}" for rate in rates)]
    setup = {"run": run.to_dict(), "peer_setting": options.peer_setting, "rows": options.rows}
    file = work / "results.json"
    results = read_results(file, setup)
    planned = list(jobs(contenders, minutes, options.repetitions))
    for number, job in enumerate(planned):
        if job.key not in results:
            say(f"{number + 1} of {len(planned)}: {job.key}")
            results[job.key] = train(job, run, options.peer_setting, options.rows) | {"machine": machine()}
            write_json(str(file), {"setup": setup, "results": results})
    table = summary(results, contenders, minutes, options.repetitions)
    _print(table)
    write_json(options.json, {"benchmark": "speedrun", "setup": setup, "results": results, "summary": table})


def demo_run(work: Path, store: str | None, overrides: Sequence[str]) -> TrainRun:
    """The demo's training run without callbacks, on `store` or on the demo's own store, prepared in `work` when
    missing."""
    path = str(work / "store") if store is None else store
    data = compose("demo", [quoted_override("prepare.out", path), *overrides])
    data["run"]["callbacks"] = {}
    config: Any = validate(schema(), data, where="benchmark")
    if store is None and not Path(path).exists():
        say(f"preparing the demo's store in {path}")
        prepare(config.prepare, RichProgress())
    return cast(TrainRun, config.run)


def read_results(file: Path, setup: dict[str, Any]) -> dict[str, Any]:
    """The results that are there already. Raises BadInput when they were measured under another set-up."""
    if not file.exists():
        return {}
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        before, results = written["setup"], written["results"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"'{file}' is not a file of results: move it away, or give another --work") from None
    if before != setup:
        raise BadInput(f"'{file}' was measured under another set-up: give another --work, or the same options")
    return results


def train(job: Job, run: TrainRun, setting: str, rows: int) -> dict[str, Any]:
    """One run to its end; its bits per byte, tokens, steps and seconds as plain JSON types."""
    data = run.to_dict()
    data["seed"] = job.repetition
    data["train"] |= {"steps": None, "tokens": None, "minutes": job.minutes}
    if job.contender != "ours":
        data["fim"]["rate"] = 0.0
    config = validate(TrainRun, data, where=job.key)
    return train_peer(job, config, setting, rows) if job.contender.startswith("peer") else train_ours(config, rows)


def train_ours(config: TrainRun, rows: int) -> dict[str, Any]:
    """The trainer's own run."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, RunDir.create(Path(folder) / "run", config))
        trainer.run_to_end()
    return {
        "bits_per_byte": _bits(config, rows, trainer.model),
        "tokens": trainer.tokens,
        "steps": trainer.step,
        "seconds": trainer.seconds,
    }


def train_peer(job: Job, config: TrainRun, setting: str, rows: int) -> dict[str, Any]:
    """The peer for the same minutes, which become steps after a few timed ones, as in the trainer."""
    train, minutes = config.train, job.minutes
    data = config.data
    source = Rows(data.path, "train", config.fim, train.sequence_length, config.seed, data.shortest_piece)
    vocabulary = source.maker.transform.format.tokenizer.vocab_size
    rate = float(job.contender.removeprefix("peer at "))
    peer = Peer(
        config.model,
        vocabulary,
        train.sequence_length,
        SETTINGS[setting],
        rate=rate,
        documents=True,
        seed=config.seed,
    )
    schedule = Cosine()
    timed: list[float] = []
    total: int | None = None
    step, loss = 0, math.nan
    with Loader(source, train.rows) as loader:
        while total is None or step < total:
            began = time.monotonic()
            loss = peer.step(next(loader), schedule.multiplier(step, total or 1 << 40))
            timed.append(time.monotonic() - began)
            step += 1
            if total is None and len(timed) > TIMED_STEPS:
                left = max(0.0, minutes * 60.0 - sum(timed[1:]))  # the first step compiles
                total = step + math.ceil(left / statistics.median(timed[1:]))
    return {
        # A rate that is too high for the peer must not win, and NaN is no JSON.
        "bits_per_byte": _bits(config, rows, cast(Transformer, AsOurs(peer))) if math.isfinite(loss) else 1e9,
        "tokens": step * train.tokens_per_step,
        "steps": step,
        "seconds": sum(timed[1:]),
    }


def summary(
    results: dict[str, Any], contenders: Sequence[str], minutes: Sequence[float], repetitions: int
) -> list[dict[str, Any]]:
    """For each number of minutes: bits per byte and tokens of all, the peer's best rate, and how far apart they are."""
    table = []
    for budget in minutes:
        bits: dict[str, list[float]] = {}
        tokens: dict[str, float] = {}
        for contender in contenders:
            own = [results[Job(contender, budget, repetition).key] for repetition in range(repetitions)]
            bits[contender] = [float(result["bits_per_byte"]) for result in own]
            tokens[contender] = statistics.median(result["tokens"] for result in own)
        best = min(
            (name for name in contenders if name.startswith("peer")), key=lambda name: statistics.median(bits[name])
        )
        compared = {
            ours: {
                "difference": spread([a - b for a, b in zip(bits[ours], bits[best], strict=True)]).to_dict(),
                "ratio": spread([b / a for a, b in zip(bits[ours], bits[best], strict=True)]).to_dict(),
            }
            for ours in contenders
            if not ours.startswith("peer")
        }
        table.append(
            {
                "minutes": budget,
                "bits_per_byte": {name: spread(values).to_dict() for name, values in bits.items()},
                "tokens": tokens,
                "best_peer": best,
                "against_best_peer": compared,
            }
        )
    return table


def _bits(config: TrainRun, rows: int, model: Transformer) -> float:
    plain = config.model_copy(update={"fim": config.fim.model_copy(update={"rate": 0.0})})
    return float(Validator(plain, rows).measure(model)[MEASURE])


def _numbers(name: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{name} {text}: give numbers with commas between them, such as 1,2,5") from None
    if not all(0.0 < value < math.inf for value in values) or len(set(values)) < len(values):
        raise BadInput(f"{name} {text}: give different numbers above zero")
    return values


def _print(table: list[dict[str, Any]]) -> None:
    print("held-out bits per byte, left to right; median (range) over repetitions, and tokens trained on")
    for entry in table:
        print(f"\nafter {entry['minutes']:g} minutes")
        for name, value in entry["bits_per_byte"].items():
            mark = "  its best" if name == entry["best_peer"] else ""
            print(f"  {name:<16}{Spread(**value).text(3):<32}{entry['tokens'][name] / 1e6:6.2f}M tokens{mark}")
        for name, value in entry["against_best_peer"].items():
            ratio, difference = Spread(**value["ratio"]), Spread(**value["difference"])
            print(f"  {entry['best_peer']} / {name}: {ratio.text(2)}; difference {difference.text(3)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speedrun", description="Bits per byte per minute: ours against transformers' Qwen3."
    )
    parser.add_argument("--work", default="runs/speedrun", help="folder for the store and the results")
    parser.add_argument("--minutes", default="1,2,5", help="training times, with commas")
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each, with different seeds")
    parser.add_argument("--peer-lr", default="1e-3,3e-3,6e-3", help="learning rates of the peer, with commas")
    parser.add_argument("--peer-setting", default="autocast-sdpa-compiled", help=f"one of {', '.join(SETTINGS)}")
    parser.add_argument("--l2r", action="store_true", help="train ours on left-to-right rows too")
    parser.add_argument("--rows", type=int, default=96, help="held-out rows that are scored")
    parser.add_argument("--store", help="a token store to read; by default the demo's is made")
    parser.add_argument("--json", help="file for the results and their summary")
    parser.add_argument("overrides", nargs="*", help="options as for `inlay demo`, such as run.model.layers=2")
    return parser


if __name__ == "__main__":
    run_main(main)
