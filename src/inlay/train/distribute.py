"""The model over the processes of a run: copies that agree on gradients (DDP), or shares of everything (FSDP2).

Both are put around one module that makes the loss of a micro-batch, so that all use of the weights, the tied head in
the loss included, happens inside its forward pass. Both average gradients over processes; `inlay.train.objectives`
divides by the weight of the whole batch and multiplies by the number of processes, which makes sums of them.
Activation checkpointing is inside blocks' calls and compiling inside blocks, so that the hooks which gather weights
run around both.
"""

import contextlib
import warnings
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from inlay.model import Transformer
from inlay.train.parallel import Parallel


def shard(loss: nn.Module, model: Transformer, parallel: Parallel) -> None:
    """Replaces the parameters of `model`, which is inside `loss`, by this rank's shares of them on its device: DTensors
    split by rows over a mesh of one dimension.

    Every block is gathered as one unit. The rest (tables, final norm, heads of auxiliary objectives) belongs to `loss`
    and stays gathered from the first block to the last gradient. One block after the other moves to the device, so
    that it never holds the whole model.
    """
    # Values that a block hands to later blocks are views, and nothing is changed in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(parallel.device.type, (parallel.world,))
    whole = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    narrow = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    # Weights of a block are cast to the activation dtype where they are used, so they may travel in it; but gains and
    # biases of a LayerNorm are used in fp32, as the tables' gradients are summed in it.
    policy = whole if model.config.norm == "layer" else narrow
    blocks = [*model.layers, *([] if model.mtp is None else [model.mtp.block])]
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=parallel.shard == "full", mp_policy=policy)
    fully_shard(loss, mesh=mesh, reshard_after_forward=False, mp_policy=whole)


def replicate(loss: nn.Module) -> DistributedDataParallel:
    """`loss` with gradients that are averaged over all processes while they are made.

    All copies begin with rank 0's weights. Gradients are views of what travels: one copy of them in memory, not two.
    """
    return DistributedDataParallel(loss, gradient_as_bucket_view=True)


@contextlib.contextmanager
def synchronised(loss: nn.Module, wanted: bool) -> Iterator[None]:
    """A forward and backward pass in which gradients are summed over processes, or only kept here (`wanted` False)."""
    if isinstance(loss, FSDPModule):
        loss.set_requires_gradient_sync(wanted)
        yield
    elif isinstance(loss, DistributedDataParallel) and not wanted:
        with loss.no_sync():
            yield
    else:
        yield


@torch.no_grad()
def gathered(model: Transformer) -> Transformer:
    """A plain model with all weights of a sharded one in fp32, on its device. Every rank calls it together."""
    with torch.device("meta"):
        plain = Transformer(model.config, model.vocab_size)
    plain.to_empty(device=model.embedding.weight.device)
    plain.compute_dtype = model.compute_dtype
    targets = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        targets[name].copy_(whole(parameter))
    return plain


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which this rank may hold a share; then every rank calls it together."""
    return cast("DTensor", tensor).full_tensor() if isinstance(tensor, DTensor) else tensor
