"""The peer: transformers' Qwen3ForCausalLM in the shape of one of our models, trained the way its users train it.

It decides which settings the peer may run in (the usual one first), and gives it all that helps it: fused AdamW, the
same process environment, logits and loss on exactly our targets, gradient clipping as in transformers' own trainer. It
refuses shapes that Qwen3 does not have, and a model whose parameter count is not ours. Legend: B rows, T positions, d
channels, V vocabulary.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from inlay.config import BadInput
from inlay.data.loader import Batch
from inlay.model import ModelConfig, Transformer
from inlay.model.mixers.attention import AttentionConfig
from inlay.model.mlps.swiglu import SwiGLUConfig

IGNORED = -100
"""The target that transformers' loss leaves out."""


@dataclass(frozen=True)
class Setting:
    """How the peer computes: fp32 masters under autocast to bf16, or all in bf16."""

    numbers: Literal["autocast", "bfloat16"]
    attention: Literal["sdpa", "eager"]
    compiled: bool


SETTINGS = {
    "autocast-sdpa": Setting("autocast", "sdpa", False),
    "autocast-sdpa-compiled": Setting("autocast", "sdpa", True),
    "autocast-eager-compiled": Setting("autocast", "eager", True),
    "bfloat16-sdpa": Setting("bfloat16", "sdpa", False),
    "bfloat16-eager": Setting("bfloat16", "eager", False),
    "bfloat16-eager-compiled": Setting("bfloat16", "eager", True),
    "bfloat16-sdpa-compiled": Setting("bfloat16", "sdpa", True),
}
USUAL = "autocast-sdpa"


def peer_config(model: ModelConfig, vocabulary: int, length: int, attention: str) -> Any:
    """transformers' Qwen3Config of `model`'s shape. Raises BadInput for what is not exactly Qwen3's shape."""
    from transformers import Qwen3Config

    blocks = {name: model.blocks[name] for name in model.pattern}
    mixer, mlp = (lambda block: (block.mixer, block.mlp))(next(iter(blocks.values())))
    same = all((block.mixer, block.mlp) == (mixer, mlp) for block in blocks.values())
    if not same or not isinstance(mixer, AttentionConfig) or not isinstance(mlp, SwiGLUConfig) or not mixer.qk_norm:
        raise BadInput(
            "the peer is Qwen3: it has one kind of block, attention with qk_norm and a swiglu; choose such a model"
        )
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=model.width,
        intermediate_size=mlp.inner,
        num_hidden_layers=model.layers,
        num_attention_heads=mixer.heads,
        num_key_value_heads=mixer.kv_heads,
        head_dim=mixer.head_size,
        max_position_embeddings=length,
        rms_norm_eps=model.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": mixer.rope_theta},
        tie_word_embeddings=model.tie_embeddings,
        initializer_range=model.init_std,
        use_cache=False,
    )
    config._attn_implementation = attention
    return config


class Peer:
    """One Qwen3 with fused AdamW.

    `documents`: rows with their position ids, which makes transformers mask documents from each other as its packed
    training does; without, plain causal attention over the row, which costs it less.
    """

    def __init__(
        self,
        model: ModelConfig,
        vocabulary: int,
        length: int,
        setting: Setting,
        *,
        rate: float = 3e-3,
        documents: bool = False,
        seed: int = 0,
    ) -> None:
        from transformers import Qwen3ForCausalLM

        torch.manual_seed(seed)
        self.setting = setting
        self.config = model
        # Any: transformers wraps `to` in a way that type checkers misread.
        made: Any = Qwen3ForCausalLM(peer_config(model, vocabulary, length, setting.attention))
        self.model: Any = made
        with torch.device("meta"):
            ours = sum(parameter.numel() for parameter in Transformer(model, vocabulary).parameters())
        theirs = sum(parameter.numel() for parameter in self.model.parameters())
        if ours != theirs:
            raise BadInput(f"the peer has {theirs:,} parameters and our model {ours:,}: they are not the same shape")
        if setting.numbers == "bfloat16":
            made.to(torch.bfloat16)
        self.model.train()
        self.rate = rate
        self.documents = documents
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.model.parameters() if parameter.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.95),
            fused=True,
        )
        self._call: Callable[..., Any] = self.model
        if setting.compiled:
            self._call = torch.compile(self.model, dynamic=False)

    def step(self, batch: Batch, multiplier: float = 1.0) -> float:
        """One optimizer step at `multiplier` times the rate; returns the loss, in nats per trained token."""
        tokens, positions = (torch.from_numpy(array).long() for array in (batch.tokens, batch.positions))
        targets = torch.from_numpy(np.where(batch.weights > 0.0, batch.targets, IGNORED)).long()
        extra = {"position_ids": positions} if self.documents else {}
        with self.numbers():
            loss = self._call(input_ids=tokens, labels=targets, shift_labels=targets, **extra).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * multiplier
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def numbers(self) -> contextlib.AbstractContextManager[Any]:
        """The context that a forward pass runs in."""
        if self.setting.numbers == "autocast":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()


class AsOurs(nn.Module):
    """The peer as `inlay.train.validate` sees a model of ours, so that one code measures both."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer
        self.model = peer.model
        self.config = peer.config

    @property
    def head_weight(self) -> Tensor:
        """[V, d]."""
        return self.model.lm_head.weight

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens, positions [B, T] int64 to hidden [B, T, d] in bf16, as in training."""
        extra = {"position_ids": positions} if self.peer.documents else {}
        with self.peer.numbers():
            return self.model.model(input_ids=tokens, **extra).last_hidden_state.bfloat16()
