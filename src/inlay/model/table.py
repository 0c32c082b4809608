"""A model's table: layers, parameters, FLOPs and K/V bytes per token, counted on the meta device from the built model.

FLOPs are those of the forward pass: two per matrix element and token, and what the mixer says its scores cost.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from inlay.config import validate
from inlay.config.compose import compose
from inlay.model.config import ModelConfig
from inlay.model.transformer import Transformer


@dataclass(frozen=True)
class LayerCount:
    """One layer: its block, what it holds and what it costs per token."""

    index: int
    block: str
    mixer: str
    mlp: str
    parameters: int
    flops: float
    cache_bytes: float
    window: int | None
    """Keys or taps that it sees, itself included; None for all."""
    kv_from: int | None
    """The layer whose K/V it reads; None when it has its own."""


@dataclass(frozen=True)
class ModelCount:
    """A whole model. FLOPs are of the forward pass per token at a full context; K/V bytes are per token of that
    context, in bf16."""

    layers: tuple[LayerCount, ...]
    embedding: int
    head: int
    auxiliary: int
    """Parameters that only training uses (multi-token prediction, horizon head); no FLOPs are counted for them."""
    parameters: int
    """All of them."""
    flops: float
    cache_bytes: float

    @property
    def non_embedding(self) -> int:
        """Parameters beside the embedding and head, those included that only training uses."""
        return self.parameters - self.embedding - self.head


def count(config: ModelConfig, vocab_size: int, context: int) -> ModelCount:
    """Counts a model of `vocab_size` tokens at `context` positions, without allocating it."""
    with torch.device("meta"):
        model = Transformer(config, vocab_size)
    layers = []
    for spec, block in zip(model.layout, model.layers, strict=True):
        mixer = spec.block.mixer
        visible = _visible(context, mixer.reach)
        flops = _matrix_flops(block) + block.mixer.score_flops(visible)
        size = sum(parameter.numel() for parameter in block.parameters())
        kinds = (mixer.kind, spec.block.mlp.kind)
        # A ring holds its memory, not the context: its share of a token's bytes.
        held = context if mixer.memory is None else min(mixer.memory, context)
        cache_bytes = block.mixer.cache_bytes(2) * held / context
        counted = (size, flops, cache_bytes)
        layers.append(LayerCount(spec.index, spec.name, *kinds, *counted, mixer.memory, spec.kv_from))
    extra = [part for part in (model.mtp, model.horizon) if part is not None]
    head = 0 if model.head is None else model.head.weight.numel()
    return ModelCount(
        layers=tuple(layers),
        embedding=model.embedding.weight.numel(),
        head=head,
        auxiliary=sum(parameter.numel() for part in extra for parameter in part.parameters()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=sum(layer.flops for layer in layers) + 2.0 * model.head_weight.numel(),
        cache_bytes=sum(layer.cache_bytes for layer in layers),
    )


def _visible(context: int, window: int | None) -> float:
    """Keys that a query sees on average over a context, itself included: query t sees min(t + 1, window)."""
    near = context if window is None else min(window, context)
    return (near * (near + 1) / 2 + (context - near) * near) / context


def _matrix_flops(module: nn.Module) -> float:
    return 2.0 * sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)


Exports = Callable[[ModelConfig, int], Sequence[str]]
"""From a model and its context to one line a target: where it can be exported, or why not."""


def print_table(
    preset: str,
    overrides: list[str],
    vocab_size: int = 8192,
    context: int = 512,
    exports: Exports | None = None,
    as_json: bool = False,
) -> None:
    """Prints the table of a preset, `overrides` applied (`model.layers=6` ...), at `context` positions; with `as_json`
    one JSON object.

    `exports` says where such a model can go: the rooms that know stand above this one. Raises ConfigError for a preset
    or an override that is none.
    """
    data = compose("train", [f"model={preset}", "data.path=none", "train.steps=1", *overrides])
    config = validate(ModelConfig, data["model"], where=f"model={preset}")
    counted = count(config, vocab_size, context)
    lines = list(exports(config, context)) if exports is not None else []
    if as_json:
        head = {"model": preset, "vocabulary": vocab_size, "context": context}
        print(json.dumps({**head, "non_embedding": counted.non_embedding, **asdict(counted), "exports": lines}))
        return
    _print(preset, counted, vocab_size, context)
    for line in lines:
        print(line)


def _print(name: str, counted: ModelCount, vocab_size: int, context: int) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    mlps = ", ".join(dict.fromkeys(layer.mlp for layer in counted.layers))
    # Narrow enough for 80 columns: numbers are never cut.
    title = f"{name} · {mlps} · vocabulary {vocab_size:,} · context {context:,}"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("layer", "block", "mixer", "window", "K/V"):
        table.add_column(column)
    for column in ("parameters", "forward\nMFLOP\n/token", "K/V bytes\n/token"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in counted.layers:
        numbers = (f"{layer.parameters:,}", f"{layer.flops / 1e6:.2f}", f"{layer.cache_bytes:,.0f}")
        window = "" if layer.window is None else f"{layer.window:,}"
        owner = "own" if layer.kv_from is None else f"of {layer.kv_from}"
        table.add_row(str(layer.index), layer.block, layer.mixer, window, owner, *numbers)
    table.add_section()
    ends = "embedding + head" if counted.head else "embedding"
    head_flops = 2e-6 * (counted.head or counted.embedding)
    table.add_row("", ends, "", "", "", f"{counted.embedding + counted.head:,}", f"{head_flops:.2f}", "")
    if counted.auxiliary:
        table.add_row("", "auxiliary", "", "", "", f"{counted.auxiliary:,}", "", "")
    totals = (f"{counted.parameters:,}", f"{counted.flops / 1e6:.2f}", f"{counted.cache_bytes:,.0f}")
    table.add_row("", "all", "", "", "", *totals)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{counted.non_embedding:,} parameters beside embedding and head; a training step costs three forwards"
    )
    if counted.auxiliary:
        console.print(f"{counted.auxiliary:,} of them are auxiliary: trained, neither exported nor used to complete")
