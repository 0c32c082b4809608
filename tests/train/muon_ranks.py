"""What each process of `test_muon_ranks.py` does; kept apart so that a spawned process imports little."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tests.model.members import MLA, attention
from tests.model.members import model as model_options
from tests.train.muon_reference import give_gradients, weights
from torch import Tensor, distributed, nn

from inlay.config import InlayError, validate
from inlay.model import ModelConfig, Transformer, build
from inlay.train import blocks, shards
from inlay.train.optimizer import OptimizerConfig, optimizers

STEPS = 4
SORTS = model_options(
    attention(), {"kind": "short_conv", "kernel": 3}, {**MLA, "q_rank": 10}, repeat=1, horizon={"weight": 0.1}
)
"""Rows of 12, 16, 20, 32, 40, 44 and 96, of which three ranks hold different numbers, and one parameter of one row."""
CONFIGS: dict[str, dict[str, Any]] = {
    "adamw": {"kind": "adamw", "weight_decay": 0.2},
    "muon": {"kind": "muon", "momentum_warmup": 2, "weight_decay": 0.2},
    "muon-heads": {
        "kind": "muon",
        "adjust": "match_rms_adamw",
        "lr": 0.005,
        "per_head": True,
        "weight_decay": 0.2,
        "cautious_decay": True,
        "nesterov": False,
        "embedding_decay": 0.1,
    },
}


def config(name: str) -> OptimizerConfig:
    data = CONFIGS[name]
    made = validate(optimizers.get(data["kind"]), data)
    assert isinstance(made, OptimizerConfig)
    return made


def model(seed: int = 0) -> Transformer:
    return build(validate(ModelConfig, SORTS), 41, seed=seed)


def train(optimizer: Any, module: nn.Module, steps: range, mesh: Any = None, placements: Any = None) -> None:
    """Steps with the gradients that `give_gradients` draws, sharded as the parameters are."""
    for step in steps:
        if mesh is None:
            give_gradients(module, step)
        else:
            twin = model()
            give_gradients(twin, step)
            for parameter, other in zip(module.parameters(), twin.parameters(), strict=True):
                assert other.grad is not None
                parameter.grad = distributed_like(other.grad, mesh, placements)
        optimizer.step(0.7, step, 1.0 - step / 10)


def distributed_like(tensor: Tensor, mesh: Any, placements: Any) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def sharded(mesh: Any, placements: Any, seed: int = 0) -> Transformer:
    """A model whose parameters are DTensors, as FSDP2 leaves them."""
    module = model(seed)
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(distributed_like(parameter.detach(), mesh, placements)))
    return module


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: (tensor.full_tensor() if shards.is_sharded(tensor) else tensor).detach().clone()  # type: ignore[operator]
        for name, tensor in tensors.items()
    }


def run(rank: int, world: int, folder: str, cases: str) -> None:
    """One process: writes what it found to `rank-R.pt`."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", timedelta(seconds=60), rank=rank, world_size=world
    )
    found: dict[str, Any] = {}
    chosen: dict[str, Callable[[dict[str, Any], int, int], None]] = {"sharded": _sharded, "fsdp": _fsdp}
    chosen[cases](found, rank, world)
    torch.save(found, Path(folder) / f"rank-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def _sharded(found: dict[str, Any], rank: int, world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard

    mesh = init_device_mesh("cpu", (world,))
    rows = (Shard(0),)
    done: list[list[tuple[int, ...]]] = []
    _record_work(done)
    for dtype in (torch.float32, torch.bfloat16):
        shards_dtype(dtype)
        for name in CONFIGS:
            module = sharded(mesh, rows)
            optimizer = config(name).build(module)
            done.clear()
            train(optimizer, module, range(STEPS), mesh, rows)
            found[f"sharded {name} {dtype}"] = whole(weights(module)), whole(optimizer.state())
            found[f"work sharded {name} {dtype}"] = list(done)
            module = model()
            optimizer = config(name).build(module)
            done.clear()
            train(optimizer, module, range(STEPS))
            found[f"replicated {name} {dtype}"] = weights(module), whole(optimizer.state())
            found[f"work replicated {name} {dtype}"] = list(done)
    shards_dtype(torch.float32)
    for name in CONFIGS:
        # Two steps, the state through whole plain tensors and as it is, two more: in both arrangements.
        first = sharded(mesh, rows)
        optimizer = config(name).build(first)
        train(optimizer, first, range(2), mesh, rows)
        state = optimizer.state()
        found[f"state {name}"] = {key: (value.shape, shards.is_sharded(value)) for key, value in state.items()}
        for form in ("whole", "own"):
            second = sharded(mesh, rows, seed=5)
            for parameter, other in zip(second.parameters(), first.parameters(), strict=True):
                shards.local(parameter).copy_(shards.local(other))
            taken = {key: value.clone() for key, value in state.items()}
            again = config(name).build(second)
            again.load_state(whole(taken) if form == "whole" else taken)
            train(again, second, range(2, STEPS), mesh, rows)
            found[f"resumed {form} {name}"] = whole(weights(second)), whole(again.state())
    lone = nn.ModuleDict({"up": nn.Linear(6, 10, bias=False)})
    lone["up"].weight = nn.Parameter(distributed_like(torch.zeros(10, 6), mesh, (Shard(1),)))
    for placements in ((Shard(1),), (Replicate(),)):
        lone["up"].weight = nn.Parameter(distributed_like(torch.zeros(10, 6), mesh, placements))
        try:
            config("muon").build(lone)
        except InlayError as error:
            found[f"refused {placements}"] = str(error)
    # The mistake itself: each rank flattens the rows that it happens to hold.
    update = torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    own = update.chunk(world)[rank]
    found["rows alone"] = blocks.orthogonalise(own[None], 5, torch.float32)[0]
    arrangement = shards.arrange({"w": distributed_like(update, mesh, rows)}, [1])[0][1]

    def work(indices: list[int], matrices: list[Tensor]) -> list[Tensor]:
        return [blocks.orthogonalise(matrix[None], 5, torch.float32)[0] for matrix in matrices]

    found["rows of the whole"] = arrangement.spread([own], work, torch.float32)[0]


def _fsdp(found: dict[str, Any], rank: int, world: int) -> None:
    """FSDP2 itself, and a mesh with replicas."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard

    shards_dtype(torch.float32)
    mesh = init_device_mesh("cpu", (world,))
    for name in CONFIGS:
        module = model()
        for block in module.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        optimizer = config(name).build(module)
        train(optimizer, module, range(STEPS), mesh, (Shard(0),))
        found[f"fsdp {name}"] = whole(weights(module)), whole(optimizer.state())
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "rows"))
        placements = (Replicate(), Shard(0))
        module = sharded(grid, placements)
        optimizer = config("muon").build(module)
        train(optimizer, module, range(STEPS), grid, placements)
        found["grid muon"] = whole(weights(module)), whole(optimizer.state())


def shards_dtype(dtype: torch.dtype) -> None:
    """Makes `dtype` that of the iteration and of what is sent, whatever this machine would choose."""
    blocks.multiplies_bfloat16 = lambda device: dtype == torch.bfloat16


def _record_work(done: list[list[tuple[int, ...]]]) -> None:
    """Notes the shapes of the matrices that this process orthogonalises."""
    from inlay.train.optimizers import muon

    real = blocks.orthogonalise_blocks

    def noting(matrices: list[Tensor], *rest: Any) -> list[Tensor]:
        done.append([tuple(matrix.shape) for matrix in matrices])
        return real(matrices, *rest)

    muon.orthogonalise_blocks = noting
