"""The two entries of training: a new run and a resumed one."""

import shutil
from collections.abc import Sequence

from inlay.config import BadInput, validate
from inlay.config.files import disk_errors
from inlay.config.run_dir import RunDir
from inlay.text.store import TokenStore
from inlay.train.config import TrainRun
from inlay.train.trainer import Trainer


def train(config: TrainRun, out: str | None = None) -> RunDir:
    """Trains a new run into `out` (default runs/train-DATE-TIME). Raises BadInput when it exists; see `Trainer`."""
    TokenStore.open(config.data.path)
    run = RunDir.create(out, config)
    begin(config, run)
    return run


def begin(config: TrainRun, run: RunDir) -> None:
    """Trains from the beginning in a run directory that was just created with `config`."""
    _copy_tokenizer(TokenStore.open(config.data.path, verify=False), run)
    Trainer(config, run).run_to_end()


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
    trainer = Trainer(config, run)
    trainer.load()
    if trainer.step == 0:  # it may have been killed before its tokenizer was there
        _copy_tokenizer(store, run)
    if trainer.total_steps is not None and trainer.step >= trainer.total_steps:
        raise BadInput(f"the run {path} is complete: {trainer.step} of {trainer.total_steps} steps")
    trainer.run_to_end()
    return run


def _copy_tokenizer(store: TokenStore, run: RunDir) -> None:
    with disk_errors(run.tokenizer):
        run.tokenizer.mkdir(exist_ok=True)
        for file in (store.path / "tokenizer").iterdir():
            shutil.copyfile(file, run.tokenizer / file.name)
