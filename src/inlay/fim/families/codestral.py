"""Codestral 22B."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class CodestralFamily(Family):
    """`<s>[SUFFIX]s[PREFIX]p`, after which the middle follows at once. Ids: `<unk>` 0, `<s>` 1, `</s>` 2, `[PREFIX]`
    11, `[SUFFIX]` 13. The prefix keeps SentencePiece's leading space, suffix and middle do not.

    The vocabulary has `[MIDDLE]` (12), which prompts do not use. Other files stand inside the prefix, each under a line
    `+++++ path` and with an empty line after it.

    Sources: mistral-common 1.13, encode_fim and its v3 vocabulary; continuedev/continue, AutocompleteTemplate.ts
    (files). `<unk>`, which text never gives, fills rows.
    """

    kind: Literal["codestral"] = "codestral"
    prefix: str = "[PREFIX]"
    middle: str | None = None
    suffix: str = "[SUFFIX]"
    pad: str = "<unk>"
    terminator: str = "</s>"
    bos: str | None = "<s>"
    orders: tuple[Order, ...] = ("spm_open",)
    spacing: Literal["none", "dummy"] = "dummy"
    repository: RepositoryForm | None = RepositoryForm(before_path="+++++ ", after_file="\n\n", place="in_prefix")
