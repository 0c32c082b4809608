"""Our own models: Qwen2.5-Coder's strings, because every editor's template already sends them."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class InlayFamily(Family):
    """Qwen2.5-Coder's sentinels in every order with a middle sentinel; `<|endoftext|>` ends the middle.

    SPM version 1 comes first: llama.cpp's `--spm-infill` sends that string, and it recomputes least per keystroke.
    """

    kind: Literal["inlay"] = "inlay"
    prefix: str = "<|fim_prefix|>"
    middle: str | None = "<|fim_middle|>"
    suffix: str = "<|fim_suffix|>"
    pad: str = "<|fim_pad|>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<|repo_name|>", "<|file_sep|>", "<|im_end|>")
    orders: tuple[Order, ...] = ("spm", "psm", "spm_v2", "spm_joint")
    hint_start: str | None = "<|fim_line_start|>"
    hint_end: str | None = "<|fim_line_end|>"
    repository: RepositoryForm | None = RepositoryForm(repo="<|repo_name|>", after_repo="\n", file="<|file_sep|>")
