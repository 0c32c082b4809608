"""Trains the arms of an experiment for a few seeds, judges them all on one list of gaps, and keeps every finished run.

It decides that arms of one bench differ in `fim` alone: model, rows, pieces, their order and the optimizer are the
same, so runs of one seed are paired. A finished run is one line of `runs.jsonl`, found again by what made it (bench,
fim, seed, tokens, overrides, tokenizer): an arm that two experiments share is trained once, and a command that was
stopped goes on where it was. It refuses an arm that does not exist, and a report with nothing to show.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from benchmarks.common import machine, quoted_override, say

from experiments.benches import Bench
from experiments.gaps import Gap, draw_gaps
from experiments.measure import generated, left_to_right, teacher_forced
from inlay.config import BadInput, nearest, validate
from inlay.config.compose import compose
from inlay.config.run_dir import RunDir
from inlay.data.loader import Rows
from inlay.fim.format import Region
from inlay.infer.open import in_memory
from inlay.text.prepare import PrepareConfig, prepare
from inlay.text.store import TokenStore
from inlay.train.callback import Callback
from inlay.train.config import TrainRun
from inlay.train.trainer import Trainer

RUNS = "runs.jsonl"
VOCABULARY = 2048
L2R_ROWS = 400
LENGTH_ROWS = 100
"""Rows of which the lengths of the trained middles are counted."""
BORDERS = (0, 1, 4, 10, 20, 40, 70, 100)
"""Upper ends of the buckets in which those lengths are counted, in tokens."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to make FIM examples: the group `fim` of a run."""

    name: str
    bench: Bench
    fim: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """Arms to compare, and the tables that tell what came out."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    report: Callable[[dict[str, list[Record]]], str]
    """From the records of each arm (by seed, in order of seeds) to Markdown."""
    tokens: int = 1_600_000


@dataclass
class Options:
    """How to run: see `parser`."""

    out: Path
    store: str | None = None
    arms: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    tokens: int | None = None
    minutes: float | None = None
    threads: int = 1
    report: bool = False
    overrides: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)


# ---- running ---------------------------------------------------------------------------------------------------------


def run(experiments: Sequence[Experiment], options: Options) -> None:
    """Trains what is missing, seed by seed, so that early results already compare all arms; then prints all tables."""
    torch.set_num_threads(options.threads)
    file = options.out / RUNS
    known = [arm.name for experiment in experiments for arm in experiment.arms]
    for name in options.arms or ():
        if name not in known:
            raise BadInput(f"no arm '{name}'{nearest(name, known)}; there are {', '.join(dict.fromkeys(known))}")
    if not options.report:
        store = open_store(options)
        todo = {
            fingerprint(arm, seed, experiment.tokens, options, store.tokenizer.hash): (arm, seed, experiment.tokens)
            for seed in options.seeds
            for experiment in experiments
            for arm in chosen(experiment, options)
        }
        done = read(file)
        for number, (key, (arm, seed, tokens)) in enumerate(todo.items()):
            if key in done:
                continue
            if options.minutes is not None and time.monotonic() - options.began > 60.0 * options.minutes:
                say(f"no time left for {len(todo) - number} of {len(todo)} runs; the same command goes on")
                break
            say(f"{number + 1} of {len(todo)}: {arm.bench.name} {arm.name}, seed {seed}")
            append(file, {"key": key, **train(arm, seed, tokens, options, store)})
    told = [text for experiment in experiments if (text := report(experiment, options))]
    if not told:
        raise BadInput(f"no finished run in {file}: run without --report first")
    print("\n\n".join(told))


def chosen(experiment: Experiment, options: Options) -> list[Arm]:
    """The arms of an experiment that `--arms` names; all by default."""
    return [arm for arm in experiment.arms if options.arms is None or arm.name in options.arms]


def open_store(options: Options) -> TokenStore:
    """The store to read: the one named, or the demo's corpus with a small vocabulary, prepared once below `out`."""
    path = options.store or str(options.out / "store")
    if options.store is None and not Path(path).exists():
        overrides = ["source=demo", quoted_override("out", path), f"tokenizer.vocab_size={VOCABULARY}"]
        prepare(validate(PrepareConfig, compose("prepare", overrides), where="experiments"))
    return TokenStore.open(path, verify=False)


def configure(arm: Arm, seed: int, tokens: int, overrides: Sequence[str], store: str) -> TrainRun:
    """The training run of one arm and seed."""
    bench = arm.bench
    data = compose(
        "train",
        [
            "model=pico",
            quoted_override("data.path", store),
            f"data.shortest_piece={bench.shortest_piece}",
            f"train.sequence_length={bench.length}",
            f"train.rows={2048 // bench.length}",
            f"train.tokens={tokens}",
            f"seed={seed}",
            *overrides,
        ],
    )
    return validate(TrainRun, {**data, "fim": arm.fim, "callbacks": {}}, where=f"arm {arm.name}")


def fingerprint(arm: Arm, seed: int, tokens: int, options: Options, tokenizer: str) -> str:
    """Names a run by what makes it: equal arms of two experiments are one run."""
    bench = {"name": arm.bench.name, "length": arm.bench.length, "shortest_piece": arm.bench.shortest_piece}
    made_of = [bench, arm.fim, seed, options.tokens or tokens, options.overrides, tokenizer]
    return xxhash.xxh3_64_hexdigest(json.dumps(made_of, sort_keys=True).encode())


class Checkpoints(Callback):
    """Judges the model at the bench's shares of the run."""

    def __init__(self, shares: Sequence[float], judge: Callable[[Trainer], Record]) -> None:
        self._shares, self._judge = shares, judge
        self.curve: list[Record] = []

    def step(self, trainer: Trainer) -> None:
        total = trainer.total_steps or 1
        if any(trainer.step == max(1, round(share * total)) for share in self._shares):
            self.curve.append({"tokens": trainer.tokens, **self._judge(trainer)})


def train(arm: Arm, seed: int, tokens: int, options: Options, store: TokenStore) -> Record:
    """One run to its end, as a line of results."""
    config = configure(arm, seed, options.tokens or tokens, options.overrides, str(store.path))
    bench, split, data = arm.bench, store.split("validation"), config.data
    gaps = draw_gaps(split, store.tokenizer, bench.gaps, bench.context)
    fim = config.fim.model_copy(update={"rate": 0.0})
    plain = Rows(data.main, "validation", fim, config.train.sequence_length, 0, data.shortest_piece)

    def judge(trainer: Trainer, some: Sequence[Gap], rows: int) -> Record:
        trainer.model.eval()
        form = trainer.rows.maker.transform.format
        forced = teacher_forced(trainer.model, form, some, bench.orders)
        found = {"forced": forced, "l2r": left_to_right(trainer.model, plain, rows)}
        trainer.model.train()
        return found

    watch = Checkpoints(bench.checkpoints, lambda trainer: judge(trainer, gaps[: bench.head], L2R_ROWS // 4))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, RunDir.create(Path(folder) / "run", config))
        trainer.callbacks.append(watch)
        trainer.run_to_end()
    trained = time.monotonic() - began
    if not isinstance(trainer.rows, Rows):
        raise AssertionError("an experiment trains on one store")
    found = judge(trainer, gaps, L2R_ROWS)
    if bench.generate:
        trainer.model.eval()
        opened = in_memory(trainer.model, store.tokenizer, config.to_dict(), trainer.step)
        found["generated"] = generated(opened, split, gaps, bench.generate, bench.budget)
    return {
        "bench": bench.name,
        "arm": arm.name,
        "fim": arm.fim,
        "seed": seed,
        "tokens": trainer.tokens,
        "final": found,
        "curve": watch.curve,
        "lengths": trained_lengths(trainer.rows),
        "seconds": {"train": round(trained, 1), "all": round(time.monotonic() - began, 1)},
        "machine": machine(),
    }


def trained_lengths(rows: Rows) -> Record:
    """Middles of the first rows of training by length: `count` in each bucket of BORDERS (upper ends), and `tokens`
    of all middles, `open` those without a suffix behind them, out of `slots`."""
    plan, lengths, slots, last = rows.plan(0), [], 0, 0
    for row in range(min(LENGTH_ROWS, plan.row_count)):
        for placed in rows.maker.examples(plan, 0, row):
            regions = placed.example.row.regions
            slots += len(regions) - 1
            if (regions == Region.SENTINEL).any():
                lengths.append(int((regions == Region.MIDDLE).sum()))
                last += int(not (regions == Region.SUFFIX).any())
    where = np.searchsorted(BORDERS, lengths)
    count = np.bincount(where, minlength=len(BORDERS) + 1).tolist()
    return {"count": count, "tokens": sum(lengths), "open": last, "slots": slots}


# ---- results ---------------------------------------------------------------------------------------------------------


def append(file: Path, record: Record) -> None:
    """Adds one line in one write, so that two processes may share a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(record) + "\n").encode()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def read(file: Path) -> dict[str, Record]:
    """Finished runs by fingerprint; the newest of equal ones. Raises BadInput for a file that holds something else."""
    if not file.exists():
        return {}
    try:
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        return {record["key"]: record for record in records}
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"'{file}' is not a file of runs: move it away, or give another --out") from None


def report(experiment: Experiment, options: Options) -> str:
    """The experiment's tables over the seeds that every arm has finished; empty when there is none."""
    if not (options.out / RUNS).exists():
        return ""
    store = open_store(options)
    done = read(options.out / RUNS)
    found: dict[str, list[Record]] = {}
    for arm in chosen(experiment, options):
        keys = [fingerprint(arm, seed, experiment.tokens, options, store.tokenizer.hash) for seed in options.seeds]
        found[arm.name] = [done[key] for key in keys if key in done]
    if not found:
        return ""
    seeds = set.intersection(*({record["seed"] for record in records} for records in found.values()))
    if not seeds:
        return ""
    found = {name: [record for record in records if record["seed"] in seeds] for name, records in found.items()}
    tokens = next(iter(found.values()))[0]["tokens"]
    shown = ", ".join(map(str, sorted(seeds)))
    title = f"### {experiment.name}: {experiment.question}\n\nSeeds {shown}; {tokens / 1e6:.2f}M tokens each."
    return f"{title}\n\n{experiment.report(found)}"


# ---- command line ----------------------------------------------------------------------------------------------------


def parser(name: str) -> argparse.ArgumentParser:
    """Options of every experiment."""
    made = argparse.ArgumentParser(
        prog=name, description="Trains small models and compares them; see experiments/README.md."
    )
    made.add_argument("--out", default="runs/experiments", help="folder for the store and runs.jsonl")
    made.add_argument("--store", help="a token store to read; by default the demo's corpus is prepared below --out")
    made.add_argument("--arms", help="arms to run, with commas")
    made.add_argument("--seeds", default="0,1,2", help="seeds, with commas")
    made.add_argument("--tokens", type=int, help="training tokens of each run")
    made.add_argument("--minutes", type=float, help="begin no new run after so many minutes")
    made.add_argument("--threads", type=int, default=1, help="threads of one process; two processes may share --out")
    made.add_argument("--report", action="store_true", help="only print the tables of what is finished")
    made.add_argument("overrides", nargs="*", help="options as for `inlay train`, such as model.width=64")
    return made


def options_of(name: str, arguments: Sequence[str] | None) -> Options:
    """The command line as Options. Raises BadInput for numbers that make no sense."""
    given = parser(name).parse_intermixed_args(arguments)
    try:
        seeds = tuple(int(seed) for seed in given.seeds.split(","))
    except ValueError:
        raise BadInput(f"--seeds {given.seeds}: give whole numbers with commas between them, such as 0,1,2") from None
    if min(seeds) < 0 or given.threads < 1 or (given.tokens is not None and given.tokens < 1):
        raise BadInput("--seeds are at least 0, --threads and --tokens at least 1")
    return Options(
        out=Path(given.out),
        store=given.store,
        arms=tuple(given.arms.split(",")) if given.arms else None,
        seeds=seeds,
        tokens=given.tokens,
        minutes=given.minutes,
        threads=given.threads,
        report=given.report,
        overrides=tuple(given.overrides),
    )


def main(experiments: Sequence[Experiment], arguments: Sequence[str] | None = None) -> None:
    """Entry point of an experiment's script."""
    run(experiments, options_of(Path(sys.argv[0]).stem, arguments))
