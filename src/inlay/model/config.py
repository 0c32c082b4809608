"""The model's options: named blocks, a pattern that repeats them to the number of layers, and what all layers share."""

from typing import Literal

from pydantic import Field, model_validator

from inlay.config import Config, nearest
from inlay.model import sharing
from inlay.model.mixer import mixers
from inlay.model.mlp import mlps


class BlockConfig(Config):
    """A pre-norm residual block: x + mixer(norm(x)), then x + mlp(norm(x))."""

    mixer: mixers.union()  # type: ignore[valid-type]
    mlp: mlps.union()  # type: ignore[valid-type]


class MTPConfig(Config):
    """Multi-token prediction: one more block predicts the token after the next (2412.19437, section 2.2)."""

    weight: float = Field(0.1, gt=0.0, le=1000.0)
    """Of its loss, beside 1 for the next token's."""


class HorizonConfig(Config):
    """Horizon-length prediction (2410.03103): at each token of a middle, the share of it that is still to come."""

    weight: float = Field(0.1, gt=0.0, le=1000.0)


class ModelConfig(Config):
    """A decoder. The vocabulary comes from the tokenizer of the store."""

    width: int = Field(ge=1, le=1 << 20)
    """Channels of the residual stream (d)."""
    layers: int = Field(ge=1, le=4096)
    blocks: dict[str, BlockConfig]
    """Blocks by a name of your choice."""
    pattern: tuple[str, ...] = Field(min_length=1)
    """Names of blocks, repeated until `layers` are made, a whole number of times."""
    kv_share: sharing.AnyKVShare = sharing.NoSharing()
    """Which layers read the K/V of an earlier one."""
    norm: Literal["rms", "layer"] = "rms"
    """`layer` is LayerNorm with bias, for imported models (StarCoder2)."""
    norm_eps: float = Field(1e-6, gt=0.0, le=1.0)
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head."""
    head_softcap: float | None = Field(None, gt=0.0, le=1e6)
    """Caps logits smoothly: cap tanh(logit / cap) (Gemma 2); null does not."""
    document_masks: bool = True
    """No token sees another document of its row. false is the ablation of seed 001: plainly causal rows."""
    mtp: MTPConfig | None = None
    horizon: HorizonConfig | None = None
    init_std: float = Field(0.02, gt=0.0, le=1000.0)
    """Standard deviation of inner projections; those into the residual stream take init_std / sqrt(2 layers)."""
    embedding_std: float = Field(0.02, gt=0.0, le=1000.0)

    @model_validator(mode="after")
    def _fits(self) -> "ModelConfig":
        for name in self.pattern:
            if name not in self.blocks:
                raise ValueError(f"pattern names block '{name}', which is not in blocks{nearest(name, self.blocks)}")
        if rest := self.layers % len(self.pattern):
            fewer = self.layers - rest
            wanted = f"{fewer} or {fewer + len(self.pattern)}" if fewer else f"{len(self.pattern)}"
            raise ValueError(
                f"layers {self.layers} is not a multiple of the pattern's {len(self.pattern)} blocks: give {wanted}"
            )
        sharing.check(self.kv_share.owners(self.names), self.names, self.blocks)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The block of each layer."""
        return tuple(self.pattern[index % len(self.pattern)] for index in range(self.layers))
