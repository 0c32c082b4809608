"""Qwen2.5-Coder."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class Qwen25CoderFamily(Family):
    """Trained in PSM; the rate is unpublished. Ids: `<|endoftext|>` 151643, `<|im_end|>` 151645, `<|fim_prefix|>`
    151659, `_middle` 151660, `_suffix` 151661, `_pad` 151662, `<|repo_name|>` 151663, `<|file_sep|>` 151664.

    Source: QwenLM/Qwen2.5-Coder, examples/Qwen2.5-Coder-repolevel-fim.py, whose list of stop ids and whose repository
    form these are. Its tokenizer adds the FIM tokens without the special flag, so that flag is not asked for.
    """

    kind: Literal["qwen2.5-coder"] = "qwen2.5-coder"
    prefix: str = "<|fim_prefix|>"
    middle: str | None = "<|fim_middle|>"
    suffix: str = "<|fim_suffix|>"
    pad: str = "<|fim_pad|>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<|repo_name|>", "<|file_sep|>", "<|im_end|>")
    orders: tuple[Order, ...] = ("psm",)
    repository: RepositoryForm | None = RepositoryForm(repo="<|repo_name|>", after_repo="\n", file="<|file_sep|>")
