"""Whether torch.compile can work here: on a CPU it needs a C++ compiler with OpenMP, which not every machine has."""

import functools
import shutil

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


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return bool(has_triton())
