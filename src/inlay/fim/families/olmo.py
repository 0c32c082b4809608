"""OLMo 3."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class OlmoFamily(Family):
    """Midtraining with PSM and SPM, half each, on half of the code documents, document level. Which SPM it is, is
    (unverified).

    Sources: 2512.13961; the special tokens on the card of its tokenizer (allenai/dolma2-tokenizer).
    """

    kind: Literal["olmo"] = "olmo"
    prefix: str = "<|fim_prefix|>"
    middle: str | None = "<|fim_middle|>"
    suffix: str = "<|fim_suffix|>"
    pad: str = "<|pad|>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<|im_end|>",)
    orders: tuple[Order, ...] = ("psm", "spm")
