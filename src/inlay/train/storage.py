"""What torch.distributed.checkpoint stores in a checkpoint folder: safetensors files, one a group and process.

A state is keyed `GROUP:NAME`. The library plans who writes which part of each tensor and, on loading, who reads which
part of which file; here is only how parts lie on the disk. Nothing is pickled: a whole tensor stands in a file as any
safetensors reader expects it, and a part of one says in the file's metadata, under `shards`, of which tensor
(`{NAME: [offsets, shape of the whole]}`). Thus what one process wrote are ordinary files, whatever wrote them.
"""

import contextlib
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from inlay.config import InlayError
from inlay.model import checkpoint

SHARDS = "shards"

# Said at each save and load of a single process, even where `no_dist` asks for just that.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def key(group: str, name: str) -> str:
    """The key of a tensor in a state."""
    return f"{group}:{name}"


def save(state: dict[str, Tensor], folder: Path, finish: Callable[[dict[str, str]], None], group: Any) -> None:
    """Writes `state`, in which every process of `group` (None: this one alone) has its part, into the new `folder`.

    `finish` is called in the first process with the hash of each file, when all are written and synced. Collective.
    Raises what `CheckpointException` holds: the error of the first process that failed, in every process.
    """
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _own_errors():
        dcp.save(
            state,
            storage_writer=SafetensorsWriter(folder, finish),
            planner=planner,
            process_group=group,
            no_dist=group is None,
        )


def load(state: dict[str, Tensor], reader: "SafetensorsReader", group: Any) -> None:
    """Fills the tensors of `state` in place, each process the parts that it holds. Collective."""
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    with _own_errors():
        dcp.load(state, storage_reader=reader, planner=planner, process_group=group, no_dist=group is None)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except CheckpointException as error:  # not an Exception, so that nothing catches it by accident
        raise error.failures[min(error.failures)][0] from error


class SafetensorsWriter(StorageWriter):
    """Writes a state into a new folder; see `save`."""

    def __init__(self, folder: Path, finish: Callable[[dict[str, str]], None]) -> None:
        self._folder = folder
        self._finish = finish

    def reset(self, checkpoint_id: Any = None) -> None:
        """One writer is for one folder."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator:  # plans are exchanged next: the others write only when the folder is there
            checkpoint.begin(self._folder)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Names the files: GROUP.safetensors where one process writes all of a group, else one of each."""
        writers: dict[str, list[int]] = defaultdict(list)
        for number, plan in enumerate(plans):
            for group in {_group(item.index.fqn) for item in plan.items}:
                writers[group].append(number)
        files: list[dict[str, str]] = [{} for _ in plans]
        for group, numbers in writers.items():
            for place, number in enumerate(numbers, 1):
                part = f"-{place}-of-{len(numbers)}" if len(numbers) > 1 else ""
                files[number][group] = f"{group}{part}.safetensors"
        return [
            SavePlan(plan.items, named, plan.planner_data, plan.usable)
            for plan, named in zip(plans, files, strict=True)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        groups: dict[str, list[Any]] = defaultdict(list)
        for item in plan.items:
            groups[_group(item.index.fqn)].append(item)
        results = []
        for group, items in groups.items():
            name = plan.storage_data[group]
            tensors, shards = {}, {}
            for item in items:
                own = item.index.fqn.removeprefix(f"{group}:")
                tensors[own] = planner.resolve_data(item)
                whole, chunk = item.tensor_data.size, item.tensor_data.chunk
                if chunk.sizes != whole:
                    shards[own] = [list(chunk.offsets), list(whole)]
            digest = checkpoint.write_tensors(
                self._folder / name, tensors, {SHARDS: json.dumps(shards)} if shards else None
            )
            size = (self._folder / name).stat().st_size
            results += [WriteResult(item.index, size, (name, digest)) for item in items]
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self._finish(dict(sorted({result.storage_data for written in results for result in written})))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False  # made with a folder, never found by one


class SafetensorsReader(StorageReader):
    """Reads parts of tensors from the named files of a checkpoint folder, tensor by tensor."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        """Raises InlayError when a file cannot be read or two parts do not belong together."""
        self._folder = folder
        self._places: dict[tuple[str, tuple[int, ...]], str] = {}
        self.tensors: dict[str, TensorStorageMetadata] = {}
        """By key: what the checkpoint holds."""
        for file in sorted(files):
            self._read_header(file)

    def _read_header(self, file: str) -> None:
        group = file.removesuffix(".safetensors").partition("-")[0]
        with _readable(file), safe_open(self._folder / file, framework="pt") as opened:
            shards = json.loads((opened.metadata() or {}).get(SHARDS, "{}"))
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                part = opened.get_slice(name)
                sizes = torch.Size(part.get_shape())
                offsets, whole = shards.get(name, ([0] * len(sizes), sizes))
                dtype = checkpoint.DTYPES[part.get_dtype()]
                empty = TensorStorageMetadata(TensorProperties(dtype), torch.Size(whole), [])
                stored = self.tensors.setdefault(key(group, name), empty)
                if (stored.size, stored.properties.dtype) != (torch.Size(whole), dtype):
                    raise InlayError(f"{file} has another shape or type of '{name}' than the files before it")
                stored.chunks.append(ChunkStorageMetadata(torch.Size(offsets), sizes))
                self._places[key(group, name), tuple(offsets)] = file

    def reset(self, checkpoint_id: Any = None) -> None:
        """One reader is for one folder."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return Metadata(dict(self.tensors))

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Everything is there since the headers were read."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        by_file = defaultdict(list)
        for item in plan.items:
            by_file[self._file(item.storage_index)].append(item)
        for file, items in by_file.items():
            with _readable(file), safe_open(self._folder / file, framework="pt") as opened:
                for item in items:
                    name = item.storage_index.fqn.partition(":")[2]
                    slices = tuple(
                        slice(start, start + length)
                        for start, length in zip(item.storage_offsets, item.lengths, strict=True)
                    )
                    found = opened.get_slice(name)[slices] if slices else opened.get_tensor(name)
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(found)
                    planner.commit_tensor(item, target)
        return _done(None)

    def _file(self, index: MetadataIndex) -> str:
        return self._places[index.fqn, tuple(index.offset or ())]

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


@contextlib.contextmanager
def _readable(file: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InlayError(f"{file} cannot be read ({type(error).__name__})") from None


def _group(fqn: str) -> str:
    return fqn.partition(":")[0]


def _done(value: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
