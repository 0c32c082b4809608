"""A tokenizer as llama.cpp's own encoder needs it: its token strings and types, merges, pre-tokenizer and control ids.

It decides which pre-tokenizer of llama.cpp splits text as ours does, by the regular expression; the tests compare ids
from llama.cpp itself. It refuses a tokenizer whose split llama.cpp does not know, because it would silently encode
other ids than the model was trained on, and SentencePiece-style ones.
"""

import json
from typing import Any, NamedTuple

from inlay.config import BadInput
from inlay.fim.format import FimFormat
from inlay.text.pretokens import CL100K_PATTERN, GPT2_PATTERN, QWEN_PATTERN
from inlay.text.tokenizer import Tokenizer

DIGITS_THEN_GPT2 = json.dumps(
    [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
    sort_keys=True,
)
"""StarCoder's steps, as `Tokenizer.pattern` names them."""

PRE_TOKENIZERS = {
    QWEN_PATTERN: "qwen2",
    GPT2_PATTERN: "gpt-2",
    CL100K_PATTERN: "llama-bpe",
    DIGITS_THEN_GPT2: "starcoder",
}
"""llama.cpp's name (`tokenizer.ggml.pre`) by the pattern that splits the same way: for `qwen2` every code point but the
3,517 that entered Unicode after llama.cpp's tables (xllamacpp 2026.10), and but for a contraction with the long s. Left
out is o200k, whose capitals llama.cpp finds among ASCII alone: 2,276 of 20,480 code points come out otherwise."""

NORMAL, CONTROL, UNUSED = 1, 3, 5
"""llama.cpp's token types."""


class Vocabulary(NamedTuple):
    """What a GGUF file says about its tokenizer."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]
    """Control ids by their key without `tokenizer.ggml.`."""
    add_bos: bool


def vocabulary(tokenizer: Tokenizer, fim_format: FimFormat) -> Vocabulary:
    """The vocabulary, one entry an id; an id without a token gets a placeholder.

    Raises BadInput for a tokenizer that llama.cpp would not encode alike.
    """
    if tokenizer.style != "byte-level":
        raise BadInput(
            "GGUF export writes byte-level BPE, and this tokenizer is SentencePiece-style: export --to hf and convert"
            " that folder with llama.cpp's convert_hf_to_gguf.py"
        )
    model: dict[str, Any] = json.loads(tokenizer.definition)["model"]
    names = {number: name for name, number in model["vocab"].items()}
    names |= {number: name for name, number in tokenizer.special.items()}
    control = set(tokenizer.special.values())
    tokens = [names.get(number, f"[PAD{number}]") for number in range(tokenizer.vocab_size)]
    types = [CONTROL if i in control else NORMAL if i in names else UNUSED for i in range(tokenizer.vocab_size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not merges:
        raise BadInput("llama.cpp loads no tokenizer without merges: train one with a larger tokenizer.vocab_size")
    return Vocabulary(pre_tokenizer(tokenizer), tokens, types, merges, _control_ids(fim_format), bool(fim_format.bos))


def pre_tokenizer(tokenizer: Tokenizer) -> str:
    """llama.cpp's name for this tokenizer's split. Raises BadInput where it has none that is equal."""
    name = PRE_TOKENIZERS.get(tokenizer.pattern)
    if name is None:
        raise BadInput(
            "llama.cpp has no pre-tokenizer that splits text as this tokenizer does, and another one would encode other"
            f" ids than the model knows (its pattern: {tokenizer.pattern[:120]}...)"
        )
    return name


def _control_ids(fim_format: FimFormat) -> dict[str, int]:
    found = {
        # Without these llama.cpp assumes GPT-2's id 11.
        "bos_token_id": fim_format.eot if fim_format.bos is None else fim_format.bos,
        "eos_token_id": fim_format.eot,
        "eot_token_id": fim_format.eot,
        "padding_token_id": fim_format.pad,
        "fim_pre_token_id": fim_format.prefix,
        "fim_suf_token_id": fim_format.suffix,
        "fim_mid_token_id": fim_format.middle,
        "fim_pad_token_id": fim_format.pad,
        "fim_rep_token_id": fim_format.repo,
        "fim_sep_token_id": fim_format.file,
    }
    return {key: number for key, number in found.items() if number is not None}
