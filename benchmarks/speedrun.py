"""Held-out bits per byte after so many minutes of training on a CPU: ours with the demo's defaults against the peer.

The peer is transformers' Qwen3ForCausalLM of the same shape with fused AdamW and a cosine schedule, at each learning
rate of a small grid; its best one counts, chosen by the very number that is compared. Both read the same store through
the same tokenizer, in rows of the same size, start their clock when compiling is done, and turn minutes into steps the
same way. The peer trains on left-to-right rows with position ids, so that it masks documents from each other; ours
trains as the demo does, mostly on infilling rows, and with `--l2r` on left-to-right rows too: that is the fair pair.
One code measures all of them, on the same held-out left-to-right rows, also on the way, while the clock stands still.

`--half` asks the question of the goal: whether ours, planned for half of the time, ends no worse than the peer's best
rate with all of it. Beside that stands when ours' run over the whole time passes the peer's last number; its rate has
cooled down only in part by then.

Runs take turns, and each result is written when it is there: the same command goes on where it was stopped.

    python -m benchmarks.speedrun --work runs/speedrun --minutes 5 --repetitions 3 --peer-lr 1e-3,3e-3,6e-3 --l2r --half
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
from inlay.train.callback import Callback
from inlay.train.config import TrainRun
from inlay.train.plan import TIMED_STEPS, UNPLANNED
from inlay.train.schedules.cosine import Cosine
from inlay.train.trainer import Trainer
from inlay.train.validate import Validator

MEASURE = "validation/l2r/bpb"
DIVERGED = 1e9
"""Stands for bits per byte that are not finite: such a rate must not win, and NaN is no JSON."""


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


def jobs(contenders: Sequence[str], minutes: Sequence[float], repetitions: int, half: bool = False) -> Iterator[Job]:
    """All runs, contenders taking turns: a repetition is complete before the next begins. With `half` each of ours is
    trained for half of the time too; a run that is asked for twice is there once."""
    seen: set[Job] = set()
    for repetition in range(repetitions):
        for budget in minutes:
            halved = [Job(name, budget / 2.0, repetition) for name in contenders if half and not _is_peer(name)]
            for job in [*halved, *(Job(name, budget, repetition) for name in contenders)]:
                if job not in seen:
                    seen.add(job)
                    yield job


def main(arguments: Sequence[str] | None) -> None:
    """Runs what is missing, prints, and writes JSON."""
    options = _parser().parse_args(arguments)
    if options.peer_setting not in SETTINGS:
        raise BadInput(f"unknown setting of the peer '{options.peer_setting}'; allowed: {', '.join(SETTINGS)}")
    minutes, rates = _numbers("--minutes", options.minutes), _numbers("--peer-lr", options.peer_lr)
    if min(options.repetitions, options.rows, options.points) < 1:
        raise BadInput("--repetitions, --rows and --points are at least 1")
    work = Path(options.work)
    run = demo_run(work, options.store, options.overrides)
    contenders = ["ours", *(["ours-l2r"] if options.l2r else []), *(f"peer at {rate:g}" for rate in rates)]
    measuring = {"rows": options.rows, "points": options.points}
    setup = {"run": run.to_dict(), "peer_setting": options.peer_setting, **measuring}
    file = work / "results.json"
    results = read_results(file, setup)
    planned = list(jobs(contenders, minutes, options.repetitions, options.half))
    for number, job in enumerate(planned):
        if job.key not in results:
            say(f"{number + 1} of {len(planned)}: {job.key}")
            found = train(job, run, options.peer_setting, options.rows, options.points)
            results[job.key] = found | {"machine": machine()}
            write_json(str(file), {"setup": setup, "results": results})
    table = summary(results, contenders, minutes, options.repetitions, options.half)
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


def train(job: Job, run: TrainRun, setting: str, rows: int, points: int = 1) -> dict[str, Any]:
    """One run to its end: its bits per byte, tokens, steps and seconds, and bits per byte at `points` places on the
    way, as plain JSON types."""
    data = run.to_dict()
    data["seed"] = job.repetition
    data["train"] |= {"steps": None, "tokens": None, "minutes": job.minutes}
    if job.contender != "ours":
        data["fim"]["rate"] = 0.0
    config = validate(TrainRun, data, where=job.key)
    curve = Curve(config, rows, points)
    return train_peer(job, config, setting, curve) if _is_peer(job.contender) else train_ours(config, curve)


class Curve:
    """Bits per byte at evenly spaced steps of a run, with the seconds of training until then: measuring does not count,
    and neither does the first step, which compiles."""

    def __init__(self, config: TrainRun, rows: int, points: int) -> None:
        plain = config.model_copy(update={"fim": config.fim.model_copy(update={"rate": 0.0})})
        self._validator = Validator(plain, rows)
        self._points = points
        self._began = self._paused = 0.0
        self.values: list[tuple[float, float]] = []
        """(seconds, bits per byte)."""

    def note(self, step: int, total: int | None, model: Transformer) -> None:
        """After each step, of which `step` are done."""
        now = time.monotonic()
        if step == 1:
            self._began = now
        if total is None or step * self._points // total == (step - 1) * self._points // total:
            return
        bits = float(self._validator.measure(model)[MEASURE])
        self.values.append((now - self._began - self._paused, bits if math.isfinite(bits) else DIVERGED))
        self._paused += time.monotonic() - now

    def result(self, tokens: int, steps: int) -> dict[str, Any]:
        """What a run came to, as plain JSON types."""
        seconds, bits = self.values[-1]
        return {"bits_per_byte": bits, "tokens": tokens, "steps": steps, "seconds": seconds, "curve": self.values}


class Measured(Callback):
    """A curve of our own trainer."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def step(self, trainer: Trainer) -> None:
        with trainer.whole_model() as model:
            self._curve.note(trainer.step, trainer.total_steps, model)


def train_ours(config: TrainRun, curve: Curve) -> dict[str, Any]:
    """The trainer's own run."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, RunDir.create(Path(folder) / "run", config))
        trainer.callbacks.append(Measured(curve))
        trainer.run_to_end()
    return curve.result(trainer.tokens, trainer.step)


def train_peer(job: Job, config: TrainRun, setting: str, curve: Curve) -> dict[str, Any]:
    """The peer for the same minutes, which become steps after a few timed ones, as in the trainer."""
    train, minutes = config.train, job.minutes
    data = config.data
    source = Rows(data.main, "train", config.fim, train.sequence_length, config.seed, data.shortest_piece)
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
    seen = cast(Transformer, AsOurs(peer))
    schedule = Cosine()
    timed: list[float] = []
    total: int | None = None
    step = 0
    with Loader(source, train.rows) as loader:
        while total is None or step < total:
            began = time.monotonic()
            peer.step(next(loader), schedule.multiplier(step, total or UNPLANNED))
            timed.append(time.monotonic() - began)
            step += 1
            if total is None and len(timed) > TIMED_STEPS:
                left = max(0.0, minutes * 60.0 - sum(timed[1:]))  # the first step compiles
                total = step + math.ceil(left / statistics.median(timed[1:]))
            curve.note(step, total, seen)
    return curve.result(step * train.tokens_per_step, step)


def summary(
    results: dict[str, Any], contenders: Sequence[str], minutes: Sequence[float], repetitions: int, half: bool = False
) -> list[dict[str, Any]]:
    """For each number of minutes: bits per byte and tokens of all, the peer's best rate, and how far apart they are;
    with `half` how ours does in half of the time."""
    table = []
    for budget in minutes:
        bits: dict[str, list[float]] = {}
        tokens: dict[str, float] = {}
        for contender in contenders:
            own = [results[Job(contender, budget, repetition).key] for repetition in range(repetitions)]
            bits[contender] = [float(result["bits_per_byte"]) for result in own]
            tokens[contender] = statistics.median(result["tokens"] for result in own)
        best = min((name for name in contenders if _is_peer(name)), key=lambda name: statistics.median(bits[name]))
        compared = {
            ours: {
                "difference": spread([a - b for a, b in zip(bits[ours], bits[best], strict=True)]).to_dict(),
                "ratio": spread([b / a for a, b in zip(bits[ours], bits[best], strict=True)]).to_dict(),
            }
            for ours in contenders
            if not _is_peer(ours)
        }
        goals = {ours: _goal(results, ours, budget, bits[best]) for ours in compared if half}
        table.append(
            {
                "minutes": budget,
                "bits_per_byte": {name: spread(values).to_dict() for name, values in bits.items()},
                "tokens": tokens,
                "best_peer": best,
                "against_best_peer": compared,
                "half_of_the_time": goals,
            }
        )
    return table


def _goal(results: dict[str, Any], ours: str, budget: float, peer: list[float]) -> dict[str, Any]:
    """Ours in half of `budget` minutes against the peer's bits per byte after all of it, repetition by repetition; and
    the minutes after which ours' whole run has passed them."""
    halved = [results[Job(ours, budget / 2.0, number).key]["bits_per_byte"] for number in range(len(peer))]
    curves = [results[Job(ours, budget, number).key]["curve"] for number in range(len(peer))]
    passed = [passes(curve, bits) for curve, bits in zip(curves, peer, strict=True)]
    minutes = [seconds / 60.0 for seconds in passed if seconds is not None]
    return {
        "bits_per_byte": spread(halved).to_dict(),
        "difference": spread([a - b for a, b in zip(halved, peer, strict=True)]).to_dict(),
        "reached": sum(a <= b for a, b in zip(halved, peer, strict=True)),
        "repetitions": len(peer),
        "passes_after_minutes": spread(minutes).to_dict() if len(minutes) == len(peer) else None,
    }


def passes(curve: Sequence[Sequence[float]], bits: float) -> float | None:
    """Seconds after which a curve of (seconds, bits per byte) is at `bits` or under it for the first time, on a
    straight line between its points; None where it never is. Before the first point nothing is known: that one counts.
    """
    if not curve:
        return None
    if curve[0][1] <= bits:
        return float(curve[0][0])
    for (before, high), (after, low) in pairwise(curve):
        if low <= bits:
            return before + (after - before) * (high - bits) / (high - low)
    return None


def _is_peer(contender: str) -> bool:
    return contender.startswith("peer")


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
        for name, goal in entry["half_of_the_time"].items():
            bits, difference, after = Spread(**goal["bits_per_byte"]), Spread(**goal["difference"]), None
            print(
                f"  {name} in {entry['minutes'] / 2.0:g} minutes: {bits.text(3)}, {difference.text(3)} against"
                f" {entry['best_peer']}; no worse in {goal['reached']} of {goal['repetitions']}"
            )
            if goal["passes_after_minutes"] is not None:
                after = Spread(**goal["passes_after_minutes"])
            print(f"  {name} passes it after {after.text(2)} minutes" if after else f"  {name} does not always pass it")


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
    parser.add_argument("--half", action="store_true", help="train ours for half of each time too: the goal")
    parser.add_argument("--points", type=int, default=10, help="measurements of each run, its end included")
    parser.add_argument("--rows", type=int, default=96, help="held-out rows that are scored")
    parser.add_argument("--store", help="a token store to read; by default the demo's is made")
    parser.add_argument("--json", help="file for the results and their summary")
    parser.add_argument("overrides", nargs="*", help="options as for `inlay demo`, such as run.model.layers=2")
    return parser


if __name__ == "__main__":
    run_main(main)
