"""CodeGemma, 2B and 7B pretrained."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class CodeGemmaFamily(Family):
    """PSM and SPM; the model's own output ends in `<|file_separator|>`, which so is the terminator of a middle and the
    sentinel between files, while `<eos>` ends a document.

    Sources: 2406.11409 (both orders, multi-file packing); Google's page on CodeGemma's prompt structure (strings, no
    blanks around them, an answer that ends in the separator). Which SPM it is, the rate of 0.8-0.9 and the path on a
    line before the block are (unverified).
    """

    kind: Literal["codegemma"] = "codegemma"
    prefix: str = "<|fim_prefix|>"
    middle: str | None = "<|fim_middle|>"
    suffix: str = "<|fim_suffix|>"
    pad: str = "<pad>"
    terminator: str = "<|file_separator|>"
    end: str | None = "<eos>"
    bos: str | None = "<bos>"
    orders: tuple[Order, ...] = ("psm", "spm")
    repository: RepositoryForm | None = RepositoryForm(file="<|file_separator|>", first_file=False)
