"""Reads what a run directory holds into what the report shows: curves, evaluations, samples, corpus and configuration.

Every part but the configuration may be missing, since a run that was stopped early still deserves its report; what is
missing is None or empty here and said so on the page. Numbers are taken from files, never computed a second way.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from inlay.config.run_dir import RunDir

Point = tuple[float, float]


@dataclass(frozen=True)
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
    """By task."""
    samples: list[dict[str, Any]]
    """Lines of samples.jsonl, in order of steps."""
    corpus: dict[str, Any] | None
    """The store's manifest, when the store is still there."""


def load_run(path: str | Path) -> RunData:
    """Reads the run directory at `path`. Raises BadInput when there is none (or its configuration is unreadable)."""
    run = RunDir.open(path)
    config = run.load_config()
    rows = _metrics(run.metrics_file)
    last = rows[-1] if rows else {}
    return RunData(
        name=run.path.resolve().name,
        config_text=run.config_file.read_text(encoding="utf-8"),
        config=config,
        curves=_curves(rows),
        tokens=last.get("tokens"),
        seconds=last.get("seconds"),
        step=last.get("step"),
        parameters=_parameters(run),
        evaluations=_evaluations(run),
        samples=_samples(run.samples_file),
        corpus=_manifest(config),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a line that a kill left half written is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Logged rows by step; of a step logged again after a resume the last word counts."""
    merged: dict[int, dict[str, Any]] = {}
    for row in _lines(path):
        if isinstance(row.get("step"), int) and isinstance(row.get("tokens"), int | float):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _samples(path: Path) -> list[dict[str, Any]]:
    """Sampled gaps in order of steps; of a step sampled again after a resume the last word counts."""
    needed = ("step", "doc", "path", "category", "order", "prefix", "suffix", "gold", "middle", "stopped", "exact")
    found = {
        tuple(sample[name] for name in ("step", "doc", "category", "order", "gold", "prefix")): sample
        for sample in _lines(path)
        if all(name in sample for name in needed)
    }
    return sorted(found.values(), key=lambda sample: sample["step"])


def _curves(rows: list[dict[str, Any]]) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "tokens", "seconds") and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(name, []).append((float(row["tokens"]), float(value)))
    return curves


def _parameters(run: RunDir) -> int | None:
    """Counted from the newest readable weights: from shapes alone, the numbers themselves are not read."""
    for step in reversed(run.steps()):
        try:
            with safe_open(run.checkpoint(step) / "weights.safetensors", framework="numpy") as weights:
                return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except (OSError, SafetensorError):
            continue
    return None


def _evaluations(run: RunDir) -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(run.evaluations.glob("*.json")) if run.evaluations.is_dir() else ():
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(result, dict) and {"task", "n", "gold", "metrics", "slices", "settings"} <= result.keys():
            found[str(result["task"])] = result
    return found


def _manifest(config: dict[str, Any]) -> dict[str, Any] | None:
    path = (config.get("data") or {}).get("path")
    if not isinstance(path, str):
        return None
    try:
        manifest = json.loads((Path(path) / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("splits"), dict) else None
