"""One small model for every registered mixer and network, and for every option that changes what a layer computes.

The contract in `test_contract.py` holds for each. Weights are wide, so that every position matters.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from tests.model.shapes import tiny_model

from inlay.config import validate
from inlay.model import ModelConfig, Transformer

SWIGLU = {"kind": "swiglu", "inner": 40}
MLA = {"kind": "mla", "heads": 4, "q_rank": None, "kv_rank": 12, "nope_size": 6, "rope_size": 4, "value_size": 5}
LLAMA3 = {"kind": "llama3", "factor": 4.0, "low_factor": 1.0, "high_factor": 4.0, "original_context": 32}


def attention(window: int | None = None, **options: Any) -> dict[str, Any]:
    """Options of an attention mixer."""
    sizes = {"heads": 4, "kv_heads": 2, "head_size": 8, "rope_theta": 10_000.0}
    return {"kind": "attention", "window": window, **sizes, **options}


def model(*mixers: dict[str, Any], mlp: dict[str, Any] = SWIGLU, repeat: int = 2, **options: Any) -> dict[str, Any]:
    """A model of width 32 whose pattern is these mixers, `repeat` times; equal mixers are one block."""
    names: list[str] = []
    blocks: dict[str, Any] = {}
    for mixer in mixers:
        block = {"mixer": mixer, "mlp": mlp}
        name = next((name for name, known in blocks.items() if known == block), f"block{len(blocks)}")
        blocks[name] = block
        names.append(name)
    sizes = {"width": 32, "layers": repeat * len(names), "init_std": 0.2, "embedding_std": 1.0}
    return {**sizes, "blocks": blocks, "pattern": names, **options}


LOCAL, FULL = attention(5), attention()
MEMBERS: dict[str, dict[str, Any]] = {
    "attention": model(FULL),
    "attention-one-kv-head": model(attention(kv_heads=1)),
    "attention-no-qk-norm": model(attention(qk_norm=False)),
    "attention-softcap": model(attention(softcap=1.5), head_softcap=4.0),
    "attention-bias": model(attention(bias="qkv")),
    "attention-stretched": model(attention(rope_scaling=LLAMA3)),
    "starcoder2": model(attention(bias="all", qk_norm=False), mlp={"kind": "gelu", "inner": 40, "bias": True})
    | {"norm": "layer", "tie_embeddings": False},
    "relu2": model(FULL, mlp={"kind": "relu2", "inner": 60}),
    "window": model(LOCAL),
    "window-of-two": model(attention(2), FULL, repeat=1),
    "windows-and-softcap": model(attention(3, softcap=1.5), attention(9, rope_theta=500.0), repeat=1),
    "mixattention": model(LOCAL, LOCAL, FULL, kv_share={"kind": "pairs"}),
    "tail": model(LOCAL, FULL, kv_share={"kind": "tail", "layers": 2}),
    "explicit": model(LOCAL, repeat=3, kv_share={"kind": "explicit", "owner": [None, 0, 0]}),
    "mla": model(MLA),
    "mla-query-rank": model({**MLA, "q_rank": 10}),
    "short-conv": model({"kind": "short_conv", "kernel": 3}),
    "lfm2": model({"kind": "short_conv", "kernel": 4}, {"kind": "short_conv", "kernel": 4}, FULL, repeat=1),
}


def config(name: str, **options: Any) -> ModelConfig:
    """The configuration of a member, with `options` of the model replaced."""
    return validate(ModelConfig, {**MEMBERS[name], **options})


@cache
def frozen(name: str) -> Transformer:
    """A member for inference. Shared: not to be changed."""
    return tiny_model(config(name)).eval().requires_grad_(False)


def kinds(part: str) -> Iterator[str]:
    """The kinds of `part` (mixer or mlp) that the members have."""
    for data in MEMBERS.values():
        for block in data["blocks"].values():
            yield block[part]["kind"]


def farthest(built: Transformer) -> int | None:
    """How far back the hidden state at a position depends on the input, counted layer by layer; None for all."""
    inputs: list[float] = []
    depends = 0.0
    for spec in built.layout:
        inputs.append(depends)
        reach = spec.block.mixer.reach
        seen = inputs[spec.index if spec.kv_from is None else spec.kv_from]
        depends = max(depends, seen + (torch.inf if reach is None else reach - 1))
    return None if depends == torch.inf else int(depends)
