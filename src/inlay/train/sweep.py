"""A sweep: points of a space (named arms, a grid, a search) times seeds, every one an ordinary run in its folder.

    runs/sweep-NAME-DATE/sweep.yaml        the sweep as it was asked for, written last: without it there is no sweep
                         ARM-seed0/        a run directory, as `inlay train` makes it
                         logs/ARM-seed0.txt
                         log.jsonl         one object per process that ended: seconds, exit status, load
                         search/, jobs/    what a search and a launcher keep

Which trials there are follows from sweep.yaml and the outcomes on the disk alone (`inlay.train.search`), each run
directory holds its resolved configuration, and starting a run and going on with a killed one are the same: `inlay train
resume=RUN`, one process each, for clean memory and caches. `inlay.train.sweep_run` trains them, and what they are
compared by is `inlay.train.study`'s matter.
"""

import functools
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from inlay.config import BadInput, Config, ConfigError, InlayError, Seed, validate
from inlay.config.compose import apply_overrides, compose, quoted
from inlay.config.files import disk_errors, json_lines, write_atomic
from inlay.config.run_dir import RunDir, config_text, default_path
from inlay.config.yaml_file import load_yaml
from inlay.model import checkpoint
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.launcher import launchers
from inlay.train.plan import Plan
from inlay.train.search import Curve, Outcome, Outcomes, Trial, Values, point_overrides, searches
from inlay.train.start import check_tokenizer, read_start
from inlay.train.transfer import TargetConfig

Measure = Literal["loss", "speed", "size", "decode"]
MOST_CORNERS = 64
_PATHS = re.compile(r"data\.path|start_from|data\.sources\.[a-z0-9_-]+\.path")
"""Options whose values are paths."""


class SweepConfig(Config):
    """What a sweep trains. An override is one of `inlay train`'s."""

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    base: tuple[str, ...] = ()
    """Overrides of every run; those of the command line come behind them."""
    arms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Overrides of each arm. The first arm is the one that the others are compared with. With a search, each of them
    is searched by itself."""
    search: searches.union() | None = None  # type: ignore[valid-type]
    """Which points are trained; null trains the arms as they are. `grid: {KEY: [...]}` at the top is short for
    `search: {kind: grid, axes: {KEY: [...]}}`."""
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, max_length=1000)
    """Every point is trained with each of them: the spread between seeds is what a difference has to exceed."""
    metric: str = "validation/l2r/loss"
    """What a search makes small: a value that the runs log, the last one of a run."""
    measures: tuple[Measure, ...] = ("loss", "speed", "size")
    """Columns of the table: validation loss, training speed, parameters and K/V bytes, decoding speed."""
    launcher: launchers.union() = Field(default_factory=lambda: launchers.get("local")())  # type: ignore[valid-type]
    """Where the runs are trained."""
    target: TargetConfig | None = None
    """The model that the learning rate is for; null reads the curve and transfers it nowhere."""

    @model_validator(mode="after")
    def _has_points(self) -> "SweepConfig":
        if not self.arms and self.search is None:
            raise ValueError("nothing to train: give arms, a grid or a search")
        return self

    @field_validator("arms")
    @classmethod
    def _names(cls, arms: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in arms:
            if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name[0] in "._-":
                raise ValueError(f"arm '{name}' would name a folder: use letters, digits, points and dashes")
        return arms

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are distinct and not negative")
        return seeds

    @property
    def branches(self) -> dict[str, tuple[str, ...]]:
        """The arms, or one without a name where only a search is given: overrides by name."""
        return self.arms or {"": ()}

    @property
    def adaptive(self) -> bool:
        """Whether it depends on the metric which runs there are."""
        return self.search is not None and self.search.adaptive

    @property
    def most_runs(self) -> int:
        """The most runs that it will train."""
        return len(self.branches) * (len(self.seeds) if self.search is None else self.search.most(self.seeds))


def _anchored(base: Sequence[str]) -> tuple[str, ...]:
    """Overrides of all runs with absolute paths: a sweep goes on, and makes further runs, from any folder."""
    found = []
    for text in base:
        key, _, value = text.partition("=")
        path = apply_overrides({"path": None}, [f"path={value}"])["path"] if _PATHS.fullmatch(key) else None
        relative = isinstance(path, str) and not os.path.isabs(path)
        found.append(f"{key}={quoted(os.path.abspath(path))}" if relative else text)
    return tuple(found)


def with_grid(data: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's plain data with `grid` written as the search that it is. Raises BadInput when there is a search too."""
    rest = {key: value for key, value in data.items() if key != "grid"}
    if not data.get("grid"):
        return rest
    if rest.get("search") is not None:
        raise BadInput("grid and search are both given: a grid is a search of its own, leave one of them out")
    return {**rest, "search": {"kind": "grid", "axes": data["grid"]}}


@dataclass(frozen=True)
class Slot:
    """A run that a sweep wants: its arm, the point in it, its seed."""

    branch: str
    name: str
    """Of arm and point; a table's row."""
    seed: int
    values: Values = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its run directory inside the sweep's."""
        return f"{self.name}-seed{self.seed}"


@dataclass(frozen=True)
class Arm:
    """One run of a sweep with its configuration."""

    name: str
    seed: int
    config: TrainRun
    values: Values = field(default_factory=dict)
    branch: str = ""

    @property
    def folder(self) -> str:
        """Its run directory inside the sweep's."""
        return f"{self.name}-seed{self.seed}"

    @property
    def tokens(self) -> int:
        """Row slots that it will train on. 0 for a run that is limited by minutes."""
        plan = Plan(self.config)
        return 0 if plan.total_steps is None else plan.tokens(plan.total_steps)


def planned(config: SweepConfig) -> list[Arm]:
    """The runs that are known before any has run, in the order of training: all with the first seed, then all with the
    next; and every corner of a search has been composed, so that what is wrong in it is said before anything runs.

    Raises ConfigError that names the arm whose configuration is wrong, BadInput for an override that an arm would
    silently beat.
    """
    _check_precision(config)
    if config.search is not None:
        for branch in config.branches:
            for values in config.search.corners()[:MOST_CORNERS] if config.adaptive else ():
                composed(config, branch, values, config.seeds[0])
    trials = {branch: [] if config.search is None else config.search.first(config.seeds) for branch in config.branches}
    return [
        Arm(slot.name, slot.seed, composed(config, slot.branch, slot.values, slot.seed), slot.values, slot.branch)
        for slot in slots_of(config, trials)
    ]


def slots_of(config: SweepConfig, trials: Mapping[str, list[Trial]]) -> list[Slot]:
    """The runs of the arms (`search` null) or of `trials` by arm, all with one seed before those with the next."""
    if config.search is None:
        return [Slot(name, name, seed) for seed in config.seeds for name in config.arms]
    found = [
        Slot(branch, f"{branch}-{trial.name}".lstrip("-"), trial.seed, trial.values)
        for branch, its in trials.items()
        for trial in its
    ]
    order = list(dict.fromkeys([*config.seeds, *(slot.seed for slot in found)]))
    return sorted(found, key=lambda slot: order.index(slot.seed))


def composed(config: SweepConfig, branch: str, values: Values, seed: int) -> TrainRun:
    """The configuration of one run; see `planned`."""
    fixed = {_key(text) for text in config.base}
    overrides = config.branches[branch]
    where = f"arm '{branch}'" if branch else " ".join(point_overrides(values))
    for text in [*overrides, *point_overrides(values)]:
        if "=" in text and _key(text) in fixed:
            raise BadInput(f"{where} sets {text}, which base or the command line sets too: drop one")
    for text in overrides:
        if _key(text) in values:
            raise BadInput(f"{where} sets {text}, which the search sets too: drop one")
    try:
        common = (*config.base, *overrides)
        point = [*point_overrides(values), f"seed={seed}"]
        if all("." in key and not key.endswith(".kind") for key in values):
            data = apply_overrides(_common(common), point)
        else:
            data = compose("train", [*common, *point])  # a choice of a group stands before keys inside it
        return validate(TrainRun, data, where=where)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Sweep:
    """A sweep on the disk. Make one with `create`, or `open` one that exists."""

    path: Path
    config: SweepConfig

    @classmethod
    def create(cls, path: str | Path | None, config: SweepConfig) -> "Sweep":
        """A new sweep with the run directories that are known; without `path` it is `runs/sweep-NAME-DATE`.

        Raises BadInput when the folder holds anything already, and what `planned` raises before anything is written.
        """
        config = config.model_copy(update={"base": _anchored(config.base)})
        arms = planned(config)
        target = default_path(f"sweep-{config.name}") if path is None else Path(path)
        if (target / "sweep.yaml").is_file():
            raise BadInput(f"the sweep '{target}' exists: go on with it (resume={target}) or choose another out=DIR")
        configs = [_with_start(arm.config) for arm in arms]
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            occupied = any(target.iterdir())
        if occupied:
            raise BadInput(f"'{target}' is not empty, and a sweep would mix with it: choose another out=DIR")
        with disk_errors(target):
            (target / "logs").mkdir()
        for arm, resolved in zip(arms, configs, strict=True):
            RunDir.create(target / arm.folder, resolved.anchored())
        write_atomic(target / "sweep.yaml", config_text(config, "sweep", target / "sweep.yaml"))
        return cls(target, config)

    @classmethod
    def open(cls, path: str | Path) -> "Sweep":
        """The sweep at `path`. Raises BadInput when there is none."""
        target = Path(path)
        if not (target / "sweep.yaml").is_file():
            raise BadInput(f"no sweep at '{target}': it has no sweep.yaml")
        return cls(target, validate(SweepConfig, load_yaml(target / "sweep.yaml"), where=str(target / "sweep.yaml")))

    def slots(self, outcomes: Outcomes | None = None, at_once: int = 0) -> list[Slot]:
        """The runs that are wanted so far, in the order of training. `at_once`: how many may be under way at a time;
        0 asks an adaptive search for no new one."""
        search = self.config.search
        if search is None:
            return slots_of(self.config, {})
        known = self.outcomes() if outcomes is None else outcomes
        trials: dict[str, list[Trial]] = {}
        for branch in self.config.branches:
            prefix = f"{branch}-" if branch else ""
            its = {
                (name.removeprefix(prefix), seed): outcome
                for (name, seed), outcome in known.items()
                if name.startswith(prefix)
            }
            trials[branch] = search.wanted(self.config.seeds, its, at_once, self.path / "search" / branch)
        return slots_of(self.config, trials)

    def arm(self, slot: Slot) -> Arm:
        """A run with its configuration, as its own file has it; its directory is made where it is not there yet."""
        path = self.path / slot.folder
        if not (path / "config.yaml").is_file():
            shutil.rmtree(path, ignore_errors=True)  # of a process that was killed while it made the directory
            resolved = composed(self.config, slot.branch, slot.values, slot.seed)
            RunDir.create(path, _with_start(resolved).anchored())
        run = RunDir.open(path)
        config = validate(TrainRun, run.load_config(), where=str(run.config_file))
        return Arm(slot.name, slot.seed, config, slot.values, slot.branch)

    @property
    def arms(self) -> list[Arm]:
        """Every run that there is, in the order of training."""
        return [self.arm(slot) for slot in self.slots() if (self.path / slot.folder / "config.yaml").is_file()]

    def run(self, arm: Arm | Slot) -> RunDir:
        """The run directory of an arm."""
        return RunDir(self.path / arm.folder)

    def log(self) -> list[dict[str, Any]]:
        """What processes have left in log.jsonl, in order."""
        return list(json_lines(self.path / "log.jsonl"))

    def outcomes(self) -> dict[tuple[str, int], Outcome]:
        """How the runs ended that have ended: complete, diverged, or pruned by the search.

        Raises InlayError for a complete run without the metric that a search needs.
        """
        ended = {entry["run"]: entry for entry in self.log()}
        found = {}
        for path in sorted(self.path.glob("*-seed*")):
            name, _, seed = path.name.rpartition("-seed")
            if seed.isdecimal() and (path / "config.yaml").is_file():
                outcome = self._outcome(RunDir(path), ended.get(path.name, {}))
                if outcome is not None:
                    found[name, int(seed)] = outcome
        return found

    def _outcome(self, run: RunDir, entry: Mapping[str, Any]) -> Outcome | None:
        if is_complete(run):
            curve = metric_curve(run, self.config.metric)
            if not curve and self.config.adaptive:
                logged = sorted({name for row in json_lines(run.metrics_file) for name in row if "/" in name})
                have = ", ".join(name for name in logged if name.startswith("validation/")) or "nothing like it"
                raise InlayError(f"{run} logged no '{self.config.metric}' for the search to compare; it logged {have}")
            value = curve[-1][1] if curve else math.nan
            return Outcome("diverged" if math.isnan(value) and curve else "complete", _finite(value), curve)
        state = entry.get("outcome")
        if state == "diverged":
            return Outcome("diverged", math.inf, metric_curve(run, self.config.metric))
        if state == "pruned":
            curve = metric_curve(run, self.config.metric)
            return Outcome("pruned", _finite(curve[-1][1]) if curve else math.inf, curve)
        return None


def is_complete(run: RunDir) -> bool:
    """Whether the newest readable checkpoint of a run is that of its last step."""
    try:
        _, record, _ = checkpoint.newest_good(checkpoint.folders(run.path))
    except InlayError:
        return False
    return record.get("total_steps") is not None and record["step"] >= record["total_steps"]


def metric_curve(run: RunDir, metric: str) -> Curve:
    """(tokens, value) of a logged metric; of a step logged again after a resume the last word counts."""
    found = {
        float(row["tokens"]): float(row[metric])
        for row in json_lines(run.metrics_file)
        if isinstance(row.get("tokens"), int) and isinstance(row.get(metric), int | float)
    }
    return tuple(sorted(found.items()))


def trained_tokens(run: RunDir) -> int:
    """Row slots that a run has logged as trained."""
    found = [row["tokens"] for row in json_lines(run.metrics_file) if isinstance(row.get("tokens"), int)]
    return max(found, default=0)


@functools.lru_cache(maxsize=64)
def _common(overrides: tuple[str, ...]) -> dict[str, Any]:
    """What the points of an arm have in common: composing takes a tenth of a second, setting a key in it does not."""
    return compose("train", overrides)


def _with_start(config: TrainRun) -> TrainRun:
    """With `start_from`, the model of that place, as `inlay train` has it."""
    if config.start_from is None:
        return config
    start = read_start(config.start_from)
    check_tokenizer(start, TokenStore.open(config.data.main, verify=False))
    return validate(TrainRun, {**config.to_dict(), "model": start.model.to_dict()}, where="start_from")


def _check_precision(config: SweepConfig) -> None:
    """Raises BadInput where this machine would decide the precision of runs that train on another."""
    given = [*config.base, *(text for overrides in config.arms.values() for text in overrides)]
    chosen = [text for text in given if _key(text) == "train.precision" and not text.endswith("=auto")]
    searched = config.search is not None and "train.precision" in config.search.parameters
    if config.launcher.elsewhere and not chosen and not searched:
        raise BadInput(
            "the runs train on other machines, and train.precision=auto would be decided by this one: add"
            " train.precision=bfloat16 (GPUs since 2020) or train.precision=float32"
        )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
