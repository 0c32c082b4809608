"""Norms of parts of a model, where its parameters are whole tensors or shards (DTensor).

Every rank calls these together: the sum over a sharded tensor is a collective.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from inlay.model import Transformer
from inlay.train.distribute import whole
from inlay.train.optimizer import route


def groups_of(model: Transformer) -> dict[str, list[str]]:
    """Names of parameters by the parts of a model whose training goes wrong in different ways, so far as it has them:
    the tables, the matrices of the first, middle and last block and of all, and the gains, biases and other vectors."""
    names = list(dict(model.named_parameters()))
    routed = route(model)
    last = len(model.blocks) - 1
    blocks = {"block_first": 0, "block_middle": last // 2, "block_last": last}
    groups = {
        "embedding": [name for name in names if name.startswith("embedding.")],
        "head": [name for name in names if name.startswith("head.")],
        **{part: [n for n in routed["matrix"] if n.startswith(f"blocks.{index}.")] for part, index in blocks.items()},
        "matrices": list(routed["matrix"]),
        "vectors": list(routed["vector"]),
    }
    return {part: members for part, members in groups.items() if members}


@torch.no_grad()
def squares(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of squares of each named tensor, fp32 0-d on its device, over all its shards."""
    return {name: whole(tensor.detach().float().square().sum()) for name, tensor in tensors}


def group_norms(found: Mapping[str, Tensor], groups: Mapping[str, list[str]]) -> dict[str, float]:
    """The norm of each group from the squares of its members; a group without any of them is left out. Waits for the
    device once."""
    present = {part: [found[name] for name in members if name in found] for part, members in groups.items()}
    present = {part: members for part, members in present.items() if members}
    if not present:
        return {}
    sums = torch.stack([torch.stack(members).sum() for members in present.values()]).sqrt()
    return dict(zip(present, sums.tolist(), strict=True))
