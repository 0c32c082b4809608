"""The run directory: where a run keeps its configuration, metrics, samples, checkpoints, tokenizer and report.

    runs/NAME/config.yaml      resolved; alone enough to start the same run again
              metrics.jsonl    one object per logged step
              samples.jsonl    infills of fixed held-out gaps during training
              validation.json  losses of the last validation, summed by document
              stores.json      the stores it was trained from: paths, content hashes, manifests
              checkpoints/step-N/
              tokenizer/
              evaluations/     one JSON file per evaluation
              report.html

It decides names and what counts as a run; it refuses to write into a directory that holds anything already.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from inlay.config.base import Config
from inlay.config.errors import BadInput
from inlay.config.files import disk_errors, write_atomic
from inlay.config.yaml_file import dump_yaml, load_yaml

_STEP = re.compile(r"step-([0-9]+)")


@dataclass(frozen=True)
class RunDir:
    """The paths of one run. Make one with `create` (a new run) or `open` (one that exists)."""

    path: Path

    @classmethod
    def create(cls, path: str | Path | None, config: Config, verb: str = "train") -> "RunDir":
        """A new run directory with `config` written to it; without `path` it is `runs/<verb>-<date>-<time>`.

        Raises BadInput when the directory holds anything already, or cannot be written.
        """
        target = default_path(verb) if path is None else Path(path)
        if target.exists() and not target.is_dir():
            raise BadInput(f"'{target}' is a file, not a place for a run: choose another with out=DIR")
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            occupied = any(target.iterdir())
        if occupied:
            if (target / "config.yaml").is_file():
                raise BadInput(f"the run '{target}' exists: go on with it (resume={target}) or choose another out=DIR")
            raise BadInput(f"'{target}' is not empty, and a run would mix with what is there: choose another out=DIR")
        run = cls(target)
        write_atomic(run.config_file, config_text(config, verb, run.config_file))
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunDir":
        """The run at `path`. Raises BadInput when there is none, or when `path` is something else."""
        target = Path(path)
        if not target.exists():
            raise BadInput(f"no run at '{target}'")
        if target.is_file():
            raise BadInput(f"'{target}' is a file; a run is a directory with a config.yaml")
        if not (target / "config.yaml").is_file():
            inside = sorted(inner.parent.name for inner in target.glob("*/config.yaml"))
            hint = f"; it holds the runs {', '.join(inside[-3:])}" if inside else ""
            raise BadInput(f"'{target}' is not a run directory: it has no config.yaml{hint}")
        return cls(target)

    def load_config(self) -> dict[str, Any]:
        """The resolved configuration as plain data. Raises ConfigError when the file cannot be read."""
        return load_yaml(self.config_file)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step` optimizer steps."""
        return self.checkpoints / f"step-{step}"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint folder, oldest first; temporary ones of a killed write are not counted."""
        if not self.checkpoints.is_dir():
            return []
        names = (_STEP.fullmatch(inner.name) for inner in self.checkpoints.iterdir() if inner.is_dir())
        return sorted(int(match[1]) for match in names if match)

    def __str__(self) -> str:
        return str(self.path)


def default_path(verb: str, now: datetime | None = None) -> Path:
    """`runs/<verb>-<yyyymmdd>-<hhmmss>`, with `-2`, `-3` ... when a run of the same second is there."""
    name = f"{verb}-{now or datetime.now():%Y%m%d-%H%M%S}"
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def config_text(config: Config, verb: str, path: Path) -> str:
    """The YAML text of a resolved configuration, with a first line that says how to start it again."""
    return f"# Starts the same run again: inlay {verb} --config {path} out=DIR\n{dump_yaml(config.to_dict())}"
