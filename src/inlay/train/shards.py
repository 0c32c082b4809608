"""Where a parameter lies when several processes train one model, and how whole matrices come to the rank that works on
them.

Muon needs whole matrices: orthogonalising the rows that a rank happens to hold is another optimizer, and nothing would
say so. Each matrix therefore has an owner, the ranks share the work by its cost, and what is sent is in the dtype of
the iteration, so that sending rounds nothing. Three arrangements, told apart by the parameters themselves:

* one process: every matrix is here;
* replicated (plain parameters in a group of processes, DDP): all ranks have all matrices; owners send their results to
  all, so every rank adds the same bits;
* sharded (DTensors with rows over a mesh, FSDP2): owners are sent the rows of the others and send each its own back. A
  second axis of the mesh may hold replicas; each replica works for itself.

Legend: a matrix has m rows and n columns; W ranks share it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from inlay.config import InlayError

Work = Callable[[list[int], list[Tensor]], list[Tensor]]
"""(numbers of matrices, these matrices [m, n]) to their results, fp32 [m, n]."""


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor. Without a process group there is none, and its package need not be imported."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of `tensor`, sharing its memory; a plain tensor is held whole. Not for autograd."""
    if not is_sharded(tensor):
        return tensor.detach()
    with torch.no_grad():
        return _distributed(tensor).to_local()


def take(key: str, into: Tensor, state: dict[str, Tensor]) -> None:
    """Copies `state[key]` to `into`: sharded alike, or whole, of which a sharded `into` takes its rows.

    Raises InlayError when it is missing, of another shape, or sharded while `into` is not.
    """
    value = state.get(key)
    if value is None:
        raise InlayError(f"the optimizer state has no '{key}': it was saved by another optimizer or model")
    if value.shape != into.shape:
        raise InlayError(f"'{key}' of the optimizer state is {list(value.shape)}, here it is {list(into.shape)}")
    if is_sharded(value):
        if not is_sharded(into) or _distributed(value).placements != _distributed(into).placements:
            raise InlayError(f"'{key}' of the optimizer state is sharded otherwise than here: give it whole")
    elif is_sharded(into):
        from torch.distributed.tensor import distribute_tensor

        there = _distributed(into)
        # None: every rank has the whole value and cuts its own part; nothing is sent.
        value = distribute_tensor(value.to(into.device), there.device_mesh, there.placements, src_data_rank=None)
    local(into).copy_(local(value))


def _distributed(tensor: Tensor) -> Any:
    """A DTensor by its own type, which only exists where processes do."""
    return tensor


# ---- owners ----------------------------------------------------------------------------------------------------------


def share_out(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Which of `costs` each rank works on: the most expensive first, each to the rank with least to do so far."""
    loads, owned = [0] * ranks, [[] for _ in range(ranks)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        rank = loads.index(min(loads))
        loads[rank] += costs[index]
        owned[rank].append(index)
    return [sorted(indices) for indices in owned]


class Arrangement:
    """Where some matrices are and who works on which."""

    @abstractmethod
    def spread(self, parts: list[Tensor], work: Work, dtype: torch.dtype) -> list[Tensor]:
        """What this rank holds of each matrix to what it holds of each result of `work`, fp32.

        All ranks call it together. `work` is done once for each matrix (in each replica); matrices and results are sent
        in `dtype`.
        """

    def held(self, values: Tensor, index: int) -> Tensor:
        """The part of whole [m, 1] or [1, n] `values` that goes with what this rank holds of matrix `index`."""
        return values


class Alone(Arrangement):
    """Every matrix is here."""

    def spread(self, parts: list[Tensor], work: Work, dtype: torch.dtype) -> list[Tensor]:
        return work(list(range(len(parts))), parts)


class Replicated(Arrangement):
    """Every rank has every matrix; each works on its own and sends the results to all."""

    def __init__(self, shapes: Sequence[tuple[int, int]], costs: Sequence[int]) -> None:
        self._shapes = shapes
        self._owned = share_out(costs, dist.get_world_size())
        self._mine = self._owned[dist.get_rank()]
        sizes = [sum(shapes[index][0] * shapes[index][1] for index in indices) for indices in self._owned]
        self._width = max(sizes)

    def spread(self, parts: list[Tensor], work: Work, dtype: torch.dtype) -> list[Tensor]:
        sent = torch.zeros(self._width, dtype=dtype, device=parts[0].device)
        _pack(work(self._mine, [parts[index] for index in self._mine]), sent)
        received = torch.empty(len(self._owned) * self._width, dtype=dtype, device=sent.device)
        # Its name before torch 2.13, where the old one warns. As bytes: not every back end knows every dtype.
        gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
        gather(received.view(torch.uint8), sent.view(torch.uint8))
        results: dict[int, Tensor] = {}
        for indices, row in zip(self._owned, received.float().view(len(self._owned), -1), strict=True):
            results |= _unpack(row, indices, [self._shapes[index] for index in indices])
        return [results[index] for index in range(len(parts))]


class Sharded(Arrangement):
    """Every rank has some rows of every matrix, `Shard(0)` of a mesh of one axis, or of two with replicas."""

    def __init__(self, tensors: Sequence[Tensor], names: Sequence[str], costs: Sequence[int]) -> None:
        """Raises InlayError for a tensor that is not sharded by rows alone."""
        mesh = _distributed(tensors[0]).device_mesh
        axis = _row_axis(tensors[0], names[0])
        self._group = mesh.get_group(axis)
        self._rank, world = mesh.get_local_rank(axis), mesh.size(axis)
        self._owned = share_out(costs, world)
        self._mine = self._owned[self._rank]
        self._columns = [tensor.shape[1] for tensor in tensors]
        self._rows = [_chunks(tensor.shape[0], world) for tensor in tensors]
        """Rows of each matrix on each rank."""
        for tensor, name, rows in zip(tensors, names, self._rows, strict=True):
            if _row_axis(tensor, name) != axis or local(tensor).shape[0] != rows[self._rank]:
                raise InlayError(f"Muon cannot put '{name}' together: its rows are not divided evenly over the ranks")

    def spread(self, parts: list[Tensor], work: Work, dtype: torch.dtype) -> list[Tensor]:
        order = [index for indices in self._owned for index in indices]
        out = torch.empty(sum(part.numel() for part in parts), dtype=dtype, device=parts[0].device)
        _pack([parts[index] for index in order], out)
        mine = [sum(parts[index].numel() for index in indices) for indices in self._owned]
        theirs = [self._elements(rank) for rank in range(len(self._owned))]
        received = self._exchange(out, mine, theirs)
        pieces = [
            _unpack(piece, self._mine, [(self._rows[index][rank], self._columns[index]) for index in self._mine])
            for rank, piece in enumerate(received.split(theirs))
        ]
        results = work(self._mine, [torch.cat([piece[index] for piece in pieces]) for index in self._mine])
        divided = [result.split(self._rows[index]) for index, result in zip(self._mine, results, strict=True)]
        back = torch.empty_like(received)
        _pack([rows[rank] for rank in range(len(self._owned)) for rows in divided], back)
        returned = self._exchange(back, theirs, mine).float()
        found = _unpack(returned, order, [(parts[index].shape[0], parts[index].shape[1]) for index in order])
        return [found[index] for index in range(len(parts))]

    def held(self, values: Tensor, index: int) -> Tensor:
        return values.split(self._rows[index])[self._rank] if values.shape[0] > 1 else values

    def _elements(self, rank: int) -> int:
        """Elements of this rank's own matrices that `rank` holds."""
        return sum(self._rows[index][rank] * self._columns[index] for index in self._mine)

    def _exchange(self, sent: Tensor, sizes: list[int], expected: list[int]) -> Tensor:
        """Sends `sizes[r]` elements to each rank r and gets `expected[r]` of it."""
        received = torch.empty(sum(expected), dtype=sent.dtype, device=sent.device)
        width = sent.element_size()
        dist.all_to_all_single(
            received.view(torch.uint8),
            sent.view(torch.uint8),
            [width * size for size in expected],
            [width * size for size in sizes],
            group=self._group,
        )
        return received


def arrange(tensors: dict[str, Tensor], costs: Sequence[int]) -> list[tuple[list[int], Arrangement]]:
    """The arrangement of matrices [m, n] by name, as they are on this rank: numbers of matrices, and theirs."""
    names, values = list(tensors), list(tensors.values())
    kinds: dict[object, list[int]] = {}
    for index, tensor in enumerate(values):
        kinds.setdefault(_distributed(tensor).device_mesh if is_sharded(tensor) else None, []).append(index)
    found: list[tuple[list[int], Arrangement]] = []
    for mesh, indices in kinds.items():
        shown = [costs[index] for index in indices]
        held = [values[index] for index in indices]
        if mesh is not None:
            found.append((indices, Sharded(held, [names[index] for index in indices], shown)))
        elif processes() > 1:
            found.append((indices, Replicated([(tensor.shape[0], tensor.shape[1]) for tensor in held], shown)))
        else:
            found.append((indices, Alone()))
    return found


def _row_axis(tensor: Tensor, name: str) -> int:
    """The axis of its mesh that divides the rows of a DTensor."""
    placements = _distributed(tensor).placements
    axes = [axis for axis, placement in enumerate(placements) if placement.is_shard(0)]
    if len(axes) != 1 or not all(placement.is_shard(0) or placement.is_replicate() for placement in placements):
        raise InlayError(
            f"Muon cannot put '{name}' together: it is laid out as {placements}, not in rows over one axis"
        )
    return axes[0]


def _chunks(rows: int, ranks: int) -> list[int]:
    """Rows of each rank: equal chunks, rounded up, until none are left (as DTensor divides an axis)."""
    size = -(-rows // ranks)
    return [max(0, min(size, rows - rank * size)) for rank in range(ranks)]


def _pack(tensors: Sequence[Tensor], into: Tensor) -> None:
    """Writes them one behind the other, from the start of flat `into`, in its dtype."""
    if tensors:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        into[: len(flat)].copy_(flat)


def _unpack(flat: Tensor, indices: Sequence[int], shapes: Sequence[tuple[int, int]]) -> dict[int, Tensor]:
    """The way back, by number: views of `flat`, which may be longer."""
    sizes = [rows * columns for rows, columns in shapes]
    parts = flat[: sum(sizes)].split(sizes) if sizes else ()
    return {index: part.view(shape) for index, part, shape in zip(indices, parts, shapes, strict=True)}
