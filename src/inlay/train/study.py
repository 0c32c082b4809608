"""What the runs of a sweep are compared by: from their files, and decoding measured here, to one result.

`result.json` holds numbers only, so that tables, plots and pages (`inlay.train.study_page`) can be made of it again at
any time: losses and curves of every seed, training speed, parameters, K/V bytes per token, decoding speed, and what the
learning-rate curves among them say (`inlay.train.study_rates`).
"""

import json
import os
import platform
import statistics
import time
from typing import Any

import torch

from inlay.config import BadInput, InlayError
from inlay.config.files import parse_json, read_bounded_text, write_atomic
from inlay.config.run_dir import RunDir
from inlay.evaluate.report_data import load_run
from inlay.infer.engine import GREEDY, Engine
from inlay.infer.open import open_model
from inlay.model.table import count
from inlay.text.progress import NoProgress, Progress
from inlay.text.store import TokenStore
from inlay.train.search import point_overrides
from inlay.train.study_rates import read_rates
from inlay.train.sweep import Sweep, is_complete

RESULT = "result.json"
KINDS = ("l2r", "psm", "spm")
"""Kinds of validation rows whose loss is compared: plain text, and whole rows in each order."""
ROUNDS = 7
"""Of decoding; every arm once a round, so that a neighbour on the machine disturbs all alike."""


def measure(sweep: Sweep, failed: dict[str, str], progress: Progress | None = None) -> dict[str, Any]:
    """The result of a sweep, written to its result.json: numbers of every run that is complete.

    `failed`: why, by folder, for runs that are not. Raises InlayError when no run is complete.
    """
    wanted = sweep.config.measures
    runs = {arm.folder: arm for arm in sweep.arms if is_complete(sweep.run(arm))}
    if not runs:
        raise InlayError(f"no run of {sweep.path} is complete; see {sweep.path / 'logs'}")
    first = next(iter(runs.values())).config.train
    processes = {entry["run"]: entry for entry in sweep.log()}
    outcomes = sweep.outcomes()
    rows: dict[str, dict[str, Any]] = {}
    for slot in sweep.slots(outcomes):
        if slot.name not in rows:
            overrides = [*sweep.config.branches[slot.branch], *point_overrides(slot.values)]
            rows[slot.name] = {"name": slot.name, "overrides": overrides, "values": dict(slot.values), "runs": []}
        outcome = outcomes.get((slot.name, slot.seed))
        if outcome is not None and outcome.state in ("diverged", "pruned"):
            rows[slot.name].setdefault(outcome.state, []).append(slot.seed)
    for entry in rows.values():
        mine = [arm for arm in runs.values() if arm.name == entry["name"]]
        if mine and "size" in wanted:
            train = mine[0].config.train
            vocab_size = _vocab_size(sweep.run(mine[0]))
            counted = count(mine[0].config.model, vocab_size, train.sequence_length)
            entry |= {
                "parameters": counted.parameters,
                "non_embedding": counted.non_embedding,
                "cache_bytes": counted.cache_bytes,
                "forward_flops": counted.flops,
            }
        for arm in mine:
            process = processes.get(arm.folder, {})
            entry["runs"].append(
                {"seed": arm.seed, "load_before": process.get("load_before"), **_of_run(sweep.run(arm), wanted)}
            )
    arms = list(rows.values())
    if "decode" in wanted:
        _add_decoding(sweep, arms, first.sequence_length, progress or NoProgress())
    # A trial that diverged in an earlier call is as much a failure as one that did now.
    diverged = {entry["run"]: entry["reason"] for entry in processes.values() if entry.get("outcome") == "diverged"}
    result = {
        "name": sweep.config.name,
        "reference": arms[0]["name"],
        "base": list(sweep.config.base),
        "seeds": list(sweep.config.seeds),
        "context": first.sequence_length,
        "measures": list(wanted),
        "arms": arms,
        "rates": read_rates(sweep, sweep.config.target),
        "failed": {**diverged, **failed},
        "machine": machine(),
    }
    write_result(sweep, result)
    return result


def write_result(sweep: Sweep, result: dict[str, Any]) -> None:
    """Writes a sweep's result.json."""
    write_atomic(sweep.path / RESULT, json.dumps(result, indent=1) + "\n")


def read_result(sweep: Sweep) -> dict[str, Any]:
    """What `measure` wrote. Raises BadInput, which says how to get it, for a sweep that has not ended once."""
    try:
        return parse_json(read_bounded_text(sweep.path / RESULT))
    except (OSError, ValueError):
        raise BadInput(f"{sweep.path} has no result yet: inlay sweep resume={sweep.path}") from None


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"torch": torch.__version__, "device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _of_run(run: RunDir, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The losses, curves and speed that a run has logged."""
    data = load_run(run.path)
    found: dict[str, Any] = {"tokens": data.tokens, "seconds": data.seconds}
    if "loss" in wanted:
        curves = {kind: data.curves.get(f"validation/{kind}/loss", []) for kind in KINDS}
        found["loss"] = {kind: points[-1][1] for kind, points in curves.items() if points}
        found["curves"] = {kind: [list(point) for point in points] for kind, points in curves.items() if points}
    if "speed" in wanted:
        # The first lines hold what compiling took.
        rates = [value for _, value in data.curves.get("tokens_per_second", [])]
        settled = rates[2:] or rates
        found["tokens_per_second"] = statistics.median(settled) if settled else None
    return found


def _add_decoding(sweep: Sweep, arms: list[dict[str, Any]], context: int, progress: Progress) -> None:
    """Adds tokens/s of greedy decoding with the cache to every arm: one row, its first complete seed, equal prompts."""
    engines = {}
    for entry in arms:
        if entry["runs"]:
            run = sweep.path / f"{entry['name']}-seed{entry['runs'][0]['seed']}"
            engines[entry["name"]] = Engine(open_model(run, dtype="float32"))
            # A completion that ends early would be timed over fewer tokens than another.
            engines[entry["name"]].stop_ids = frozenset()
    new = context // 4
    prompts = _prompts(sweep, context - new - 1)
    rates: dict[str, list[float]] = {name: [] for name in engines}
    with progress.phase("decode", (ROUNDS + 1) * len(engines), "completions") as phase:
        for round_number in range(ROUNDS + 1):
            prompt = prompts[round_number % len(prompts)]
            for name, engine in engines.items():
                rate = _decode_rate(engine, prompt, new)
                if round_number:  # the first round warms up
                    rates[name].append(rate)
                phase.advance(1)
    for entry in arms:
        if found := rates.get(entry["name"]):
            entry["decode"] = {"median": statistics.median(found), "low": min(found), "high": max(found)}


def _decode_rate(engine: Engine, prompt: list[int], new: int) -> float:
    """Tokens per second of `new` tokens behind `prompt`, its prefill not counted."""
    cache = engine.new_cache(1, len(prompt) + new + 1)
    with torch.inference_mode():
        logits = engine.prefill(cache, [prompt])
    if logits.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    engine.continue_row(cache, logits, new, GREEDY, None)
    return new / (time.perf_counter() - began)


def _prompts(sweep: Sweep, length: int) -> list[list[int]]:
    """The beginnings of the held-out documents that are long enough, of all of them when none is."""
    split = TokenStore.open(sweep.arms[0].config.data.main, verify=False).split("validation")
    order = sorted(range(len(split)), key=lambda index: split.lengths[index] < length)
    return [split.tokens(index, 0, min(length, int(split.lengths[index]))).tolist() for index in order[:ROUNDS]]


def _vocab_size(run: RunDir) -> int:
    from inlay.model import checkpoint

    return int(checkpoint.newest_good(checkpoint.folders(run.path))[1]["vocab_size"])
