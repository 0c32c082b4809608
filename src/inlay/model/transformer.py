"""The decoder built from a layout: embedding, pre-norm blocks, final norm, head.

`forward` serves training on packed rows; `decode` serves generation from a cache. The head is applied by the loss (in
chunks) or by `logits`; hidden states never become a whole [tokens, vocabulary] table here.
Legend: B rows, T positions, d channels, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from inlay.model.config import ModelConfig
from inlay.model.layout import LayerSpec, resolve
from inlay.model.masks import cache_mask, document_mask
from inlay.model.mixer import Context, KeyValue, LayerCache
from inlay.model.parts import RMSNorm, rotation

BlockCall = Callable[[Tensor, Context, KeyValue | None], tuple[Tensor, KeyValue | None]]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)). Shared K/V go in and own K/V come out explicitly."""

    def __init__(self, spec: LayerSpec, config: ModelConfig) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(config.width, config.norm_eps)
        self.mixer = spec.block.mixer.build(config.width, config.norm_eps)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps)
        self.mlp = spec.block.mlp.build(config.width)

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        mixed, owned = self.mixer(self.mixer_norm(x), context, shared)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), owned

    def decode(self, x: Tensor, context: Context, slots: Tensor, cache: LayerCache) -> Tensor:
        """As forward, for new positions on top of a cache."""
        x = x + self.mixer.decode(self.mixer_norm(x), context, slots, cache)
        return x + self.mlp(self.mlp_norm(x))


@dataclass
class Cache:
    """Decode state of all layers. `lengths` [B] int64: positions held by each row."""

    layers: list[LayerCache]
    lengths: Tensor
    capacity: int
    seen: int = field(default=0)
    """No row holds more positions than this; keeps attention off the unused part without a device round trip."""

    def truncate(self, lengths: Tensor) -> None:
        """Forgets what lies behind `lengths` [B]: later writes replace it, and masks hide it until then."""
        self.lengths = torch.minimum(self.lengths, lengths.to(self.lengths))
        self.seen = int(self.lengths.max()) if len(self.lengths) else 0

    def select(self, rows: Tensor) -> "Cache":
        """A cache of the given rows [b] only, in that order."""
        layers = [LayerCache(layer.keys[rows], layer.values[rows]) for layer in self.layers]
        return Cache(layers, self.lengths[rows], self.capacity, self.seen)


class Transformer(nn.Module):
    """A decoder-only language model. `compute_dtype` is what activations are computed in; weights stay as they are."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.compute_dtype = torch.float32
        self.layout = resolve(config)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(spec, config) for spec in self.layout)
        self.final_norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, vocab_size, bias=False)

    @property
    def layers(self) -> Sequence[Block]:
        """The blocks in order, by their type."""
        return cast("Sequence[Block]", self.blocks)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, d]."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(self, tokens: Tensor, positions: Tensor, blocks: Sequence[BlockCall] | None = None) -> Tensor:
        """Packed rows: tokens, positions [B, T] int64 (positions restart at 0 per document) to hidden [B, T, d].

        `blocks` may be compiled versions of `self.blocks`: compiling block by block makes one graph for all layers, a
        third of the compile time of the whole model at equal speed.
        """
        dtype = self.compute_dtype
        masks = {window: document_mask(positions, window, dtype) for window in self._windows()}
        context = Context(masks, self._rotations(positions))
        x = self.embedding(tokens).to(dtype)
        owned: dict[int, KeyValue | None] = {}
        for spec, block in zip(self.layout, blocks or self.blocks, strict=True):
            shared = None if spec.kv_from is None else owned[spec.kv_from]
            x, owned[spec.index] = block(x, context, shared)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., d] to fp32 logits [..., V]."""
        return torch.nn.functional.linear(hidden, self.head_weight.to(hidden.dtype)).float()

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` positions."""
        device = self.embedding.weight.device
        layers = [block.mixer.new_cache(batch, capacity, device, self.compute_dtype) for block in self.layers]
        return Cache(layers, torch.zeros(batch, dtype=torch.int64, device=device), capacity)

    def decode(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """New tokens, positions [B, T] on top of `cache` (extended in place) to hidden [B, T, d].

        Position -1 marks padding: it is written nowhere that is read, and its output means nothing. Each row's other
        positions must continue its cache. Raises ValueError beyond the cache's capacity.
        """
        newest = int(positions.max()) + 1
        if newest > cache.capacity:
            raise ValueError(f"position {newest - 1} does not fit a cache of {cache.capacity}")
        cache.seen = max(cache.seen, newest)
        cache.lengths = torch.maximum(cache.lengths, positions.amax(dim=1) + 1)
        slots = torch.where(positions < 0, cache.capacity, positions)
        # Padding looks at slot 0 so that its softmax is defined.
        visible = positions.clamp(min=0)
        dtype = self.compute_dtype
        masks = {window: cache_mask(visible, cache.seen, window, dtype) for window in self._windows()}
        context = Context(masks, self._rotations(visible))
        x = self.embedding(tokens).to(dtype)
        for block, layer in zip(self.layers, cache.layers, strict=True):
            x = block.decode(x, context, slots, layer)
        return self.final_norm(x)

    def initialise(self, seed: int) -> None:
        """Draws all weights from `seed`: the same on every device and under every sharding."""
        generator = torch.Generator().manual_seed(seed)
        std = self.config.init_std
        out_std = std / (2 * self.config.layers) ** 0.5
        nn.init.normal_(self.embedding.weight, std=self.config.embedding_std, generator=generator)
        for block in self.layers:
            block.mixer.initialise(std, out_std, generator)
            block.mlp.initialise(std, out_std, generator)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=self.config.embedding_std, generator=generator)

    def _windows(self) -> set[int | None]:
        return {spec.block.mixer.window for spec in self.layout}

    def _rotations(self, positions: Tensor) -> dict[tuple[float, int], tuple[Tensor, Tensor]]:
        wanted = {spec.block.mixer.rotation for spec in self.layout} - {None}
        return {key: rotation(positions, *key) for key in wanted if key is not None}


def build(config: ModelConfig, vocab_size: int, seed: int | None = None) -> Transformer:
    """A model on the CPU; initialised from `seed` unless None (for weights that are loaded next)."""
    model = Transformer(config, vocab_size)
    if seed is not None:
        model.initialise(seed)
    return model
