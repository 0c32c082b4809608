"""What a training step costs in floating-point operations, and what a device could do in that time.

MFU (2204.02311, appendix B) is the first over the second: operations that the model's mathematics asks for, three times
the forward pass, recomputed activations not counted. Matrices are counted from the built model (the head yes, the
embedding table no, for looking up is no product) and scores over the keys that the rows at hand make visible.
"""

import time

import numpy as np
import torch
from torch import nn

from inlay.model.config import ModelConfig
from inlay.model.mixer import MixerConfig
from inlay.model.transformer import Transformer

BACKWARD = 2.0
"""Operations of the backward pass, in forward passes: each product has two gradients."""

PEAKS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("gb200",), 2.5e15),
    (("b200",), 2.25e15),
    (("h200", "nvl"), 836e12),
    (("h200",), 989e12),
    (("gh200",), 989e12),
    (("h100", "nvl"), 835e12),
    (("h100", "pcie"), 756e12),
    (("h100",), 989e12),
    (("h800",), 989e12),
    (("h20",), 148e12),
    (("a100",), 312e12),
    (("a800",), 312e12),
    (("rtx 6000 ada",), 364e12),
    (("a6000",), 155e12),
    (("a40",), 150e12),
    (("a30",), 165e12),
    (("a10g",), 70e12),
    (("a10",), 125e12),
    (("l40s",), 362e12),
    (("l40",), 181e12),
    (("l4",), 121e12),
    (("rtx 5090",), 210e12),
    (("rtx 4090",), 165e12),
    (("rtx 3090",), 71e12),
    (("mi355",), 2.5e15),
    (("mi325",), 1.307e15),
    (("mi300x",), 1.307e15),
    (("mi250x",), 383e12),
)
"""Parts of a device's name, in lower case, and its dense bfloat16 operations a second with fp32 sums, as the data
sheets of NVIDIA and AMD give them (without sparsity; the MI250X as both its dies). The first entry of which all parts
stand in the name counts."""

MEASURED_ROUNDS = 5


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, bool]:
    """Operations a second that `device` can do at best, and whether that was measured here.

    A GPU of the table has its data sheet's number for bfloat16. For another device, or fp32, the best of a few matrix
    products in `dtype` stands for it: a ratio to that is no data sheet's MFU.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device).lower()
        for parts, peak in PEAKS:
            if all(part in name for part in parts):
                return peak, False
    return _measured(device, dtype), True


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    size = 512 if device.type == "cpu" else 8192
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(MEASURED_ROUNDS):
        started = time.perf_counter()
        product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


class TrainingFlops:
    """Operations of one training step on a model, counted once from its modules on the meta device."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        with torch.device("meta"):
            model = Transformer(config, vocab_size)
        self._document_masks = config.document_masks
        mixers = [(spec.block.mixer, block.mixer) for spec, block in zip(model.layout, model.layers, strict=True)]
        matrices: list[nn.Module] = list(model.layers)
        heads = 1
        if model.mtp is not None:  # one block and one pass over the head more, which training does ask for
            matrices.append(model.mtp)
            mixers.append((model.layout[-1].block.mixer, model.mtp.block.mixer))
            heads = 2
        if model.horizon is not None:
            matrices.append(model.horizon)
        self._matrices = sum(map(_matrix_flops, matrices)) + heads * 2.0 * model.head_weight.numel()
        self._scores = mixers

    def per_token(self, positions: np.ndarray) -> float:
        """Forward and backward operations per slot of rows with `positions` [B, T]."""
        seen: dict[int | None, float] = {}
        scores = 0.0
        for config, mixer in self._scores:
            if config.reach not in seen:
                seen[config.reach] = self._visible(positions, config)
            scores += mixer.score_flops(seen[config.reach])
        return (1.0 + BACKWARD) * (self._matrices + scores)

    def _visible(self, positions: np.ndarray, config: MixerConfig) -> float:
        """Keys that a query sees on average, itself included."""
        keys = (positions if self._document_masks else np.arange(positions.shape[1])) + 1
        return float((keys if config.reach is None else np.minimum(keys, config.reach)).mean())


def _matrix_flops(module: nn.Module) -> float:
    return 2.0 * sum(parameter.numel() for parameter in module.parameters() if parameter.ndim == 2)
