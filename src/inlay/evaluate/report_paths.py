"""Which runs a report is about: run directories, checkpoints of one (the run is meant), and folders of runs (a sweep).

A folder stands for the runs inside it, in the order of its `sweep.yaml` where it has one (the first arm is what the
others are compared with), else by name with numbers as numbers. It refuses what holds no run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from inlay.config import BadInput
from inlay.config.run_dir import RunDir
from inlay.config.yaml_file import load_yaml

_CHECKPOINT = re.compile(r"step-\d+")


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The run directories that `paths` stand for, each once, in order.

    Raises BadInput for a path that is none and holds none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for run in _runs_of(Path(path).expanduser()):
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_of(path: Path) -> list[Path]:
    if (path / "config.yaml").is_file():
        return [path]
    real = path.resolve()
    for place in (path, real):  # a checkpoint, the folder of them, or a link to one
        above = place.parents[1] if _CHECKPOINT.fullmatch(place.name) and len(place.parents) > 1 else place.parent
        folder = place.parent if _CHECKPOINT.fullmatch(place.name) else place
        if folder.name == "checkpoints" and (above / "config.yaml").is_file():
            return [above]
    inside = [file.parent for pattern in ("*/config.yaml", "*/*/config.yaml") for file in path.glob(pattern)]
    nearest = min((len(run.parts) for run in inside), default=0)
    runs = [run for run in inside if len(run.parts) == nearest]
    if not runs:
        RunDir.open(path)  # says what is wrong with it
        raise BadInput(f"no run at '{path}'")
    order = _arms(path / "sweep.yaml")
    return sorted(runs, key=lambda run: (order.get(run.name, len(order)), _natural(run.name)))


def _arms(file: Path) -> dict[str, int]:
    """The place of each run of a sweep by the name of its folder; arms as they were given, seeds inside an arm."""
    if not file.is_file():
        return {}
    try:
        sweep = load_yaml(file)
    except BadInput:
        return {}
    arms, seeds = sweep.get("arms"), sweep.get("seeds")
    if not isinstance(arms, dict) or not isinstance(seeds, list):
        return {}
    folders = [f"{arm}-seed{seed}" for arm in arms for seed in seeds]
    return {folder: place for place, folder in enumerate(folders)}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts trial-2 before trial-10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
