"""The decoder built from a layout: embedding, pre-norm blocks, final norm, head.

`forward` serves training on packed rows; `decode` serves generation from a cache. The head is applied by the loss (in
chunks) or by `logits`; hidden states never become a whole [tokens, vocabulary] table here.
Legend: B rows, T positions, d channels, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from inlay.model.auxiliary import MTP, Horizon
from inlay.model.cache import ROLLBACK, Cache
from inlay.model.config import ModelConfig
from inlay.model.layout import LayerSpec, resolve
from inlay.model.masks import Mask, cache_mask, row_mask
from inlay.model.mixer import Context, KeyValue, LayerCache
from inlay.model.parts import Rotation, make_norm, rotation

BlockCall = Callable[[Tensor, Context, KeyValue | None], tuple[Tensor, KeyValue | None]]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)). Shared K/V go in and own K/V come out explicitly."""

    def __init__(self, spec: LayerSpec, config: ModelConfig) -> None:
        super().__init__()
        self.mixer_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.mixer = spec.block.mixer.build(config.width, config.norm_eps, owns_kv=spec.kv_from is None)
        self.mlp_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.mlp = spec.block.mlp.build(config.width)

    def forward(self, x: Tensor, context: Context, shared: KeyValue | None) -> tuple[Tensor, KeyValue | None]:
        mixed, owned = self.mixer(self.mixer_norm(x), context, shared)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), owned

    def decode(
        self, x: Tensor, context: Context, cache: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        """As forward, for new positions on top of a cache."""
        mixed, owned = self.mixer.decode(self.mixer_norm(x), context, cache, shared)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), owned


class Transformer(nn.Module):
    """A decoder-only language model. `compute_dtype` is what activations are computed in; weights stay as they are."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.compute_dtype = torch.float32
        self.activation_checkpointing = False
        """Training keeps only the input of each block and computes the rest again in the backward pass."""
        self.layout = resolve(config)
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(spec, config) for spec in self.layout)
        self.final_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, vocab_size, bias=False)
        self.mtp = None if config.mtp is None else MTP(config, Block(replace(self.layout[-1], kv_from=None), config))
        self.horizon = None if config.horizon is None else Horizon(config.width)

    @property
    def layers(self) -> Sequence[Block]:
        """The blocks in order, by their type."""
        return cast("Sequence[Block]", self.blocks)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, d]."""
        return self.embedding.weight if self.head is None else self.head.weight

    def context(self, positions: Tensor) -> Context:
        """What positions [B, T] of packed rows (they restart at 0 per document) imply for all layers."""
        if not self.config.document_masks:
            positions = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
        masks = {reach: row_mask(positions, reach, self.compute_dtype) for reach in self._reaches()}
        return Context(positions, masks, self._rotations(positions))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        blocks: Sequence[BlockCall] | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Packed rows: tokens, positions [B, T] int64 (positions restart at 0 per document) to hidden [B, T, d].

        `blocks` may be compiled versions of `self.blocks`: compiling block by block makes one graph for all layers, a
        third of the compile time of the whole model at equal speed. `context` is that of `positions`, when the caller
        has it already.
        """
        context = context or self.context(positions)
        x = self.embedding(tokens).to(self.compute_dtype)
        owned: dict[int, KeyValue | None] = {}
        for spec, block in zip(self.layout, blocks or self.blocks, strict=True):
            shared = None if spec.kv_from is None else owned[spec.kv_from]
            x, owned[spec.index] = self.run_block(block, x, context, shared)
        return self.final_norm(x)

    def run_block(
        self, block: BlockCall, x: Tensor, context: Context, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        """One block, with its activations kept or computed again in the backward pass."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            # Not re-entrant: K/V that layers share are then ordinary graph inputs, and get their gradients. Nothing is
            # random in a block.
            return checkpoint(block, x, context, shared, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]
        return block(x, context, shared)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., d] to fp32 logits [..., V]."""
        logits = functional.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        cap = self.config.head_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def new_cache(self, batch: int, capacity: int, rollback: int = ROLLBACK) -> Cache:
        """An empty cache for `batch` rows of up to `capacity` positions, of which `rollback` can be taken back."""
        device = self.embedding.weight.device
        memories = {spec.block.mixer.memory for spec in self.layout}
        sizes = {memory: capacity if memory is None else min(capacity, memory + rollback) for memory in memories}
        layers = [
            block.mixer.new_cache(batch, sizes[spec.block.mixer.memory], device, self.compute_dtype)
            if spec.kv_from is None
            else None
            for spec, block in zip(self.layout, self.layers, strict=True)
        ]
        return Cache(layers, torch.zeros(batch, dtype=torch.int64, device=device), capacity, sizes, rollback)

    def decode(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """New tokens, positions [B, T] on top of `cache` (extended in place) to hidden [B, T, d].

        Position -1 marks padding: it is written nowhere that is read, and its output means nothing. Each row's other
        positions must continue its cache. Raises ValueError beyond the cache's capacity.
        """
        most = cache.rollback + 1
        if tokens.shape[1] > most and cache.has_rings:  # else a ring would lose what the first of them still need
            parts = zip(tokens.split(most, dim=1), positions.split(most, dim=1), strict=True)
            return torch.cat([self.decode(*part, cache) for part in parts], dim=1)
        cache.extend(positions)
        context = self.decode_context(positions, cache)
        x = self.embedding(tokens).to(self.compute_dtype)
        owned: dict[int, KeyValue | None] = {}
        for spec, block, layer in zip(self.layout, self.layers, cache.layers, strict=True):
            shared = None if spec.kv_from is None else owned[spec.kv_from]
            x, owned[spec.index] = block.decode(x, context, layer, shared)
        return self.final_norm(x)

    def decode_context(self, positions: Tensor, cache: Cache) -> Context:
        """What new positions [B, T] imply for all layers, once `cache` has been extended by them."""
        slots = {memory: torch.where(positions < 0, size, positions % size) for memory, size in cache.sizes.items()}
        # Padding looks at slot 0 so that its softmax is defined.
        visible = positions.clamp(min=0)
        masks: dict[int | None, Mask] = {}
        for spec in self.layout:
            mixer = spec.block.mixer
            if mixer.masked and mixer.reach not in masks:
                size = cache.sizes[mixer.memory]
                seen = min(cache.seen, size)
                masks[mixer.reach] = cache_mask(visible, cache.lengths, size, seen, mixer.reach, self.compute_dtype)
        return Context(visible, masks, self._rotations(visible), slots)

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
        # Last, so that a model draws the same weights with and without them.
        if self.mtp is not None:
            self.mtp.initialise(std, out_std, generator)
        if self.horizon is not None:
            self.horizon.initialise(std, generator)

    def adopt(self, config: ModelConfig) -> None:
        """Takes another configuration of the same weights, such as another rotary embedding, for what comes next.

        Raises ValueError for one that differs in anything but the rotary embedding of its layers.
        """
        layout = resolve(config)
        if _but_rotary(config, layout) != _but_rotary(self.config, self.layout):
            raise ValueError("a model that is there can change its rotary embedding and nothing else")
        self.config, self.layout = config, layout
        for spec, block in zip(layout, self.layers, strict=True):
            block.mixer.config = spec.block.mixer
        if self.mtp is not None:
            self.mtp.block.mixer.config = layout[-1].block.mixer

    def drop_auxiliary(self) -> None:
        """Takes away what only training needs, for inference and export."""
        self.mtp = self.horizon = None

    def _reaches(self) -> set[int | None]:
        return {spec.block.mixer.reach for spec in self.layout if spec.block.mixer.masked}

    def _rotations(self, positions: Tensor) -> dict[Rotation, tuple[Tensor, Tensor]]:
        wanted = {spec.block.mixer.rotation for spec in self.layout} - {None}
        return {key: rotation(positions, *key) for key in wanted if key is not None}


def _but_rotary(config: ModelConfig, layout: Sequence[LayerSpec]) -> tuple[object, ...]:
    """Everything of a model but the rotary embedding of its layers."""
    fixed = {name: value for name, value in config if name not in ("blocks", "pattern", "layers")}
    rotary = {"rope_theta", "rope_scaling"}
    layers = [
        (spec.kv_from, spec.block.mlp, type(spec.block.mixer), spec.block.mixer.model_dump(exclude=rotary))
        for spec in layout
    ]
    return fixed, layers


def build(config: ModelConfig, vocab_size: int, seed: int | None = None) -> Transformer:
    """A model on the CPU; initialised from `seed` unless None (for weights that are loaded next)."""
    model = Transformer(config, vocab_size)
    if seed is not None:
        model.initialise(seed)
    return model
