"""Whether torch.compile can work here: on a CPU it needs a C++ compiler with OpenMP, which not every machine has."""

import functools
import shutil
from contextlib import AbstractContextManager

import torch


@functools.cache
def why_not_compiled(device: torch.device) -> str | None:
    """The reason why torch.compile cannot be used, in a few words; None when it can."""
    if device.type == "cuda":
        return None if _has_triton() else "triton is not installed"
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        compiler = get_cpp_compiler()
    except Exception as error:  # the probe raises types of its own, and has changed them between releases
        return f"no C++ compiler ({str(error).splitlines()[0][:80]})"
    return None if shutil.which(compiler) else f"no C++ compiler ('{compiler}' is not on the path)"


def why_slow() -> str | None:
    """What this machine lacks to train as fast as it could, in a line; None when nothing."""
    reason = None if torch.cuda.is_available() else why_not_compiled(torch.device("cpu"))
    # Training says the details again; here a line must fit.
    return None if reason is None else f"{reason.partition(' (')[0]}: it works, about a third slower"


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())


VARIANTS = 64
"""Graphs of one function: kinds of layers, times row lengths of stages. torch's own 8 is soon used up, and what is
beyond it would run eagerly without a word."""


def settings() -> AbstractContextManager[object]:
    """Options of torch.compile that training steps run under.

    DDP's own splitting of graphs is off: blocks are compiled one by one, so gradients travel while earlier blocks are
    still in their backward pass, and it cannot split what FlexAttention is in.
    """
    return torch._dynamo.config.patch(recompile_limit=VARIANTS, optimize_ddp=False)
