"""Code Llama, 7B and 13B (the others were trained without infilling)."""

from typing import Literal

from inlay.fim.family import Family, Order, families


@families.register
class CodeLlamaFamily(Family):
    """Rate 0.9, half PSM and half SPM with prefix and middle encoded as one text, so that no sub-token is split there.

    `<EOT>` ends a middle, `</s>` a document. Ids: `<s>` 1, `</s>` 2, `▁<PRE>` 32007, `▁<SUF>` 32008, `▁<MID>` 32009,
    `▁<EOT>` 32010. The prefix keeps SentencePiece's leading space, suffix and middle do not. SentencePiece has no
    padding token here; `<unk>` (0), which text never gives, fills rows.

    Sources: 2308.12950 section 2.3; facebookresearch/codellama, llama/generation.py and llama/tokenizer.py.
    """

    kind: Literal["codellama"] = "codellama"
    prefix: str = "▁<PRE>"
    middle: str | None = "▁<MID>"
    suffix: str = "▁<SUF>"
    pad: str = "<unk>"
    terminator: str = "▁<EOT>"
    end: str | None = "</s>"
    bos: str | None = "<s>"
    orders: tuple[Order, ...] = ("psm", "spm_joint")
    spacing: Literal["none", "dummy"] = "dummy"
