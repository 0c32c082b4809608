"""DeepSeek-Coder, and V2-Lite, which has the same strings."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class DeepSeekCoderFamily(Family):
    """PSM with `hole` in the suffix's place and `end` in the middle's; bars are U+FF5C, blanks U+2581. Rate 0.5,
    document level. Ids: begin of sentence 32013, end 32014, hole 32015, begin 32016, end 32017, `<pad>` 32018,
    `<|EOT|>` 32021.

    Its tokenizer pads with the terminator, which then is never learned (deepseek-ai/DeepSeek-Coder#163); here `<pad>`
    fills rows. V2-Lite numbers differ and V2 236B has no infilling (deepseek-ai/DeepSeek-Coder-V2#18).

    Sources: 2401.14196 section 3.1; ids from llama.cpp's ggml-vocab-deepseek-coder.gguf. In pretraining files of a
    repository stand one after another with their path in a comment; with infilling that is not documented.
    """

    kind: Literal["deepseek-coder"] = "deepseek-coder"
    prefix: str = "<｜fim▁begin｜>"
    middle: str | None = "<｜fim▁end｜>"
    suffix: str = "<｜fim▁hole｜>"
    pad: str = "<pad>"
    terminator: str = "<｜end▁of▁sentence｜>"
    bos: str | None = "<｜begin▁of▁sentence｜>"
    stops: tuple[str, ...] = ("<|EOT|>",)
    orders: tuple[Order, ...] = ("psm",)
