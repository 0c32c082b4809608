"""Reads a `tokenizer.json`: what kind of BPE it is, the bytes of each token, and an encoder without its surroundings.

It decides that text is lossless: a normaliser that changes text is refused, and NFC (Qwen2) is left out, because code
must come back byte for byte and source files are NFC almost always. Two kinds are taken:

    byte-level       GPT-2's: every byte has a printable stand-in, a regular expression splits text first.
    sentencepiece    Llama's, Mistral's, Gemma's: a space is U+2581 inside the vocabulary, a character without a token
                     becomes its bytes (`byte_fallback`), and the dummy space that SentencePiece puts before every text
                     is left out. Fragments of a document must not gain a space; where a format wants that space
                     (CodeLlama, Codestral), the format family says so.

Legend: an added token stands beside the model (`added_tokens`). Most of them are control tokens and never come from
text. Gemma also keeps runs of blanks and HTML tags there; those are text tokens, matched in text as the reference does.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import tokenizers

from inlay.config import BadInput
from inlay.config.files import parse_json
from inlay.text.pretokens import GPT2_PATTERN

Style = Literal["byte-level", "sentencepiece"]

SPACE = "\u2581"
"""SentencePiece's stand-in for a space."""
SENTENCEPIECE = "sentencepiece"
"""What `pattern` says of a tokenizer that merges over the whole text."""

_TEXT_TOKEN = re.compile(rf"[{SPACE}\s]+|</?[a-z]+[0-9]?>")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# The bytes that no UTF-8 text has (DeepSeek's vocabulary lacks them), and those that begin private-use characters and
# planes without any (StarCoder's lacks one): text with them is refused when it is met.
_RARE = frozenset({0xC0, 0xC1, *range(0xF1, 0x100)})


@dataclass(frozen=True)
class Definition:
    """A parsed `tokenizer.json`."""

    style: Style
    special: dict[str, int]
    """Added tokens that never come from text, by their strings."""
    tokens: dict[int, bytes]
    """The bytes of every other token."""
    pattern: str
    """The pre-tokenizer's regular expression, or a text that names its steps when it is not one expression."""
    encoder: Any
    """The same tokenizer in `tokenizers`, without normaliser, template, dummy space and control tokens."""
    byte_tokens: tuple[int, ...]
    """Ids of the 256 byte tokens of a SentencePiece vocabulary; empty for byte-level BPE."""
    merges: tuple[tuple[str, str], ...]
    missing: bytes
    """Rare bytes that no token has; text with one of them cannot be encoded."""


def read_definition(text: str) -> Definition:
    """Parses the text of a `tokenizer.json`. Raises BadInput when it is no lossless BPE of a known kind."""
    parsed = _parse(text)
    model = parsed["model"]
    style: Style = "sentencepiece" if model.get("byte_fallback") else "byte-level"
    added = parsed.get("added_tokens") or []
    plain = [token for token in added if style == "sentencepiece" and _is_text(token)]
    special = {token["content"]: token["id"] for token in added if token not in plain}
    if style == "byte-level":
        _check_normaliser(parsed.get("normalizer"))
        pattern, tokens, byte_tokens = _pattern_of(parsed), _byte_level_tokens(parsed, special), ()
        encoder = _encoder(parsed, special, parsed.get("pre_tokenizer"), None, [])
    else:
        _check_sentencepiece(parsed)
        pattern, (tokens, byte_tokens) = SENTENCEPIECE, _sentencepiece_tokens(parsed, special, plain)
        # Spaces become U+2581 before the model sees them; nothing is put before the text.
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        step = _splitting_metaspace(parsed.get("pre_tokenizer"))
        if step is not None:
            pattern += " by words"
        encoder = _encoder(parsed, special, step, spaces, plain)
    single = {token[0] for token in tokens.values() if len(token) == 1} if not byte_tokens else set()
    having = single | {value for value, number in enumerate(byte_tokens) if number >= 0}
    missing = sorted(set(range(256)) - having)
    if not set(missing) <= _RARE:
        raise BadInput(f"the vocabulary lacks the byte 0x{missing[0]:02X}, so text with it would be lost")
    return Definition(style, special, tokens, pattern, encoder, byte_tokens, tuple(merges_of(model)), bytes(missing))


def token_name(value: Any) -> str | None:
    """The string of a token in a `tokenizer_config.json`, where it is a string or an object."""
    return value.get("content") if isinstance(value, dict) else value


def merges_of(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Merges as pairs; older files write them as one string with a space."""
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(left, right) for left, right in pairs]


def _parse(definition: str) -> dict[str, Any]:
    try:
        parsed = parse_json(definition)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}") from None
    except RecursionError:
        raise BadInput("it is nested too deep") from None
    model = parsed.get("model") if isinstance(parsed, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise BadInput("the model is not BPE; give a byte-level or SentencePiece-style BPE tokenizer")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("dropout"):
        raise BadInput("the model is not plain BPE (word affixes or dropout)")
    added = parsed.get("added_tokens") or []
    if not isinstance(added, list) or not all(_is_token(token) for token in added):
        raise BadInput("added_tokens is no list of tokens, each with a text as content and a number as id")
    return parsed


def _is_token(token: Any) -> bool:
    return isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int


def _leaves(step: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, sequences opened."""
    if step is None:
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [leaf for part in step.get(parts, []) for leaf in _leaves(part, parts)]


def _check_normaliser(normaliser: dict[str, Any] | None) -> None:
    for step in _leaves(normaliser, "normalizers"):
        if step.get("type") != "NFC":
            raise BadInput(f"its normaliser '{step.get('type')}' changes text; give a tokenizer without one")


def _check_sentencepiece(parsed: dict[str, Any]) -> None:
    for step in _leaves(parsed.get("normalizer"), "normalizers"):
        dummy = step.get("type") == "Prepend" and step.get("prepend") == SPACE
        spaces = step.get("type") == "Replace" and step.get("pattern") == {"String": " "}
        if not (dummy or (spaces and step.get("content") == SPACE)):
            raise BadInput(f"its normaliser '{step.get('type')}' changes text; give a tokenizer without one")
    for step in _leaves(parsed.get("pre_tokenizer"), "pretokenizers"):
        # Gemma splits at spaces, of which its normaliser has left none.
        idle = step.get("type") == "Split" and step.get("pattern") == {"String": " "}
        if not idle and (step.get("type") != "Metaspace" or step.get("replacement", SPACE) != SPACE):
            raise BadInput(f"its pre-tokenizer '{step.get('type')}' is not SentencePiece's; byte fallback needs that")


def _splitting_metaspace(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    for step in _leaves(pre_tokenizer, "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("split", True):
            return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}
    return None


def _is_text(token: dict[str, Any]) -> bool:
    return not token.get("special") and _TEXT_TOKEN.fullmatch(token["content"]) is not None


def _pattern_of(parsed: dict[str, Any]) -> str:
    """The one regular expression that splits text, or a text that names the steps when there is more than one split."""
    steps = _leaves(parsed.get("pre_tokenizer"), "pretokenizers")
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise BadInput("the pre-tokenizer does not end in a byte-level step without an added space")
    if len(steps) == 1 and steps[0].get("use_regex", True):
        return GPT2_PATTERN
    split = steps[0]
    whole = split.get("behavior") == "Isolated" and not split.get("invert") and not steps[-1].get("use_regex", True)
    if len(steps) == 2 and split.get("type") == "Split" and whole and "Regex" in split.get("pattern", {}):
        return split["pattern"]["Regex"]
    return json.dumps(steps, sort_keys=True)


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in characters, each with its byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + index): value for index, value in enumerate(others)}


def _byte_level_tokens(parsed: dict[str, Any], special: dict[str, int]) -> dict[int, bytes]:
    characters = _byte_characters()
    try:
        tokens = {
            token_id: bytes([characters[character] for character in token])
            for token, token_id in parsed["model"]["vocab"].items()
            if token not in special
        }
    except KeyError as error:
        raise BadInput(f"the vocabulary is not byte-level (character {error.args[0]!r})") from None
    return tokens


def _sentencepiece_tokens(
    parsed: dict[str, Any], special: dict[str, int], plain: list[dict[str, Any]]
) -> tuple[dict[int, bytes], tuple[int, ...]]:
    vocab = dict(parsed["model"]["vocab"])
    tokens = {number: name.replace(SPACE, " ").encode() for name, number in vocab.items() if name not in special}
    # An added text token is matched as it stands, so U+2581 in its name is that character.
    tokens.update({token["id"]: token["content"].replace(SPACE, " ").encode() for token in plain})
    found = {}
    for name, number in vocab.items():
        match = _BYTE_TOKEN.fullmatch(name)
        if match:
            found[int(match[1], 16)] = number
    tokens.update({number: bytes([value]) for value, number in found.items()})
    return tokens, tuple(found.get(value, -1) for value in range(256))


def _encoder(
    parsed: dict[str, Any],
    special: dict[str, int],
    pre_tokenizer: dict[str, Any] | None,
    normaliser: dict[str, Any] | None,
    plain: list[dict[str, Any]],
) -> Any:
    model = dict(parsed["model"])
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in special}
    if model.get("unk_token") not in model["vocab"]:
        model["unk_token"] = None
    definition = {
        "version": "1.0",
        # Stripping and whole-word rules would eat the text around a token.
        "added_tokens": [{**token, "lstrip": False, "rstrip": False, "single_word": False} for token in plain],
        "normalizer": normaliser,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": parsed.get("decoder"),
        "model": model,
    }
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:
        raise BadInput(f"damaged tokenizer definition: {error}") from None
