"""Seed-Coder 8B."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class SeedCoderFamily(Family):
    """SPM version 1, cut in characters; rate 0.5, then 0.1 (unverified).

    Sources: 2506.03524; its model card (order); ByteDance-Seed/Seed-Coder#3 (it needs stop words);
    continuedev/continue, AutocompleteTemplate.ts (the other special tokens). The padding token is (unverified).
    """

    kind: Literal["seed-coder"] = "seed-coder"
    prefix: str = "<[fim-prefix]>"
    middle: str | None = "<[fim-middle]>"
    suffix: str = "<[fim-suffix]>"
    pad: str = "<[PAD▁TOKEN]>"
    terminator: str = "<[end▁of▁sentence]>"
    stops: tuple[str, ...] = ("<[begin▁of▁sentence]>", "<[SEP▁TOKEN]>")
    orders: tuple[Order, ...] = ("spm",)
