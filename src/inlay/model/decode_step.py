"""The next token of one row, by the shortest way: what an editor waits for, 100 times a completion.

At batch 1 a step is a few matrix-vector products, and each small operation beside them costs as much as a small
product. So the matrices that read the same input are one matrix here (query, key and value; gate and up), rotary tables
are kept, nothing is masked that is visible anyway, and a product is cut into a piece per thread, because torch computes
the product of a matrix and one vector on one core. The result is that of `Transformer.decode`, up to the order of sums.

It decides layer by layer: attention with full or windowed K/V, its own or shared, and SwiGLU go the short way; another
mixer or MLP runs its own `decode`. It refuses a model that is still being trained.
Legend: H query heads, G key/value heads, D head size, S visible keys, d channels, V vocabulary; there is one row.
"""

from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from inlay.model.cache import Cache
from inlay.model.masks import cache_mask
from inlay.model.mixer import Context, KeyValue, LayerCache, Mixer
from inlay.model.mixers.attention import Attention
from inlay.model.mlps.swiglu import SwiGLU
from inlay.model.parts import Rotation, rotation
from inlay.model.row_parts import WeightProduct, head_norms, joined, norm_of, product_of
from inlay.model.transformer import Transformer

T = TypeVar("T")


class DecodeStep:
    """One new token on a one-row cache. Made once from a model whose weights no longer change, and shares them: the
    parameters of the model become views of the joined matrices."""

    def __init__(self, model: Transformer) -> None:
        """Raises ValueError for a model that `supports` refuses."""
        if not self.supports(model):
            raise ValueError("a model whose weights require gradients has no decode step: they may change")
        self.model = model
        narrow = model.compute_dtype
        self._blocks = [
            (
                norm_of(block.mixer_norm, narrow),
                _Attention(block.mixer, narrow) if isinstance(block.mixer, Attention) else _Plain(block.mixer),
                norm_of(block.mlp_norm, narrow),
                _SwiGLU(block.mlp) if isinstance(block.mlp, SwiGLU) else block.mlp,
            )
            for block in model.layers
        ]
        self._final_norm = norm_of(model.final_norm, narrow)
        self._head = WeightProduct(model.head_weight.data)
        self._tables: dict[Rotation, tuple[Tensor, Tensor]] = {}

    @property
    def products(self) -> list[WeightProduct]:
        """The matrix products of a step that go the short way, in order."""
        found: list[WeightProduct] = []
        for _, mixer, _, mlp in self._blocks:
            found += [mixer.inputs, mixer.output] if isinstance(mixer, _Attention) else []
            found += [mlp.inputs, mlp.down] if isinstance(mlp, _SwiGLU) else []
        return [*found, self._head]

    @staticmethod
    def supports(model: Transformer) -> bool:
        """Whether its weights are frozen. While they are trained they belong to the optimizer."""
        return not any(parameter.requires_grad for parameter in model.parameters())

    @property
    def short_layers(self) -> int:
        """How many layers' mixers go the short way; the others run their own `decode`."""
        return sum(isinstance(mixer, _Attention) for _, mixer, _, _ in self._blocks)

    def __call__(self, token: Tensor, cache: Cache) -> Tensor:
        """`token` [1] int64 on top of the one-row `cache` (extended in place) to hidden [1, d].

        Raises ValueError beyond the cache's capacity.
        """
        moment = Moment(self.model, cache, self._tables)
        x = functional.embedding(token, self.model.embedding.weight).to(self.model.compute_dtype)
        owned: dict[int, KeyValue | None] = {}
        for spec, state, block in zip(self.model.layout, cache.layers, self._blocks, strict=True):
            mixer_norm, mixer, mlp_norm, mlp = block
            shared = None if spec.kv_from is None else owned[spec.kv_from]
            mixed, owned[spec.index] = mixer(mixer_norm(x), moment, state, shared)
            x = x + mixed
            x = x + mlp(mlp_norm(x))
        return self._final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [1, d] to fp32 logits [1, V]; the product is in the dtype of the head's weight."""
        logits = self._head(hidden.to(self.model.head_weight.dtype)).float()
        cap = self.model.config.head_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


class Moment:
    """What the layers of one step share. `position`: that of the new token, for which the cache has been extended."""

    def __init__(self, model: Transformer, cache: Cache, tables: dict[Rotation, tuple[Tensor, Tensor]]) -> None:
        self._place = cache.lengths
        self.position = cache.append_one()
        self._model = model
        self._cache = cache
        self._tables = tables
        self._rotations: dict[Rotation, tuple[Tensor, Tensor]] = {}
        self._visible: dict[int | None, tuple[slice, Tensor | None]] = {}
        self._context: Context | None = None

    def rotation(self, key: Rotation) -> tuple[Tensor, Tensor]:
        """(cos, sin), each [D], of this position: x cos + roll(x) sin turns x in the rotate-half layout."""
        if key not in self._rotations:
            if key not in self._tables or len(self._tables[key][0]) <= self.position:
                places = torch.arange(max(self._cache.capacity, 256), device=self._model.embedding.weight.device)
                cos, sin = (table[0, 0] for table in rotation(places[None], *key))
                self._tables[key] = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
            cos, sin = self._tables[key]
            self._rotations[key] = cos[self.position], sin[self.position]
        return self._rotations[key]

    def slot(self, memory: int | None) -> Tensor:
        """The slot [1] of the new token in caches of this memory."""
        size = self._cache.sizes[memory]
        return self._place if size == self._cache.capacity else self._place % size

    def visible(self, memory: int | None, window: int | None) -> tuple[slice, Tensor | None]:
        """The slots that the new token sees, and an additive mask [1, 1, 1, S] where it does not see all of them."""
        if window not in self._visible:
            size, end = self._cache.sizes[memory], self.position + 1
            if window is None or end <= min(window, size):
                self._visible[window] = slice(0, end), None
            elif end <= size:  # nothing has been overwritten: the window is one stretch
                self._visible[window] = slice(end - window, end), None
            else:
                where = self._cache.lengths[:, None] - 1
                mask = cache_mask(where, self._cache.lengths, size, size, window, self._model.compute_dtype)
                self._visible[window] = slice(0, size), mask
        return self._visible[window]

    @property
    def context(self) -> Context:
        """What a mixer's own `decode` wants."""
        if self._context is None:
            self._context = self._model.decode_context(self._cache.lengths[:, None] - 1, self._cache)
        return self._context


class _Plain:
    """A mixer's own `decode` as a step of one token."""

    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def __call__(
        self, x: Tensor, moment: Moment, state: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        mixed, owned = self.mixer.decode(x[:, None], moment.context, state, shared)
        return mixed[:, 0], owned


class _Attention:
    """`Attention.decode` for one token."""

    def __init__(self, mixer: Attention, dtype: torch.dtype) -> None:
        config = self.config = mixer.config
        self.query_heads, self.groups = config.heads, config.kv_heads
        self.rotary = config.rotation
        linears, norms, counts = [mixer.query], [mixer.query_norm], [config.heads]
        if mixer.owns_kv:
            linears += [mixer.key, mixer.value]
            norms += [mixer.key_norm]
            counts += [config.kv_heads]
        self.inputs = joined(linears)
        self.output = product_of(mixer.output)
        self.turned = sum(counts)
        """Heads that are normalised and rotated, all at once: queries, then keys."""
        self.norm = head_norms(norms, counts, dtype) if config.qk_norm else None

    def __call__(
        self, x: Tensor, moment: Moment, state: LayerCache | None, shared: KeyValue | None
    ) -> tuple[Tensor, KeyValue | None]:
        config, size = self.config, self.config.head_size
        heads = self.inputs(x).view(-1, size)
        turned = heads[: self.turned]
        if self.norm is not None:
            turned = self.norm(turned)
        cos, sin = moment.rotation(self.rotary)
        wide = turned.float()
        turned = torch.addcmul(wide * cos, wide.roll(size // 2, -1), sin).to(x.dtype)
        where, mask = moment.visible(config.memory, config.window)
        owned = None
        if state is not None:
            slot = moment.slot(config.memory)
            keys, values = state.tensors
            keys[0].index_copy_(1, slot, turned[self.query_heads :, None])
            values[0].index_copy_(1, slot, heads[self.turned :, None])
            shared = owned = keys[:, :, where], values[:, :, where]
        # The query heads of a group are queries of one K/V head.
        query = turned[: self.query_heads].view(1, self.groups, -1, size)
        key, value = _required(shared)
        if config.softcap is None:
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = torch.matmul(query * size**-0.5, key.transpose(-1, -2))
            scores = config.softcap * torch.tanh(scores / config.softcap)
            attended = torch.matmul(torch.softmax(scores if mask is None else scores + mask, dim=-1), value)
        return self.output(attended.view(1, -1)), owned


class _SwiGLU:
    """`SwiGLU.forward` for one token, in two products."""

    def __init__(self, mlp: SwiGLU) -> None:
        self.inner = mlp.gate.out_features
        self.inputs = joined([mlp.gate, mlp.up])
        self.down = product_of(mlp.down)

    def __call__(self, x: Tensor) -> Tensor:
        both = self.inputs(x)
        return self.down(functional.silu(both[:, : self.inner]) * both[:, self.inner :])


def _required(value: T | None) -> T:
    if value is None:
        raise ValueError("a layer without K/V of its own was given none to read")
    return value
