"""Reads what a run directory holds into what the report shows: curves, evaluations, samples, corpus and configuration.

Every part but the configuration may be missing, since a run that was stopped early still deserves its report; what is
missing is None or empty here and said so on the page. Numbers are taken from files, never computed a second way.
"""

import hashlib
import math
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from inlay.config import ConfigError
from inlay.config.files import json_lines, parse_json, read_bounded, read_bounded_text
from inlay.config.run_dir import RunDir
from inlay.evaluate.report_sums import Validated, read_validation
from inlay.evaluate.result_names import read_result
from inlay.infer.run_stores import main_manifest

Point = tuple[float, float]


WARM_UP = 2
"""First lines of the log whose speed does not count: they hold what compiling took."""


@dataclass(frozen=True)
class RunWarning:
    """What an early-warning rule said during the run, at its first such step; `times` counts all of them."""

    rule: str
    text: str
    step: int | None
    times: int = 1
    stops: bool = False
    """Whether it ended the run."""


@dataclass(frozen=True, eq=False)
class RunData:
    """One run as the report sees it."""

    name: str
    config_text: str
    config: dict[str, Any]
    curves: dict[str, list[Point]]
    """(tokens, value) by name of the logged value."""
    tokens: int | None
    seconds: float | None
    step: int | None
    parameters: int | None
    evaluations: dict[str, dict[str, Any]]
    """By the name of their files, which says what was evaluated (`result_names`)."""
    samples: list[dict[str, Any]]
    """Lines of samples.jsonl, in order of steps."""
    corpus: dict[str, Any] | None
    """The manifest of the main store as the run was trained on it, when that is known."""
    path: Path = Path()
    times: dict[str, list[Point]] = field(default_factory=dict)
    """(seconds of training, value) by name of the logged value."""
    planned_steps: int | None = None
    nonfinite: tuple[int, str] | None = None
    """Step and name of the first logged value that is no finite number."""
    warnings: list[RunWarning] = field(default_factory=list)
    validated: Validated | None = None
    """Held-out sums by document, when they are those of the last logged validation."""
    no_intervals: str = ""
    """Why `validated` is None; empty when it is there, or when nothing was validated."""
    store: str | None = None
    """Hash of the store that the rows came from."""
    tokenizer: str | None = None
    """Hash of the tokenizer."""
    vocab_size: int | None = None
    """Rows of the embedding."""
    unreadable: str = ""
    """Why the configuration could not be read; `config` is empty then."""

    @property
    def finished(self) -> bool | None:
        """Whether it trained every planned step; None where the plan is not known."""
        if self.planned_steps is None:
            return None
        return self.step is not None and self.step >= self.planned_steps

    def settled(self, *names: str) -> float | None:
        """The median of a logged rate behind the warm-up, under the first of `names` that was logged."""
        for name in names:
            values = [value for _, value in self.curves.get(name, [])]
            if values:
                return statistics.median(values[WARM_UP:] or values)
        return None

    def largest(self, name: str) -> float | None:
        """The largest logged value."""
        return max((value for _, value in self.curves.get(name, [])), default=None)

    def last(self, name: str) -> float | None:
        """The newest logged value."""
        points = self.curves.get(name)
        return points[-1][1] if points else None


def load_run(path: str | Path, *, strict: bool = True) -> RunData:
    """Reads the run directory at `path`.

    Raises BadInput when there is none, or with `strict` when its configuration is unreadable; without, `unreadable`
    says why.
    """
    run = RunDir.open(path)
    config: dict[str, Any] = {}
    unreadable = ""
    try:
        config = run.load_config()
    except ConfigError as error:
        if strict:
            raise
        unreadable = str(error)
    lines = list(json_lines(run.metrics_file))
    rows = _metrics(lines)
    last = rows[-1] if rows else {}
    record = _record(run)
    curves = _curves(rows, "tokens")
    validated, no_intervals = _validated(run, rows, curves)
    vocab_size = record.get("vocab_size")
    return RunData(
        name=run.path.resolve().name,
        path=run.path,
        config_text=read_bounded_text(run.config_file, errors="replace"),
        config=config,
        unreadable=unreadable,
        curves=curves,
        times=_curves(rows, "seconds"),
        planned_steps=_planned_steps(record, rows, config),
        nonfinite=_nonfinite(rows),
        warnings=_warnings(lines),
        validated=validated,
        no_intervals=no_intervals,
        store=validated.store if validated else _text((record.get("loader") or {}).get("store")),
        tokenizer=_tokenizer_hash(run),
        vocab_size=vocab_size if isinstance(vocab_size, int) else None,
        tokens=last.get("tokens"),
        seconds=last.get("seconds"),
        step=last.get("step"),
        parameters=_parameters(run),
        evaluations=_evaluations(run),
        samples=_samples(run.samples_file),
        corpus=_manifest(run, config),
    )


def _metrics(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Logged rows by step; of a step logged again after a resume the last word counts."""
    merged: dict[int, dict[str, Any]] = {}
    for row in lines:
        if isinstance(row.get("step"), int) and _finite(row.get("tokens")):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _finite(value: Any) -> bool:
    """Whether it is a number that can be drawn: no text, no yes or no, no NaN, nothing beyond a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _nonfinite(rows: list[dict[str, Any]]) -> tuple[int, str] | None:
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                return row["step"], name
    return None


def _warnings(lines: list[dict[str, Any]]) -> list[RunWarning]:
    """What guards have logged, in order, a rule once."""
    found: dict[str, RunWarning] = {}
    for row in lines:
        warning = row.get("warning")
        if not isinstance(warning, dict) or not isinstance(warning.get("text"), str):
            continue
        rule, step = str(warning.get("rule", "warning")), row.get("step")
        before = found.get(rule, RunWarning(rule, warning["text"], step if isinstance(step, int) else None, 0))
        stops = before.stops or warning.get("stops") is True
        found[rule] = replace(before, times=before.times + 1, stops=stops)
    return list(found.values())


def _record(run: RunDir) -> dict[str, Any]:
    """The newest readable checkpoint.json; empty when there is none."""
    for step in reversed(run.steps()):
        try:
            record = parse_json(read_bounded_text(run.checkpoint(step) / "checkpoint.json"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            return record
    return {}


def _planned_steps(record: dict[str, Any], rows: list[dict[str, Any]], config: dict[str, Any]) -> int | None:
    train = config.get("train") if isinstance(config.get("train"), dict) else {}
    planned = [record.get("total_steps"), *(row.get("plan/total_steps") for row in reversed(rows)), train.get("steps")]
    for value in planned:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    tokens, rows_of_step, length = (train.get(name) for name in ("tokens", "rows", "sequence_length"))
    if config.get("stages") or not (
        isinstance(tokens, int) and isinstance(rows_of_step, int) and isinstance(length, int)
    ):
        return None
    return math.ceil(tokens / (rows_of_step * length)) if rows_of_step * length > 0 else None


def _tokenizer_hash(run: RunDir) -> str | None:
    """Of the files that the run keeps its tokenizer in."""
    try:
        files = sorted(file for file in run.tokenizer.iterdir() if file.is_file())
        content = hashlib.sha256(b"".join(file.name.encode() + b"\0" + read_bounded(file) for file in files))
    except OSError:
        return None
    return content.hexdigest()[:16] if files else None


def _validated(run: RunDir, rows: list[dict[str, Any]], curves: dict[str, list[Point]]) -> tuple[Validated | None, str]:
    """The sums by document, if they say what the log says; else why there are none."""
    steps = [row["step"] for row in rows if any(_is_loss(name) for name in row)]
    if not steps:
        return None, ""
    found = read_validation(run.path)
    if found is None:
        return None, "no readable validation.json (runs of older versions have none)"
    if found.step != steps[-1]:
        return None, "validation.json is not of the last validation in the log"
    for kind, sums in found.kinds.items():
        logged = curves.get(f"validation/{kind}/loss")
        if logged and abs(sums.nats_per_token - logged[-1][1]) > 1e-3 * abs(logged[-1][1]):
            return None, f"validation.json does not add up to the {kind} loss in the log"
    return found, ""


def _is_loss(name: str) -> bool:
    return name.startswith("validation/") and name.endswith("/loss")


def _samples(path: Path) -> list[dict[str, Any]]:
    """Sampled gaps in order of steps; of a step sampled again after a resume the last word counts."""
    needed = ("step", "doc", "path", "category", "order", "prefix", "suffix", "gold", "middle", "stopped", "exact")
    found = {
        tuple(sample[name] for name in ("step", "doc", "category", "order", "gold", "prefix")): sample
        for sample in json_lines(path)
        if all(name in sample for name in needed)
    }
    return sorted(found.values(), key=lambda sample: sample["step"])


def _curves(rows: list[dict[str, Any]], axis: str) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for row in rows:
        if not _finite(row.get(axis)):
            continue
        for name, value in row.items():
            if name not in ("step", "tokens", "seconds") and _finite(value):
                curves.setdefault(name, []).append((float(row[axis]), float(value)))
    return curves


def _parameters(run: RunDir) -> int | None:
    """Counted from the newest readable weights: from shapes alone, the numbers themselves are not read."""
    for step in reversed(run.steps()):
        file = run.checkpoint(step) / "weights.safetensors"
        if not file.is_file():  # safetensors would wait for the writer of a pipe
            continue
        try:
            with safe_open(file, framework="numpy") as weights:
                return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            continue
    return None


def _evaluations(run: RunDir) -> dict[str, dict[str, Any]]:
    files = sorted(run.evaluations.glob("*.json")) if run.evaluations.is_dir() else []
    found = {file.stem: result for file in files if (result := read_result(file)) is not None}
    # Each task's plain name before those of its other evaluations, whatever sorts between.
    return dict(sorted(found.items(), key=lambda item: (str(item[1]["task"]), len(item[0]), item[0])))


def main_evaluation(evaluations: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The evaluation that stands for a run: on held-out gaps as usual, else on the most such gaps, else the first."""
    held_out = [result for result in evaluations.values() if result["task"] == "held_out"]
    fullest = max(held_out, key=lambda result: result["n"] if isinstance(result["n"], int) else 0, default=None)
    return evaluations.get("held_out") or fullest or next(iter(evaluations.values()), None)


def _manifest(run: RunDir, config: dict[str, Any]) -> dict[str, Any] | None:
    """That of the main store as the run was trained on it: one that was prepared again says nothing about the run."""
    manifest = main_manifest(run.path, config)
    return manifest if manifest is not None and isinstance(manifest.get("splits"), dict) else None
