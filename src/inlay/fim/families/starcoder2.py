"""StarCoder2."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class StarCoder2Family(Family):
    """FIM inside each file of a repository, `<file_sep>` between files; the path of a filled file stands inside its
    prefix. Ids: `<|endoftext|>` 0, `<fim_prefix>` 1, `<fim_middle>` 2, `<fim_suffix>` 3, `<fim_pad>` 4, `<repo_name>`
    5, `<file_sep>` 6.

    Sources: 2402.19173 section 5.1 (form); bigcode-project/starcoder2#10 (`<file_sep>` also stops); ids from
    llama.cpp's ggml-vocab-starcoder.gguf, which is this vocabulary. The orders are StarCoder's (unverified).
    StarCoder2-3B scores 9.9 EM on CrossCodeEval: expect little of this form.
    """

    kind: Literal["starcoder2"] = "starcoder2"
    prefix: str = "<fim_prefix>"
    middle: str | None = "<fim_middle>"
    suffix: str = "<fim_suffix>"
    pad: str = "<fim_pad>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<repo_name>", "<file_sep>")
    orders: tuple[Order, ...] = ("psm", "spm_v2")
    repository: RepositoryForm | None = RepositoryForm(repo="<repo_name>", file="<file_sep>", place="path_in_prefix")
