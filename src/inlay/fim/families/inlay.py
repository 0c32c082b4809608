"""Our own models: Qwen2.5-Coder's strings, because every editor's template already sends them."""

from typing import Literal

from inlay.fim.family import Family, families


@families.register
class InlayFamily(Family):
    """Qwen2.5-Coder's sentinels in PSM, SPM version 1 and SPM version 2; `<|endoftext|>` ends the middle."""

    kind: Literal["inlay"] = "inlay"
    prefix: str = "<|fim_prefix|>"
    middle: str = "<|fim_middle|>"
    suffix: str = "<|fim_suffix|>"
    pad: str = "<|fim_pad|>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<|repo_name|>", "<|file_sep|>", "<|im_end|>")
