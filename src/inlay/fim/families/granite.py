"""IBM Granite Code."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class GraniteFamily(Family):
    """StarCoder's tokenizer and strings; PSM and SPM, rate 0.5 (unverified, as is that its SPM is version 2).

    Source: 2405.04324 section 3. Its form for several files is not published.
    """

    kind: Literal["granite"] = "granite"
    prefix: str = "<fim_prefix>"
    middle: str | None = "<fim_middle>"
    suffix: str = "<fim_suffix>"
    pad: str = "<fim_pad>"
    terminator: str = "<|endoftext|>"
    orders: tuple[Order, ...] = ("psm", "spm_v2")
