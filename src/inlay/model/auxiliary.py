"""What a model learns beside the next token: one more token, and how far a middle still goes.

Both are modules of the model only so that they are trained, saved and resumed with it. Nothing in `forward` or `decode`
reads them, and `Transformer.drop_auxiliary` takes them away for inference. Their losses: `inlay.train.objectives`.
Legend: B rows, T positions, d channels.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inlay.model.mixer import Context
from inlay.model.parts import Linear, make_norm

if TYPE_CHECKING:
    from inlay.model.config import ModelConfig
    from inlay.model.transformer import Block, BlockCall


class MTP(nn.Module):
    """Multi-token prediction of depth one (2404.19737, in the form of 2412.19437, section 2.2).

    Slot t joins its hidden state with the embedding of token t + 1, each normed, projects the pair to one state, and
    runs one block over those: its normed output predicts token t + 2 through the model's own head. The block is of the
    last layer's kind and has K/V of its own.
    """

    def __init__(self, config: "ModelConfig", block: "Block") -> None:
        super().__init__()
        self.hidden_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.embedding_norm = make_norm(config.norm, config.width, config.norm_eps)
        self.projection = Linear(2 * config.width, config.width)
        self.block = block
        self.norm = make_norm(config.norm, config.width, config.norm_eps)

    def forward(self, hidden: Tensor, embedded: Tensor, context: Context, block: "BlockCall") -> Tensor:
        """hidden [B, T, d] of the model and the embeddings [B, T, d] of the tokens behind, to [B, T, d] for the head.

        `block` is `self.block`, or a compiled or checkpointed version of it.
        """
        pair = torch.cat([self.hidden_norm(hidden), self.embedding_norm(embedded)], dim=-1)
        x, _ = block(self.projection(pair), context, None)
        return self.norm(x)

    def initialise(self, std: float, out_std: float, generator: torch.Generator) -> None:
        """Draws all weights: `std` inside, `out_std` for projections back to the residual stream."""
        self.projection.initialise(std, generator)
        self.block.mixer.initialise(std, out_std, generator)
        self.block.mlp.initialise(std, out_std, generator)


class Horizon(nn.Module):
    """Horizon-length prediction (2410.03103, section 3): the share of the middle that is still to come, in 0 to 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output = Linear(width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., d] to shares [...] fp32."""
        return torch.sigmoid(self.output(hidden).float()).squeeze(-1)

    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draws the weight."""
        self.output.initialise(std, generator)
