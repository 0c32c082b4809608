"""The verbs that make something: `demo`, `prepare`, `train`."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from inlay.cli.overrides import take
from inlay.cli.runtime import launched

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Tail = Annotated[str, Parameter(show_default=False, negative=())]


def demo(
    *overrides: Tail,
    minutes: float | None = None,
    corpus: Path | None = None,
    out: Path | None = None,
    resume: Flag = False,
    new: Flag = False,
) -> None:
    """The whole way on real code, in minutes: prepare, train, evaluate, complete, report.

    A demo that was stopped goes on where it was when it is started again; one that is complete is left as it is.

    Parameters
    ----------
    overrides
        Training options as key=value or group=choice.
    minutes
        How long to train; the default fits a 2-core CPU.
    corpus
        A folder of your own code; by default the Python that is installed on this machine.
    out
        The folder for the store, the run and the report; runs/demo by default.
    resume
        Go on with the demo that is there, with the options it was begun with.
    new
        Leave the demo that is there, and begin in a new folder beside it.
    """
    from inlay.cli.demo import demo as run_demo

    given, rest = take(overrides, "out")
    place = out if given is None else Path(given)
    run_demo(minutes=minutes, corpus=_text(corpus), out=_text(place), overrides=rest, resume=resume, new=new)


def prepare(*overrides: Tail) -> None:
    """Turn source code into a token store.

    Example: inlay prepare source=folder source.path=CODE out=STORE

    Parameters
    ----------
    overrides
        Options as key=value or group=choice: out, source, source.path, tokenizer, split.validation_fraction ...
    """
    from inlay.config import validate
    from inlay.config.compose import compose
    from inlay.text.prepare import PrepareConfig
    from inlay.text.prepare import prepare as run_prepare
    from inlay.text.progress import RichProgress
    from inlay.text.source import left_out_line
    from inlay.text.syntax_stage import parsed_line, trouble_line

    config = validate(PrepareConfig, compose("prepare", overrides), where="command line")
    store = run_prepare(config, RichProgress())
    sizes = ", ".join(
        f"{name} {store.split(name).document_count:,} documents {store.split(name).token_count:,} tokens"
        for name in store.splits
    )
    syntax = store.manifest["syntax"]
    print(f"{config.out}: {'; '.join(filter(None, [sizes, parsed_line(syntax)]))}")
    taken = sum(store.split(name).document_count for name in store.splits)
    if left_out := left_out_line(store.manifest["dropped"], taken):
        print(f"{left_out} ({config.out}/manifest.json names the first of each)", file=sys.stderr)
    if trouble := trouble_line(syntax):
        print(trouble, file=sys.stderr)


def train(*overrides: Tail, config: Path | None = None) -> None:
    """Train a model on a token store, or go on with a run.

    Examples: inlay train data.path=STORE train.minutes=5 out=RUN, and after a stop: inlay train resume=RUN (with
    data.path=STORE where the store has moved);
    on 8 GPUs: torchrun --nproc-per-node 8 -m inlay train data.path=STORE train.minutes=60 out=RUN

    Parameters
    ----------
    overrides
        Options as key=value or group=choice: data.path, model, fim, optim, train.steps, train.minutes, out, resume ...
    config
        Start from this file, such as RUN/config.yaml, in place of the defaults.
    """
    from inlay.config import BadInput, validate
    from inlay.config.compose import apply_overrides, compose
    from inlay.config.yaml_file import load_yaml

    resumed, rest = take(overrides, "resume")
    if resumed is not None:
        from inlay.data.config import STORE_OVERRIDE
        from inlay.train.run import resume

        # How a run is spread over processes, and where its store is, decides none of its weights.
        others = [text for text in rest if not text.startswith("parallel.") and STORE_OVERRIDE.match(text) is None]
        if others or config is not None:
            extra = " ".join([*others, *([f"--config {config}"] if config is not None else [])])
            raise BadInput(f"a resumed run keeps its configuration: leave out {extra}, or start a new run")
        _print_once(resume(resumed, rest))
        return
    out, rest = take(rest, "out")
    data = compose("train", rest) if config is None else apply_overrides(load_yaml(config), rest)
    from inlay.train.config import TrainRun
    from inlay.train.run import train as run_train

    # A file says a model as much as an option does: of a run it is that of its start already.
    chosen = config is not None or any(text.lstrip("+").startswith(("model=", "model.")) for text in rest)
    run = run_train(validate(TrainRun, data, where=str(config or "command line")), out, model_chosen=chosen)
    _print_once(run)


def _print_once(result: object) -> None:
    """Prints in one of the processes that torchrun has started."""
    if launched(os.environ)[0] == 0:
        print(result)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())
