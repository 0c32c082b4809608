"""Comparison of a model with its peer in transformers: names from the blocks' own `HF` tables, logits and gradients."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inlay.model import Transformer
from inlay.model.transformer import Cache

LLAMA = {"mixer_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "final_norm": "model.norm"}
"""What is beside mixer and MLP, as most architectures call it."""


def their_names(model: Transformer, others: Mapping[str, str] = LLAMA) -> dict[str, str]:
    """Each of our parameters' name to theirs. `others` names norms, and whatever departs from the `HF` tables."""
    names = {"embedding.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}
    for name, _ in model.named_parameters():
        if name in names:
            continue
        module, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            names[name] = f"{others[module]}.{kind}"
            continue
        _, layer, part, *inner = name.split(".")
        block = model.layers[int(layer)]
        tables = {"mixer": type(block.mixer).HF, "mlp": type(block.mlp).HF}
        own = inner[0] if part in tables else part
        theirs = others.get(f"{part}.{own}") or others.get(part) or tables[part][own]
        kind = kind if kind in ("weight", "bias") else "weight"
        names[name] = f"model.layers.{layer}.{theirs}.{kind}"
    return {name: names[name] for name, _ in model.named_parameters()}


def copy_into(peer: Any, model: Transformer, names: Mapping[str, str], *, offset: float = 0.0) -> None:
    """Copies all weights; every parameter of each must find its partner. `offset` is added to weights of norms."""
    parameters = dict(peer.named_parameters())
    assert set(names.values()) == parameters.keys()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameters[names[name]].shape == parameter.shape, name
            parameters[names[name]].copy_(parameter + offset * name.endswith("norm.weight"))


def assert_same(
    model: Transformer, peer: Any, names: Mapping[str, str], tokens: Tensor, positions: Tensor, *, apart: bool = False
) -> None:
    """Logits and gradients of both agree on packed rows [B, T], in fp32, to 1e-5.

    The peer isolates documents by position ids, without a mask or a cache; with `apart` it gets them one by one.
    """
    logits = model.logits(model(tokens, positions))
    expected = _logits_apart(peer, tokens, positions) if apart else their_logits(peer, tokens, positions)
    assert logits.std() > 0.5  # else equality would say little
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    targets = torch.roll(tokens, -1, dims=1).flatten()
    for table in (logits, expected):
        functional.cross_entropy(table.flatten(0, 1), targets).backward()
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        largest = float(parameter.grad.abs().max())
        assert largest > 0, name
        close = 1e-5 * max(1.0, largest)
        torch.testing.assert_close(parameter.grad, gradients[names[name]], atol=close, rtol=1e-4, msg=name)


def their_logits(peer: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """The peer's logits [B, T, V] of packed rows."""
    return peer(input_ids=tokens, position_ids=positions, use_cache=False).logits


def _logits_apart(peer: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    rows = []
    for row, places in zip(tokens, positions, strict=True):
        starts = [*(places == 0).nonzero().flatten().tolist(), len(places)]
        parts = [slice(*ends) for ends in pairwise(starts)]
        rows.append(torch.cat([their_logits(peer, row[part][None], places[part][None]) for part in parts], dim=1))
    return torch.cat(rows)


def feed(model: Transformer, cache: Cache, tokens: Tensor, start: int, chunk: int) -> Tensor:
    """Hidden states of tokens [1, T] fed to a cache from position `start` in chunks."""
    parts = []
    for begin in range(0, tokens.shape[1], chunk):
        part = tokens[:, begin : begin + chunk]
        parts.append(model.decode(part, start + begin + torch.arange(part.shape[1])[None], cache))
    return torch.cat(parts, dim=1)


def assert_ragged_rows_decode(model: Transformer, vocabulary: int) -> None:
    """Rows of different lengths, padded left or right with positions of -1, then all going on together."""
    lengths = [3, 17, 1, 9]
    longest, generator = max(lengths), torch.Generator().manual_seed(5)
    texts = [torch.randint(vocabulary, (length + 5,), generator=generator) for length in lengths]
    for left in (True, False):
        tokens = torch.full((len(lengths), longest), vocabulary - 1)
        positions = torch.full_like(tokens, -1)
        for index, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            where = slice(longest - length, longest) if left else slice(0, length)
            tokens[index, where], positions[index, where] = text[:length], torch.arange(length)
        cache = model.new_cache(len(lengths), longest + 5)
        hidden = [model.decode(tokens, positions, cache)]
        for extra in range(5):
            step = torch.stack([text[length + extra] for text, length in zip(texts, lengths, strict=True)])[:, None]
            hidden.append(model.decode(step, cache.lengths[:, None].clone(), cache))
        for index, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            found = torch.cat([hidden[0][index][positions[index] >= 0], *(part[index] for part in hidden[1:])])
            expected = model(text[None], torch.arange(length + 5)[None])[0]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def assert_truncates(model: Transformer, tokens: Tensor, at: int, held: int, rollback: int) -> None:
    """A cache of `held` positions goes back to `at` and on with other tokens, as the full forward pass does."""
    cache = model.new_cache(1, tokens.shape[1], rollback=rollback)
    feed(model, cache, tokens[:, :held], 0, rollback)
    assert cache.truncate(torch.tensor([at])).tolist() == [at]
    other = tokens.flip(1)[:, : min(40, tokens.shape[1] - at)]
    changed = torch.cat([tokens[:, :at], other], dim=1)
    expected = model(changed, torch.arange(changed.shape[1])[None])[:, at:]
    assert not torch.equal(other, tokens[:, at : at + other.shape[1]])
    torch.testing.assert_close(feed(model, cache, other, at, 7), expected, atol=1e-4, rtol=1e-4)
