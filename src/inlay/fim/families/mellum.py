"""JetBrains Mellum 4B."""

from typing import Literal

from inlay.fim.family import Family, Order, RepositoryForm, families


@families.register
class MellumFamily(Family):
    """SPM version 1, on half of the files; other files stand before the block, each under `<filename>` and its path.

    Sources: 2510.05788 (order, half of the files, middles of up to 700 characters); its model card (strings, files;
    unverified). The padding token is StarCoder's (unverified).
    """

    kind: Literal["mellum"] = "mellum"
    prefix: str = "<fim_prefix>"
    middle: str | None = "<fim_middle>"
    suffix: str = "<fim_suffix>"
    pad: str = "<fim_pad>"
    terminator: str = "<|endoftext|>"
    stops: tuple[str, ...] = ("<filename>",)
    orders: tuple[Order, ...] = ("spm",)
    repository: RepositoryForm | None = RepositoryForm(file="<filename>")
