"""The two entries of training: a new run and a resumed one.

A run that starts from other weights saves them as its own checkpoint of step 0 before it trains, so that resuming never
needs the place they came from.
"""

import shutil
from collections.abc import Sequence

from inlay.config import BadInput, InlayError, validate
from inlay.config.files import disk_errors
from inlay.config.run_dir import RunDir
from inlay.model import checkpoint
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.start import Start, check_tokenizer, read_start
from inlay.train.trainer import Trainer


def train(config: TrainRun, out: str | None = None) -> RunDir:
    """Trains a new run into `out` (default runs/train-DATE-TIME). Raises BadInput when it exists; see `Trainer`.

    With `start_from` the run's configuration has the model of that place, whatever `config.model` is.
    """
    store, start = TokenStore.open(config.data.path), None
    if config.start_from is not None:
        start = read_start(config.start_from)
        check_tokenizer(start, store)
        # Validated again: options may not go together with this model.
        config = validate(TrainRun, {**config.to_dict(), "model": start.model.to_dict()}, where="start_from")
    run = RunDir.create(out, config)
    begin(config, run, start)
    return run


def begin(config: TrainRun, run: RunDir, start: Start | None = None) -> None:
    """Trains from the beginning in a run directory that was just created with `config`; `start` is what its
    `start_from` offers, when the caller has read it."""
    store = TokenStore.open(config.data.path, verify=False)
    _copy_tokenizer(store, run)
    if config.start_from is None:
        Trainer(config, run).run_to_end()
        return
    start = start or read_start(config.start_from)
    check_tokenizer(start, store)
    if start.model != config.model:
        raise BadInput(f"the model at start_from={config.start_from} is not that of {run.config_file}: start a new run")
    trainer = Trainer(config, run, start.vocab_size)
    start.fill(trainer.model)
    trainer.save()
    trainer.run_to_end()


def resume(path: str, overrides: Sequence[str] = ()) -> RunDir:
    """Goes on with a run from its newest undamaged checkpoint, with the configuration that is in it.

    Raises BadInput when there is no such run, when it is complete, or when its store or configuration is no longer the
    one it was trained with; InlayError when no checkpoint can be read; and what `Trainer.run_to_end` raises.
    """
    if overrides:
        raise BadInput(f"a resumed run keeps its configuration; to change it start a new one: {' '.join(overrides)}")
    run = RunDir.open(path)
    config = validate(TrainRun, run.load_config(), where=str(run.config_file))
    store = TokenStore.open(config.data.path)
    if config.start_from is not None and not checkpoint.folders(run.path):
        begin(config, run)  # killed before it had weights of its own
        return run
    trainer = Trainer(config, run, _vocab_size(run))
    trainer.load()
    if trainer.step == 0:  # it may have been killed before its tokenizer was there
        _copy_tokenizer(store, run)
    if trainer.total_steps is not None and trainer.step >= trainer.total_steps:
        raise BadInput(f"the run {path} is complete: {trainer.step} of {trainer.total_steps} steps")
    trainer.run_to_end()
    return run


def _vocab_size(run: RunDir) -> int | None:
    """The rows of the embedding that the run's checkpoints have; None when none can be read, which `load` reports."""
    for folder in checkpoint.folders(run.path):
        try:
            return int(checkpoint.read_record(folder)["vocab_size"])
        except InlayError:
            continue
    return None


def _copy_tokenizer(store: TokenStore, run: RunDir) -> None:
    with disk_errors(run.tokenizer):
        run.tokenizer.mkdir(exist_ok=True)
        for file in (store.path / "tokenizer").iterdir():
            shutil.copyfile(file, run.tokenizer / file.name)
