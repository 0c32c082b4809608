"""`inlay sweep`: several training runs side by side, one table and one plot."""

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
OWN = ("arms", "seeds", "measures")
"""Keys of the sweep itself; every other override goes to all of its runs."""


def sweep(*overrides: Tail, config: Path | None = None, plan: Flag = False) -> int:
    """Train several arms with several seeds each, and compare them.

    Examples: inlay sweep experiment=architecture data.path=STORE out=DIR, after a stop: inlay sweep resume=DIR

    Parameters
    ----------
    overrides
        experiment=NAME, out=DIR, resume=DIR; arms=[base,mla] (some of its arms), seeds=[0]; data.path, train.tokens and
        whatever else all runs have in common.
    config
        Start from this file, such as DIR/sweep.yaml, in place of an experiment.
    plan
        Only print what would be trained.
    """
    from inlay.config import BadInput
    from inlay.train.sweep import Sweep

    resumed, rest = take(overrides, "resume")
    if resumed is not None:
        if rest or config is not None or plan:
            raise BadInput("a resumed sweep keeps its configuration: leave out everything but resume=DIR")
        return _carry_on(Sweep.open(resumed))
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
    from inlay.train.sweep import SweepConfig

    name, rest = take(overrides, "experiment")
    if (name is None) == (file is None):
        have = ", ".join(list_groups()["experiment"])
        raise BadInput(f"give either experiment=NAME ({have}) or --config FILE")
    data: dict[str, Any] = compose_choice("experiment", name) if name is not None else load_yaml(str(file))
    own = [text for text in rest if text.lstrip("+~").partition("=")[0].split(".")[0] in OWN]
    arms = dict(data.get("arms") or {})
    data = apply_overrides(data, own)
    if isinstance(data["arms"], list):
        for arm in data["arms"]:
            if arm not in arms:
                raise BadInput(f"there is no arm '{arm}'{nearest(str(arm), arms)}")
        data["arms"] = {arm: arms[arm] for arm in data["arms"]}
    data["base"] = [*(data.get("base") or []), *(text for text in rest if text not in own)]
    return validate(SweepConfig, data, where=str(file or f"experiment={name}"))


def _print_plan(config: "SweepConfig") -> int:
    """Prints the arms with their overrides, and the tokens of the whole."""
    from rich.console import Console

    from inlay.train.sweep import planned

    # A plan needs no store.
    given = any(text.startswith("data.path=") for text in config.base)
    shown = config if given else config.model_copy(update={"base": (*config.base, "data.path=none")})
    arms = planned(shown)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{config.name}: {len(config.arms)} arms x {len(config.seeds)} seeds = {len(arms)} runs", markup=False
    )
    console.print(f"all: {' '.join(config.base)}", markup=False)
    for name, overrides in config.arms.items():
        console.print(f"  {name}: {' '.join(overrides)}", markup=False)
    tokens = sum(arm.tokens for arm in arms)
    console.print(f"{tokens:,} tokens in all, {tokens // len(arms):,} a run" if tokens else "limited by minutes")
    return 0


def _carry_on(sweep: "Sweep") -> int:
    """Trains what is left, measures, prints; 1 when a run has failed."""
    from inlay.text.progress import RichProgress
    from inlay.train.study import RESULT, measure
    from inlay.train.study_page import print_result, write_pages
    from inlay.train.sweep import train_all

    progress = RichProgress()
    command = [sys.executable, "-m", "inlay", "train"]
    try:
        failed = train_all(sweep, command, progress, lambda line: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: inlay sweep resume={sweep.path}") from None
    result = measure(sweep, failed, progress)
    written = [sweep.path / RESULT, *write_pages(sweep.path, result)]
    print_result(result)
    for path in written:
        print(path)
    for folder, reason in failed.items():
        print(f"inlay: {folder} failed: {reason} (see {sweep.path / 'logs' / folder}.txt)", file=sys.stderr)
    return 1 if failed else 0
