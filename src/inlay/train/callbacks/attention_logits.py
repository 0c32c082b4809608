"""The largest attention score of each layer and the largest logit of the head, on one fixed held-out row.

Scores that grow without end are how a run without QK-norm, or with too high a rate, announces that it will diverge
(2309.14322, section 3.1). A separate eager forward pass of one row, without gradients: the compiled training path is
not touched, and it works alike where a fused kernel would not show its scores.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from inlay.model import Transformer
from inlay.model.attend import Recorded
from inlay.model.masks import Mask, strips
from inlay.train.callback import Callback, CallbackConfig, callbacks

if TYPE_CHECKING:
    from inlay.train.trainer import Trainer

AT_ONCE = 512
"""Positions whose logits are held at a time."""


@callbacks.register
class AttentionLogitsConfig(CallbackConfig):
    """Logs `attention_logits/LAYER` and `/max` (q k' scale of visible pairs, before a softcap and the softmax),
    `head_logits/max` (before the head's softcap) and `head_logits/log_normaliser` (its mean: what `train.z_loss` holds
    near 0). Costs a forward pass of one row."""

    kind: Literal["attention_logits"] = "attention_logits"
    every_steps: int = Field(250, ge=1, le=10**12)
    """The last step counts too."""

    def build(self) -> "AttentionLogits":
        return AttentionLogits(self)


class AttentionLogits(Callback):
    """The callback of AttentionLogitsConfig."""

    def __init__(self, config: AttentionLogitsConfig) -> None:
        self._every = config.every_steps
        self._row: tuple[Tensor, Tensor] | None = None

    def start(self, trainer: "Trainer") -> None:
        row = trainer.held_out_row
        self._row = torch.from_numpy(row.tokens)[None].long(), torch.from_numpy(row.positions)[None].long()

    def step(self, trainer: "Trainer") -> None:
        if self._row is None or (trainer.step % self._every and trainer.step != trainer.total_steps):
            return
        tokens, positions = (tensor.to(trainer.device) for tensor in self._row)
        with trainer.whole_model() as model:
            values = largest_logits(model, tokens, positions)
        trainer.log(values)


@torch.no_grad()
def largest_logits(model: Transformer, tokens: Tensor, positions: Tensor) -> dict[str, float]:
    """What AttentionLogitsConfig says, for packed rows: tokens, positions [B, T]."""
    context = model.context(positions)
    maxima: list[Tensor] = []
    masks: dict[int | None, Mask] = {
        reach: Recorded(strips(context.positions, reach, model.compute_dtype).parts, maxima) for reach in context.masks
    }
    hidden = model(tokens, positions, None, replace(context, masks=masks)).flatten(0, 1)
    layers = [spec.index for spec in model.layout if spec.block.mixer.masked]
    values = {f"attention_logits/{layer}": float(found) for layer, found in zip(layers, maxima, strict=True)}
    if values:
        values["attention_logits/max"] = max(values.values())
    head = model.head_weight.to(hidden.dtype)
    largest, normaliser = [], []
    for part in hidden.split(AT_ONCE):
        logits = (part @ head.t()).float()
        largest.append(logits.amax())
        cap = model.config.head_softcap
        normaliser.append(torch.logsumexp(logits if cap is None else cap * torch.tanh(logits / cap), dim=-1))
    values["head_logits/max"] = float(torch.stack(largest).amax())
    values["head_logits/log_normaliser"] = float(torch.cat(normaliser).mean())
    return values
