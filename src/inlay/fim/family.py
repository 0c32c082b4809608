"""Format families: the sentinel strings, orders and stop tokens a model was (or will be) trained with.

A family is one file in `inlay.fim.families`. It says strings; `FimFormat` resolves them against a tokenizer.
"""

from typing import Literal

from inlay.config import Config, Registry

Order = Literal["psm", "spm", "spm_v2"]
ORDERS: tuple[Order, ...] = ("psm", "spm", "spm_v2")

families = Registry("format family", "inlay.fim.families")


class Family(Config):
    """One family's strings. `prefix`, `middle`, `suffix` open the three parts; `terminator` ends the middle."""

    kind: str
    prefix: str
    middle: str
    suffix: str
    pad: str
    terminator: str
    stops: tuple[str, ...]
    """Tokens that end a completion beside the terminator and the sentinels."""
    orders: tuple[Order, ...] = ORDERS
    """The orders this family is rendered in; any other is refused."""
