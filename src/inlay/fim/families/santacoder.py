"""SantaCoder."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class SantaCoderFamily(Family):
    """StarCoder's predecessor, with hyphens: PSM and SPM version 2, rate 0.5, context level, cut in characters.

    Sources: 2301.03988; the special tokens of its model card (bigcode/santacoder, special_tokens_map.json).
    """

    kind: Literal["santacoder"] = "santacoder"
    prefix: str = "<fim-prefix>"
    middle: str | None = "<fim-middle>"
    suffix: str = "<fim-suffix>"
    pad: str = "<fim-pad>"
    terminator: str = "<|endoftext|>"
    orders: tuple[Order, ...] = ("psm", "spm_v2")
