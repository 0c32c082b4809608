"""A run's state on disk and back: weights, optimizer, counters, in the checkpoints of its directory.

Training stands still only while the state is copied into the memory of the CPU; a thread then writes the copy while
training goes on, one at a time. Weights are gathered and written whole by rank 0, once, because everything that opens
a run reads them whole; the optimizer's state is the larger part and needed by training alone, so each rank writes its
share. Nothing in a checkpoint depends on how many ranks there were: any number of them reads its parts of the files.

A checkpoint counts from the moment its folder is renamed, which rank 0 does when all ranks have their files on the
disk. Whatever happens before leaves a temporary folder that the next start of the run removes.
"""

import copy
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from inlay.config import BadInput, InlayError, validate
from inlay.config.files import disk_error
from inlay.config.lock import Lock
from inlay.model import checkpoint
from inlay.train import storage
from inlay.train.config import TrainRun
from inlay.train.distribute import whole
from inlay.train.parallel import Parallel

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer

FORMAT = 2
"""Of checkpoints; those without a number have the optimizer's state in one file always."""
WEIGHTS, OPTIMIZER = "weights", "optimizer"


class Saver:
    """Writes and reads the checkpoints of one run. Each rank has one, and all call its methods together."""

    def __init__(self) -> None:
        self._lock: Lock | None = None
        self._group: Any = None
        self._owner = ""
        self._stager: DefaultStager | None = None
        self._buffers: dict[str, Tensor] = {}
        self._writing: _Write | None = None

    def start(self, trainer: "Trainer") -> None:
        """Makes the run this process's own, and removes what killed ones have left unfinished. Done once, by itself.

        Raises BadInput that names the other process when one is at work on the run.
        """
        if self._lock is not None:
            return
        parallel, run = trainer.parallel, trainer.run.path
        with parallel.together():
            if parallel.main:
                lock = Lock.take(run)
                weakref.finalize(self, lock.release)
                if lock.missing is not None:
                    trainer.notices.append(f"{run} is not locked, {lock.missing}: start no second process on it")
                checkpoint.clear_unfinished(run, alone=lock.missing is None)
                self._lock = lock
        self._lock = self._lock or Lock(run)
        self._owner = parallel.gather(checkpoint.own_name())[0]
        if parallel.world > 1 and self._group is None:
            # Of its own, so that what the thread sends never comes between the collectives of training.
            timeout = timedelta(seconds=trainer.config.parallel.timeout_seconds)
            self._group = distributed.new_group(backend="gloo", timeout=timeout)

    def save(
        self,
        trainer: "Trainer",
        notes: dict[str, Any] | None = None,
        written: Callable[[], None] | None = None,
    ) -> None:
        """Copies the state of the current step and returns; it is written meanwhile.

        `notes` are added to the checkpoint's record; `written` is called by rank 0, in the thread, when the checkpoint
        is there. Raises InlayError, in one line, when the checkpoint before could not be written. Logs the seconds that
        training stood still as `checkpoint_stall`, and those that the one before was being written as
        `checkpoint_write`.
        """
        began = time.monotonic()
        self.start(trainer)
        before = self._writing
        self.wait()
        trainer.meters.pool(trainer.parallel)
        folder = trainer.run.checkpoint(trainer.step)
        record = copy.deepcopy({**_record(trainer), **(notes or {})})
        state = self._stage(trainer)
        self._writing = _Write(state, folder, self._owner, record, written, self._group, trainer.parallel)
        trainer.meters.note("checkpoint_stall", time.monotonic() - began)
        if before is not None:
            trainer.meters.note("checkpoint_write", before.seconds)

    def wait(self) -> None:
        """Returns when nothing is being written any more. Raises InlayError when that failed."""
        if self._writing is not None:
            self._writing.thread.join()
            writing, self._writing = self._writing, None
            if writing.error is not None:
                raise writing.error

    def finish(self) -> None:
        """Waits for the last checkpoint, raises what went wrong with it, and leaves the run to others."""
        try:
            self.wait()
        finally:
            if self._stager is not None:
                self._stager.close()
                self._stager = None
            self._buffers = {}
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def load(self, trainer: "Trainer") -> None:
        """Takes the newest undamaged checkpoint of the run; with none it starts from the beginning, with a notice.

        Raises BadInput when the store or the configuration is another than the checkpoint's, or another process is at
        work on the run; InlayError when every checkpoint is damaged.
        """
        run, parallel = trainer.run, trainer.parallel
        self.start(trainer)
        candidates = parallel.gather(checkpoint.folders(run.path) if parallel.main else [])[0]
        if not candidates:
            trainer.notices.append("the run has no checkpoint yet: it starts from the beginning")
            return
        folder, record, skipped = newest_good(candidates, parallel)
        trainer.notices += skipped
        self._check(trainer, folder, record)
        with parallel.together():
            reader = storage.SafetensorsReader(folder, list(record["hashes"]))
            state = _targets(trainer, folder, reader)
        storage.load(state, reader, self._group)
        prefix = storage.key(OPTIMIZER, "")
        trainer.optimizer.load_state(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        trainer.restore(record)
        for callback in trainer.callbacks:
            if callback.name in record.get("callbacks", {}):
                callback.load_state(record["callbacks"][callback.name])
        world = record.get("world", 1)
        if world != parallel.world:
            trainer.notices.append(
                f"{folder.name} was saved by {_processes(world)} and goes on with {parallel.world}:"
                " the same rows in the same order, weights equal but for rounding"
            )

    def _check(self, trainer: "Trainer", folder: Path, record: dict[str, Any]) -> None:
        run = trainer.run
        if record["loader"]["store"] != trainer.rows.store_hash:
            stores = " or ".join(trainer.config.data.paths)
            raise BadInput(f"the store {stores} is not the one that {run.path} was trained on")
        # Validated first: a run from before an option existed has its default.
        recorded = validate(TrainRun, record["config"], where=str(folder)).to_dict()
        then, now = _deciding(recorded), _deciding(trainer.config.to_dict())
        changed = ", ".join(group for group in now if then.get(group) != now[group])
        if changed:
            file = run.config_file
            raise BadInput(
                f"{file} has changed in {changed} since {folder.name} was saved: put it back, or start a new run with:"
                f" inlay train --config {file} out=DIR"
            )

    def _stage(self, trainer: "Trainer") -> dict[str, Tensor]:
        """A copy in the CPU's memory of what this rank writes. The memory is kept for the next one."""
        parallel = trainer.parallel
        fast = parallel.device.type == "cuda"  # copies into pinned memory run at the full speed of the bus
        state = trainer.optimizer.state()
        own = share({name: tensor for name, tensor in state.items() if not isinstance(tensor, DTensor)}, parallel)
        kept = {name: tensor for name, tensor in state.items() if isinstance(tensor, DTensor) or name in own}
        named = {storage.key(OPTIMIZER, name): tensor for name, tensor in kept.items()}
        options = StagingOptions(fast, False, False, fast)
        try:
            self._stager = self._stager or DefaultStager(options)
            staged = cast("dict[str, Tensor]", self._stager.stage(named))
        except KeyError:  # before torch 2.13 a stager serves once, and forgets how to copy when it has
            self._stager = DefaultStager(options)
            staged = cast("dict[str, Tensor]", self._stager.stage(named))
        for name, tensor in _whole(trainer.model):
            if parallel.main:
                buffer = self._buffers.get(name)
                if buffer is None:
                    buffer = self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=fast)
                staged[storage.key(WEIGHTS, name)] = buffer.copy_(tensor)
        return staged


class _Write:
    """One checkpoint that a thread is writing. `error` is there when `thread` has ended without one."""

    def __init__(
        self,
        state: dict[str, Tensor],
        folder: Path,
        owner: str,
        record: dict[str, Any],
        written: Callable[[], None] | None,
        group: Any,
        parallel: Parallel,
    ) -> None:
        self._arguments = state, folder, owner, record, written, group, parallel
        self.error: InlayError | None = None
        self.seconds = 0.0
        self.thread = threading.Thread(target=self._run, name=f"writes {folder.name}")
        self.thread.start()

    def _run(self) -> None:
        state, folder, owner, record, written, group, parallel = self._arguments
        began = time.monotonic()
        temporary = checkpoint.temporary_name(folder, owner)

        def finish(hashes: dict[str, str]) -> None:
            checkpoint.commit(temporary, folder, record, hashes)
            if written is not None:
                written()

        try:
            storage.save(state, temporary, finish, group)
        except BaseException as error:
            self.error = _one_line(error, folder, parallel)
            if parallel.main:
                rmtree(temporary, ignore_errors=True)
        self.seconds = time.monotonic() - began


def newest_good(candidates: list[Path], parallel: Parallel) -> tuple[Path, dict[str, Any], list[str]]:
    """`checkpoint.newest_good` over all files of a checkpoint, which the ranks share among them. Collective."""
    reasons: list[tuple[Path, str]] = []
    for folder in candidates:
        reason, record = None, None
        try:
            record = checkpoint.read_record(folder)
            for name, expected in sorted(record["hashes"].items())[parallel.rank :: parallel.world]:
                checkpoint.check_file(folder, name, expected)
        except InlayError as error:
            reason = str(error)
        reason = next((found for found in parallel.gather(reason) if found is not None), None)
        if reason is None and record is not None:
            return folder, record, checkpoint.skipped(reasons, folder)
        reasons.append((folder, str(reason)))
    raise checkpoint.none_good(reasons)


def _targets(trainer: "Trainer", folder: Path, reader: storage.SafetensorsReader) -> dict[str, Tensor]:
    """What a checkpoint is read into: the parameters themselves, and new tensors for the optimizer's state, sharded
    where a state is of its parameter's shape and that is."""
    parameters = {storage.key(WEIGHTS, name): value.detach() for name, value in trainer.model.named_parameters()}
    stored = {name for name in reader.tensors if name.startswith(storage.key(WEIGHTS, ""))}
    wrong = stored ^ parameters.keys()
    wrong |= {name for name in stored & parameters.keys() if reader.tensors[name].size != parameters[name].shape}
    if wrong:
        name = min(wrong).partition(":")[2]
        raise InlayError(f"{len(wrong)} weights in {folder} are not those of the model, the first: '{name}'")
    targets: dict[str, Tensor] = dict(parameters)
    for name, tensor in reader.tensors.items():
        if name in stored:
            continue
        dtype = tensor.properties.dtype
        owner = parameters.get(storage.key(WEIGHTS, name.partition(":")[2].partition("|")[0]))
        if isinstance(owner, DTensor) and owner.shape == tensor.size:
            targets[name] = torch.empty_like(owner, dtype=dtype)
        else:
            device = trainer.parallel.device if owner is None else owner.device
            targets[name] = torch.empty(tensor.size, dtype=dtype, device=device)
    return targets


def _whole(model: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name with all its elements, one after the other. Collective where they are sharded."""
    for name, parameter in model.named_parameters():
        yield name, whole(parameter.detach())


def share(replicated: dict[str, Tensor], parallel: Parallel) -> set[str]:
    """The names of what this rank writes of the tensors that all ranks have: about the same number of bytes each."""
    loads = [0] * parallel.world
    own = set()
    for name in sorted(replicated, key=lambda name: (-replicated[name].nbytes, name)):
        rank = loads.index(min(loads))
        loads[rank] += replicated[name].nbytes
        if rank == parallel.rank:
            own.add(name)
    return own


def _one_line(error: BaseException, folder: Path, parallel: Parallel) -> InlayError:
    """What kept a checkpoint from being written, for the user."""
    if isinstance(error, InlayError):
        return error
    if isinstance(error, Exception) and parallel.lost(error):
        found = InlayError(f"cannot write '{folder}': another process of the run has ended or does not answer")
    elif isinstance(error, OSError):
        found = disk_error(folder, error)
    else:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        found = InlayError(f"cannot write '{folder}': {type(error).__name__}: {reason}")
    found.__cause__ = error
    return found


def _record(trainer: "Trainer") -> dict[str, Any]:
    states = {callback.name: callback.state() for callback in trainer.callbacks if callback.name}
    return {
        "format": FORMAT,
        "step": trainer.step,
        "tokens": trainer.tokens,
        "seconds": trainer.seconds,
        "total_steps": trainer.total_steps,
        "sums": trainer.meters.sums,
        "config": trainer.config.to_dict(),
        "loader": trainer.loader_state.to_dict(),
        "model": trainer.model.config.to_dict(),
        "sequence_length": trainer.plan.context(trainer.stage),
        "vocab_size": trainer.vocab_size,
        "tokenizer": trainer.tokenizer.hash,
        "callbacks": {name: state for name, state in states.items() if state},
        "world": trainer.parallel.world,
        "torch": torch.__version__,
    }


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that decide the weights. Stores are compared by content, so that they may move."""
    data = {key: value for key, value in config["data"].items() if key not in ("path", "workers")}
    apart = ("path", "max_epochs")
    data["sources"] = {
        name: {key: value for key, value in source.items() if key not in apart}
        for name, source in data["sources"].items()
    }
    deciding = {group: value for group, value in config.items() if group not in ("callbacks", "parallel")}
    return {**deciding, "data": data}


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
