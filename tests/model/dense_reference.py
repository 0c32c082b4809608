"""A slow decoder written from the definitions, as the witness of what no published architecture has.

Loops over rows, documents, layers, heads and positions' keys; nothing of the package but the weights' names. Each layer
reads the keys and values of `owners[layer]`: after norm and rotation, which happen where they are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Layer:
    """What a layer is: the keys a query sees (None: all), the layer whose K/V it reads, and the cap on its scores."""

    window: int | None
    owner: int
    softcap: float | None = None


def logits(
    weights: dict[str, Tensor],
    layers: Sequence[Layer],
    tokens: Tensor,
    positions: Tensor,
    *,
    head_size: int,
    eps: float = 1e-6,
    theta: float = 10_000.0,
) -> Tensor:
    """[B, T, V], computed in the dtype of the weights; the head is the embedding."""
    rows = []
    for row, places in zip(tokens, positions, strict=True):
        starts = [*(places == 0).nonzero().flatten().tolist(), len(places)]
        parts = [_document(weights, layers, row[begin:end], head_size, eps, theta) for begin, end in pairwise(starts)]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def _document(
    weights: dict[str, Tensor], layers: Sequence[Layer], ids: Tensor, head_size: int, eps: float, theta: float
) -> Tensor:
    table = weights["embedding.weight"]
    x = table[ids]
    made: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for index, layer in enumerate(layers):
        own = {
            name.removeprefix(f"blocks.{index}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"blocks.{index}.")
        }
        normed = _norm(x, own["mixer_norm.weight"], eps)
        if layer.owner == index:
            keys = _heads(normed, own["mixer.key.weight"], head_size)
            keys = [_turn(_norm(head, own["mixer.key_norm.weight"], eps), theta) for head in keys]
            made[index] = keys, _heads(normed, own["mixer.value.weight"], head_size)
        else:
            assert not any(name.startswith(("mixer.key", "mixer.value")) for name in own), f"layer {index} has K/V"
        keys, values = made[layer.owner]
        queries = _heads(normed, own["mixer.query.weight"], head_size)
        outputs = []
        for number, head in enumerate(queries):
            query = _turn(_norm(head, own["mixer.query_norm.weight"], eps), theta)
            group = number * len(keys) // len(queries)
            outputs.append(_softmax_attention(query, keys[group], values[group], layer))
        x = x + torch.cat(outputs, dim=-1) @ own["mixer.output.weight"].T
        normed = _norm(x, own["mlp_norm.weight"], eps)
        gate, up = normed @ own["mlp.gate.weight"].T, normed @ own["mlp.up.weight"].T
        x = x + (functional.silu(gate) * up) @ own["mlp.down.weight"].T
    return _norm(x, weights["final_norm.weight"], eps) @ table.T


def _softmax_attention(query: Tensor, keys: Tensor, values: Tensor, layer: Layer) -> Tensor:
    """[T, D] of one head and one document, query by query."""
    found = []
    for place in range(len(query)):
        first = 0 if layer.window is None else max(0, place - layer.window + 1)
        scores = keys[first : place + 1] @ query[place] / query.shape[1] ** 0.5
        if layer.softcap is not None:
            scores = layer.softcap * torch.tanh(scores / layer.softcap)
        shares = torch.exp(scores - scores.max())
        found.append(shares / shares.sum() @ values[first : place + 1])
    return torch.stack(found)


def _heads(x: Tensor, weight: Tensor, head_size: int) -> list[Tensor]:
    return list((x @ weight.T).split(head_size, dim=-1))


def _norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain


def _turn(x: Tensor, theta: float) -> Tensor:
    """Rotary embedding of [T, D] at positions 0 to T - 1: channels i and i + D/2 are one complex number."""
    half = x.shape[1] // 2
    speed = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(len(x), dtype=torch.float64)[:, None] * speed).to(x.dtype)
    real, imaginary = x[:, :half], x[:, half:]
    return torch.cat(
        [real * angle.cos() - imaginary * angle.sin(), real * angle.sin() + imaginary * angle.cos()], dim=-1
    )
