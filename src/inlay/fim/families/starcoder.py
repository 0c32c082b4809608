"""StarCoder."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class StarCoderFamily(Family):
    """PSM and SPM version 2, half each, rate 0.5, cut in characters. Ids: `<|endoftext|>` 0, `<fim_prefix>` 1,
    `<fim_middle>` 2, `<fim_suffix>` 3, `<fim_pad>` 4.

    Sources: 2305.06161; bigcode-project/starcoder#138; ids from llama.cpp's ggml-vocab-refact.gguf, which has this
    vocabulary. `<reponame>` and `<filename>` describe one file each; a form for several files is not documented.
    """

    kind: Literal["starcoder"] = "starcoder"
    prefix: str = "<fim_prefix>"
    middle: str | None = "<fim_middle>"
    suffix: str = "<fim_suffix>"
    pad: str = "<fim_pad>"
    terminator: str = "<|endoftext|>"
    orders: tuple[Order, ...] = ("psm", "spm_v2")
