"""The two entries of training: a new run and a resumed one.

A run that starts from other weights saves them as its own checkpoint of step 0 before it trains, so that resuming never
needs the place they came from.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from inlay.config import BadInput, InlayError, validate
from inlay.config.compose import apply_overrides
from inlay.config.files import disk_errors, json_lines
from inlay.config.run_dir import RunDir
from inlay.data.config import STORE_OVERRIDE
from inlay.infer import run_stores
from inlay.model import checkpoint
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.memory import check_memory
from inlay.train.parallel import Parallel
from inlay.train.start import Start, check_model, check_tokenizer, read_start
from inlay.train.trainer import Interrupted, Trainer

SEEN_WITHIN = 30.0
"""Seconds after which a run directory that rank 0 has made must be there for every rank."""


def train(config: TrainRun, out: str | None = None, model_chosen: bool = False) -> RunDir:
    """Trains a new run into `out` (default runs/train-DATE-TIME). Raises BadInput when it exists; see `Trainer`.

    With `start_from` the run's configuration has the model of that place, whatever `config.model` is; `model_chosen`
    (somebody asked for that one) makes it a BadInput that names the keys in which the two differ. On many processes
    rank 0 makes the run directory, on a file system that all of them see.
    """
    with Parallel.join(config.parallel) as parallel:
        config, start, made, kept = config.anchored(), None, None, False
        with parallel.together():
            store = _open_stores(config, verify=parallel.main)[config.data.main]
            if config.start_from is not None:
                start = read_start(config.start_from)
                check_tokenizer(start, store)
                if model_chosen:
                    check_model(start, config.model, config.start_from)
                # Validated again: options may not go together with this model.
                config = validate(TrainRun, {**config.to_dict(), "model": start.model.to_dict()}, where="start_from")
            if parallel.main:
                kept = out is not None and Path(out).is_dir()
                made = RunDir.create(out, config)
        run = parallel.gather(made)[0]
        try:
            _begin(config, run, parallel, start)
        except Interrupted:
            raise
        except Exception:
            if parallel.main and not has_begun(run):
                _take_away(run, kept)
            raise
    return run


def has_begun(run: RunDir) -> bool:
    """Whether anything of worth is in a run directory: a step was trained, which its log or a checkpoint says."""
    steps = (line.get("step") for line in json_lines(run.metrics_file))
    return any(step > 0 for step in run.steps()) or any(isinstance(step, int) and step > 0 for step in steps)


def _take_away(run: RunDir, kept: bool) -> None:
    """Removes the directory of a run that was refused: its name stays free. `kept`: it was there before, empty."""
    shutil.rmtree(run.path, ignore_errors=True)
    if kept:
        run.path.mkdir(parents=True, exist_ok=True)


def begin(config: TrainRun, run: RunDir) -> None:
    """Trains from the beginning in a run directory that was just created with `config`."""
    with Parallel.join(config.parallel) as parallel:
        _begin(config, run, parallel)


def _begin(config: TrainRun, run: RunDir, parallel: Parallel, start: Start | None = None) -> None:
    """`start` is what `config.start_from` offers, when the caller has read it."""
    with parallel.together():
        _wait_for(run)
        stores = _open_stores(config, verify=False)
        store = stores[config.data.main]
        if parallel.main:
            _copy_tokenizer(store, run)
            run_stores.record(run.path, config.data, stores)
        if config.start_from is not None:
            start = start or read_start(config.start_from)
            check_tokenizer(start, store)
            if start.model != config.model:
                at = f"start_from={config.start_from}"
                raise BadInput(f"the model at {at} is not that of {run.config_file}: start a new run")
        vocab_size = store.tokenizer.vocab_size if start is None else start.vocab_size
        check_memory(config, vocab_size, parallel.world)
    if start is None:
        Trainer(config, run, parallel=parallel).run_to_end()
        return
    trainer = Trainer(config, run, start.vocab_size, parallel, start.fill)
    trainer.save()
    trainer.run_to_end()


def resume(path: str, overrides: Sequence[str] = ()) -> RunDir:
    """Goes on with a run from its newest undamaged checkpoint, with the configuration that is in it.

    `overrides` may change how it is spread over processes (`parallel.strategy=fsdp` ...) and say where its stores are
    now (`data.path=STORE`, `data.sources.NAME.path=STORE`): neither decides a weight. Raises BadInput when there is no
    such run, when it is complete, or when its store or configuration is no longer the one it was trained with;
    InlayError when no checkpoint can be read; and what `Trainer.run_to_end` raises.
    """
    others = [text for text in overrides if not text.startswith("parallel.") and STORE_OVERRIDE.match(text) is None]
    if others:
        raise BadInput(f"a resumed run keeps its configuration; to change it start a new one: {' '.join(others)}")
    run = RunDir.open(path)
    data = apply_overrides(run.load_config(), overrides) if overrides else run.load_config()
    config = validate(TrainRun, data, where=str(run.config_file))
    said = {match[1] for override in overrides if (match := STORE_OVERRIDE.match(override)) is not None}
    with Parallel.join(config.parallel) as parallel:
        with parallel.together():
            try:
                config = config.model_copy(update={"data": run_stores.found_data(run.path, config.data, said)})
            except BadInput as error:
                option = "data.sources.NAME.path" if config.data.sources else "data.path"
                hint = "" if said else f"; if it is somewhere else: inlay train resume={path} {option}=STORE"
                raise BadInput(f"{error}{hint}") from None
            stores = _open_stores(config, verify=parallel.main)
            store = stores[config.data.main]
        if config.start_from is not None and not parallel.gather(bool(checkpoint.folders(run.path)))[0]:
            _begin(config, run, parallel)  # killed before it had weights of its own
            return run
        trainer = Trainer(config, run, _vocab_size(run), parallel)
        trainer.load()
        with parallel.together():
            if trainer.step == 0 and parallel.main:  # it may have been killed before its tokenizer was there
                _copy_tokenizer(store, run)
            if parallel.main:  # where they are now, and of older versions for the first time
                run_stores.record(run.path, config.data, stores)
            if trainer.total_steps is not None and trainer.step >= trainer.total_steps:
                noted = "; where its store is was noted" if said else ""
                raise BadInput(f"the run {path} is complete: {trainer.step} of {trainer.total_steps} steps{noted}")
        trainer.run_to_end()
    return run


def _wait_for(run: RunDir) -> None:
    """Returns when this process sees the run, which on a network file system may be a moment after it was made."""
    until = time.monotonic() + SEEN_WITHIN
    while not run.config_file.is_file():
        if time.monotonic() > until:
            raise InlayError(
                f"{run} is not there on {os.uname().nodename}: put runs where all machines see them (out=DIR)"
            )
        time.sleep(0.1)


def _vocab_size(run: RunDir) -> int | None:
    """The rows of the embedding that the run's checkpoints have; None when none can be read, which `load` reports."""
    for folder in checkpoint.folders(run.path):
        try:
            return int(checkpoint.read_record(folder)["vocab_size"])
        except InlayError:
            continue
    return None


def _open_stores(config: TrainRun, verify: bool) -> dict[str, TokenStore]:
    """Opens every store of the run; by path."""
    return {path: TokenStore.open(path, verify=verify) for path in config.data.paths}


def _copy_tokenizer(store: TokenStore, run: RunDir) -> None:
    with disk_errors(run.tokenizer):
        run.tokenizer.mkdir(exist_ok=True)
        for file in (store.path / "tokenizer").iterdir():
            shutil.copyfile(file, run.tokenizer / file.name)
