"""The model's options: named blocks, a pattern that repeats them to the number of layers, and what all layers share."""

from pydantic import Field, model_validator

from inlay.config import Config, nearest
from inlay.model.mixer import mixers
from inlay.model.mlp import mlps


class BlockConfig(Config):
    """A pre-norm residual block: x + mixer(norm(x)), then x + mlp(norm(x))."""

    mixer: mixers.union()  # type: ignore[valid-type]
    mlp: mlps.union()  # type: ignore[valid-type]


class ModelConfig(Config):
    """A decoder. The vocabulary comes from the tokenizer of the store."""

    width: int = Field(ge=1)
    """Channels of the residual stream (d)."""
    layers: int = Field(ge=1)
    blocks: dict[str, BlockConfig]
    """Blocks by a name of your choice."""
    pattern: tuple[str, ...] = Field(min_length=1)
    """Names of blocks, repeated until `layers` are made."""
    norm_eps: float = Field(1e-6, gt=0.0)
    tie_embeddings: bool = True
    """One matrix for the input embedding and the output head."""
    init_std: float = Field(0.02, gt=0.0)
    """Standard deviation of inner projections; those into the residual stream take init_std / sqrt(2 layers)."""
    embedding_std: float = Field(0.02, gt=0.0)

    @model_validator(mode="after")
    def _pattern_names_blocks(self) -> "ModelConfig":
        for name in self.pattern:
            if name not in self.blocks:
                raise ValueError(f"pattern names block '{name}', which is not in blocks{nearest(name, self.blocks)}")
        return self
