"""Whether a run can fit into this machine at all, before anything of it is allocated.

It counts what no run can do without, so that it never refuses one that works: weights, gradients and the optimizer's
state in fp32, and of the activations one tensor of the model's width for each block (two where nothing is computed
again). A run that passes may still need more. Where the weights are sharded each process holds its part.

Legend: P parameters, M tokens of a micro-batch on one process, L layers, d channels.
"""

from pathlib import Path

import torch

from inlay.config import BadInput
from inlay.model import ModelConfig
from inlay.model.transformer import Transformer
from inlay.train.config import TrainRun
from inlay.train.stage import StageConfig

MATRIX_BYTES = 4 + 4 + 4
"""Of a parameter: its weight, its gradient and a momentum, in fp32. What AdamW keeps beside that is not counted."""
_GIB = 1 << 30


def least_bytes(run: TrainRun, vocab_size: int, world: int = 1) -> int:
    """Bytes that each process of a run needs at the least. The model is only laid out, not drawn."""
    check_size(run.model)
    with torch.device("meta"):
        parameters = sum(one.numel() for one in Transformer(run.model, vocab_size).parameters())
    sharded = world if run.parallel.strategy == "fsdp" else 1
    train = run.train
    width = 2 if train.precision == "bfloat16" else 4
    held = 1 if train.activation_checkpointing else 2
    slots = max(
        max(1, (stage.rows or train.rows) // ((stage.accumulation or train.accumulation) * world))
        * (stage.sequence_length or train.sequence_length)
        for stage in run.stages or (StageConfig(name="all", share=1.0),)
    )
    activations = slots * run.model.width * run.model.layers * width * held
    return parameters * MATRIX_BYTES // sharded + activations


def machine_bytes(system: Path = Path("/")) -> int | None:
    """Memory that processes of this machine (or of its control group) may have; of the GPU, where there is one. None
    where nothing says it."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    found = []
    try:
        for line in (system / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("MemTotal:", "SwapTotal:")):
                found.append(1024 * int(line.split()[1]))
    except (OSError, ValueError, IndexError):
        return None
    total = sum(found)
    try:
        limit = (system / "sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total or None
    return min(total, int(limit)) if limit.isascii() and limit.isdecimal() else total or None


def check_memory(run: TrainRun, vocab_size: int, world: int = 1, here: int | None = None) -> None:
    """Raises BadInput for a run that no memory of this machine (`here` bytes; None asks it) can hold."""
    available = machine_bytes() if here is None else here
    needed = least_bytes(run, vocab_size, world)
    if available is not None and needed > available:
        train = run.train
        raise BadInput(
            f"the run needs at least {needed / _GIB:,.1f} GiB a process, and this machine has {available / _GIB:,.1f}:"
            f" take a smaller model (now {run.model.layers} layers of width {run.model.width}), fewer train.rows"
            f" (now {train.rows}) or a shorter train.sequence_length (now {train.sequence_length})"
        )


def check_size(model: ModelConfig) -> None:
    """Raises BadInput for a model that is too large to be laid out: laying it out would take minutes."""
    if model.layers * model.width > 1 << 28:
        raise BadInput(f"model.layers={model.layers} of model.width={model.width} is more than any machine holds")
