"""`inlay sweep`: several training runs side by side, one table, the learning-rate curve, and where it leads."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from inlay.cli.overrides import take

if TYPE_CHECKING:
    from inlay.train.sweep import Sweep, SweepConfig

Tail = Annotated[str, Parameter(show_default=False, negative=())]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
OWN = ("name", "arms", "grid", "search", "seeds", "metric", "measures", "launcher", "target")
"""Keys of the sweep itself; every other override goes to all of its runs."""
NO_TARGET = {"model": None, "tokens": None, "batch": None, "sequence_length": None, "arm": None}


def sweep(*overrides: Tail, config: Path | None = None, plan: Flag = False) -> int:
    """Train several arms, a grid or a search with several seeds each, and compare them.

    Examples: inlay sweep experiment=lr-proxy data.path=STORE out=DIR, after a stop: inlay sweep resume=DIR, then
    inlay sweep transfer=DIR target.model=base-1b target.tokens=20000000000

    Parameters
    ----------
    overrides
        experiment=NAME, out=DIR, resume=DIR; grid={optim.lr:[0.01,0.02,0.04]}, search=refine or search=optuna,
        seeds=[0], arms=[base,mla] (some of its arms), launcher=slurm, target.model=PRESET; data.path, train.tokens and
        whatever else all runs have in common. transfer=DIR reads the curve of a sweep for another target.
    config
        Start from this file, such as DIR/sweep.yaml, in place of an experiment.
    plan
        Only print what would be trained, and how many tokens that is.
    """
    from inlay.config import BadInput
    from inlay.train.sweep import Sweep

    resumed, rest = take(overrides, "resume")
    if resumed is not None:
        if rest or config is not None or plan:
            raise BadInput("a resumed sweep keeps its configuration: leave out everything but resume=DIR")
        return _carry_on(Sweep.open(resumed))
    finished, rest = take(rest, "transfer")
    if finished is not None:
        if config is not None or plan:
            raise BadInput(
                "transfer=DIR reads a sweep that has been trained: give target.model=PRESET beside it, no more"
            )
        return _transfer(Sweep.open(finished), rest)
    out, rest = take(rest, "out")
    asked = read(rest, config)
    if plan:
        return _print_plan(asked)
    return _carry_on(Sweep.create(out, asked))


def read(overrides: Sequence[str], file: Path | None) -> "SweepConfig":
    """The sweep that a command line asks for. Raises BadInput or ConfigError in one line for a mistake in it."""
    from inlay.config import BadInput, nearest, validate
    from inlay.config.compose import apply_overrides, compose_choice, list_groups
    from inlay.config.yaml_file import load_yaml
    from inlay.train.sweep import SweepConfig, with_grid

    name, rest = take(overrides, "experiment")
    own = [text for text in rest if text.lstrip("+~").partition("=")[0].split(".")[0] in OWN]
    alone = any(text.startswith(("grid=", "search=", "search.kind=")) for text in own)
    sources = (name is not None) + (file is not None)
    if sources > 1 or (not sources and not alone):
        have = ", ".join(list_groups()["experiment"])
        raise BadInput(f"give experiment=NAME ({have}), --config FILE, or grid={{KEY:[VALUE,...]}} or search=KIND")
    data: dict[str, Any] = {"base": []}
    if name is not None:
        data = compose_choice("experiment", name)
    elif file is not None:
        data = load_yaml(file)
    arms = dict(data.get("arms") or {})
    if any(text.startswith("target.") for text in own):
        data["target"] = {**NO_TARGET, **(data.get("target") or {})}
    # A file need not name a launcher for the command line to change the usual one.
    usual = {"launcher": SweepConfig.model_fields["launcher"].get_default(call_default_factory=True).to_dict()}
    data = apply_overrides({**dict.fromkeys([*SweepConfig.model_fields, "grid"]), **usual, **data}, own)
    if isinstance(data["arms"], list):
        for arm in data["arms"]:
            if arm not in arms:
                raise BadInput(f"there is no arm '{arm}'{nearest(str(arm), arms)}")
        data["arms"] = {arm: arms[arm] for arm in data["arms"]}
    data["base"] = [*(data.get("base") or []), *(text for text in rest if text not in own)]
    given = with_grid({key: value for key, value in data.items() if value is not None})
    return validate(SweepConfig, given, where=str(file or (f"experiment={name}" if name else "command line")))


def _print_plan(config: "SweepConfig") -> int:
    """Prints what would be trained, and the tokens of the whole."""
    from rich.console import Console

    from inlay.train.sweep import composed, planned

    # A plan needs no store.
    given = any(text.startswith("data.path=") for text in config.base)
    shown = config if given else config.model_copy(update={"base": (*config.base, "data.path=none")})
    arms = planned(shown)
    console = Console(highlight=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, markup=False)

    search, seeds = config.search, len(config.seeds)
    if search is None:
        say(f"{config.name}: {len(config.arms)} arms x {seeds} seeds = {len(arms)} runs")
    else:
        of = f" for each of {len(config.arms)} arms" if config.arms else ""
        most = "at most " if search.adaptive else ""
        say(f"{config.name}: {search.kind}{of}, {seeds} seeds: {most}{config.most_runs} runs")
    say(f"all: {' '.join(config.base)}")
    for name, overrides in config.arms.items():
        say(f"  {name}: {' '.join(overrides)}")
    for line in () if search is None else search.outline(config.seeds):
        say(f"  {line}")
    tokens = sum(arm.tokens for arm in arms)
    if search is not None and search.adaptive:
        one = composed(shown, next(iter(config.branches)), search.corners()[0], config.seeds[0])
        each = arms[0].tokens if arms else _tokens(one)
        tokens = each * config.most_runs
    runs = config.most_runs
    say(f"{tokens:,} tokens in all, {tokens // runs:,} a run" if tokens else "limited by minutes")
    say(f"trained by {config.launcher.kind}, {config.launcher.slots} at a time")
    return 0


def _tokens(run: Any) -> int:
    from inlay.train.sweep import Arm

    return Arm("", 0, run).tokens


def _carry_on(sweep: "Sweep") -> int:
    """Trains what is left, measures, prints; 1 when a run has failed otherwise than by diverging in a search."""
    from inlay.python_process import python_command
    from inlay.text.progress import RichProgress
    from inlay.train.study import RESULT, measure
    from inlay.train.study_page import print_result, write_pages
    from inlay.train.sweep_run import train_all

    progress = RichProgress()
    command = python_command("-m", "inlay", "train")
    try:
        failed = train_all(sweep, command, progress, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt as error:
        jobs = f"{error}; " if str(error) else ""
        raise KeyboardInterrupt(f"interrupted; {jobs}go on with: inlay sweep resume={sweep.path}") from None
    result = measure(sweep, failed, progress)
    written = [sweep.path / RESULT, *write_pages(sweep.path, result)]
    print_result(result)
    for path in written:
        print(path)
    ended = {f"{name}-seed{seed}" for name, seed in sweep.outcomes()}
    bad = {folder: reason for folder, reason in failed.items() if folder not in ended or sweep.config.search is None}
    for folder, reason in bad.items():
        print(f"inlay: {folder} failed: {reason} (see {sweep.path / 'logs' / folder}.txt)", file=sys.stderr)
    return 1 if bad else 0


def _transfer(sweep: "Sweep", overrides: Sequence[str]) -> int:
    """Reads the curves of a trained sweep for a target, prints and writes them; BadInput when none can be read."""
    from inlay.config import BadInput, validate
    from inlay.config.compose import apply_overrides
    from inlay.train.study import RESULT, read_result, write_result
    from inlay.train.study_page import write_pages
    from inlay.train.study_rates import read_rates
    from inlay.train.study_words import rate_lines
    from inlay.train.transfer import TargetConfig

    other = [text for text in overrides if not text.startswith("target.")]
    if other or not overrides:
        extra = f", not {' '.join(other)}" if other else ""
        raise BadInput(f"transfer=DIR takes target.model=PRESET, target.tokens, target.batch ...{extra}")
    stored = sweep.config.target
    before = NO_TARGET if stored is None else stored.to_dict()
    data = apply_overrides({"target": before}, overrides)["target"]
    target = validate(TargetConfig, data, where="target")
    result = read_result(sweep)
    result["rates"] = read_rates(sweep, target)
    write_result(sweep, result)
    written = [sweep.path / RESULT, *write_pages(sweep.path, result)]
    for curve in result["rates"]:
        print("\n".join(rate_lines(curve)), end="\n\n")
    for path in written:
        print(path)
    if all(curve["transfer"] is None for curve in result["rates"]):
        raise BadInput(f"no rate to transfer: {next(curve['refused'] for curve in result['rates'])}")
    return 0
