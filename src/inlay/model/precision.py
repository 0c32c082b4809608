"""Which number formats a machine computes fast: on a CPU without bf16 units a step in bf16 takes ten times as long."""

import functools
import os
from pathlib import Path
from typing import Literal

import torch

from inlay.config import BadInput

VARIABLE = "INLAY_BFLOAT16_UNITS"
Precision = Literal["auto", "bfloat16", "float32"]


@functools.cache
def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bf16 natively. Elsewhere than on Linux nothing says so, and fp32 is kept.

    `INLAY_BFLOAT16_UNITS` (0 or 1) overrules what the system says: where that is wrong, and for comparing the two.
    """
    told = os.environ.get(VARIABLE, "")
    if told:
        if told not in ("0", "1"):
            raise BadInput(f"the environment variable {VARIABLE} is '{told[:40]}': give 1, 0, or leave it out")
        return told == "1"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16 "))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bf16 products are the fast ones on `device`: on every accelerator, and on a CPU with units for them."""
    return device.type != "cpu" or has_bfloat16_units()
