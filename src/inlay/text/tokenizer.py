"""The tokenizer: byte-level BPE, trained and stored by `tokenizers`, encoded by tiktoken from the same ranks.

It decides that text is lossless (no normaliser), that special tokens stand at the end of the vocabulary, and that user
text never becomes a special token: `<|fim_prefix|>` in a source file is a string like any other. It refuses tokenizers
that are not byte-level BPE.

Both encoders give the same ids when every token is what BPE makes of that token's own bytes: then a pair of neighbours
that spells a token is always the pair that its merge names, and merging by rank of the result (tiktoken) is merging by
order of merges (`tokenizers`). That condition and the pattern are checked when a tokenizer is made; one that does not
pass is encoded by `tokenizers` itself (`backend` says which), slower and exact.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import tokenizers
import xxhash
from tokenizers import decoders, models, pre_tokenizers, trainers

from inlay.config import BadInput, InlayError, Registry
from inlay.text.pretokens import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    O200K_PATTERN,
    QWEN_PATTERN,
    pretoken_starts,
)

tokenizer_kinds = Registry("tokenizer", "inlay.text.tokenizers")

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
"""Qwen2.5-Coder's strings, in its order: every editor template already sends them."""

# Patterns on which both regex engines are known to agree; tests compare them over texts of every character class.
_SHARED_PATTERNS = frozenset({QWEN_PATTERN, GPT2_PATTERN, CL100K_PATTERN, O200K_PATTERN})
_END_OF_TEXT = "<|endoftext|>"
_PADDING = "<|fim_pad|>"


class Tokenizer:
    """A byte-level BPE vocabulary V with special tokens. Immutable, picklable, safe to use from several threads.

    Law: `decode_bytes(encode(s)) == s.encode()` for every string without lone surrogates.
    """

    def __init__(self, definition: str, end_of_text: str = _END_OF_TEXT, padding: str = _PADDING) -> None:
        """`definition` is the text of a `tokenizer.json`. Raises BadInput when it is no byte-level BPE or lacks a
        special token.
        """
        self._definition = definition
        self._names = (end_of_text, padding)
        parsed = _parse(definition)
        self.special: dict[str, int] = {token["content"]: token["id"] for token in parsed.get("added_tokens") or []}
        for name in self._names:
            if name not in self.special:
                raise BadInput(
                    f"tokenizer has no special token '{name}'; its special tokens: {', '.join(self.special) or 'none'}"
                )
        self.eot: int = self.special[end_of_text]
        self.pad: int = self.special[padding]
        self.pattern: str = _pattern_of(parsed)
        """The pre-tokenizer's regular expression, or a text that names its steps when it is not one expression."""
        self._ranks = _ranks_of(parsed, self.special)
        self._bytes: dict[int, bytes] = {token_id: token for token, token_id in self._ranks.items()}
        self._bytes.update({token_id: name.encode() for name, token_id in self.special.items()})
        self.vocab_size: int = max(self._bytes) + 1
        self.token_lengths: np.ndarray = np.zeros(self.vocab_size, np.int32)
        self.token_lengths[list(self._bytes)] = [len(token) for token in self._bytes.values()]
        self._reference = _reference_of(parsed)
        self.backend: str = "tiktoken" if self._is_provably_equal() else "tokenizers"
        self._fast = (
            tiktoken.Encoding("inlay", pat_str=self.pattern, mergeable_ranks=self._ranks, special_tokens={})
            if self.backend == "tiktoken"
            else None
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, min_frequency: int = 2) -> "Tokenizer":
        """Trains BPE on `texts` to exactly `vocab_size` ids, special tokens included, or fewer when the text has too
        few pairs.

        Raises BadInput when `vocab_size` does not hold the 256 bytes and the special tokens.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise BadInput(
                f"'tokenizer.vocab_size' = {vocab_size}: at least {smallest} "
                f"(256 bytes and {len(SPECIAL_TOKENS)} special tokens)"
            )
        tokenizer: Any = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(QWEN_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIAL_TOKENS),
            min_frequency=min_frequency,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens(
            [tokenizers.AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS]
        )
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a `tokenizer.json`, or a folder that holds one (and a `tokenizer_config.json` that names its end and
        padding tokens).

        Raises BadInput that names the file when it is missing, damaged, or not a byte-level BPE.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            definition = file.read_text(encoding="utf-8")
            beside = file.with_name("tokenizer_config.json")
            settings = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        except OSError as error:
            raise BadInput(f"cannot read tokenizer {file}: {error.strerror}") from None
        except ValueError as error:
            raise BadInput(f"damaged tokenizer at {file}: {error}") from None
        end_of_text = _token_name(settings.get("eos_token")) or _END_OF_TEXT
        padding = _token_name(settings.get("pad_token")) or _PADDING
        try:
            return cls(definition, end_of_text, padding)
        except BadInput as error:
            raise BadInput(f"cannot use tokenizer {file}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and a `tokenizer_config.json` with which transformers' AutoTokenizer loads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        end_of_text, padding = self._names
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end_of_text,
            "pad_token": padding,
            "additional_special_tokens": [name for name in self.special if name not in self._names],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        }
        (folder / "tokenizer.json").write_text(self._definition, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id. Raises BadInput on a lone surrogate, which no UTF-8 text can hold."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """Ids of `text` as uint32 [T], without a list in between."""
        if self._fast is None:
            _check(text)
            return np.array(self._reference.encode(text, add_special_tokens=False).ids, np.uint32)
        if not text.isascii():
            _check(text)
        return self._fast.encode_to_numpy(text, disallowed_special=())

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """`encode` of each text, on several threads (the encoder releases the interpreter lock)."""
        if threads <= 1 or len(texts) <= 1:
            return [self.encode(text) for text in texts]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode, texts))

    def encode_with_starts(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text its ids (uint32 [T]) and for each token whether a pre-token starts there (bool [T])."""
        results = []
        for text, byte_starts in zip(texts, self._byte_starts(texts), strict=True):
            ids = self.encode_array(text)
            lengths = self.token_lengths[ids]
            results.append((ids, byte_starts[np.cumsum(lengths) - lengths]))
        return results

    def pretokens(self, text: str) -> list[str]:
        """`text` split by the pre-tokenizer's pattern; joined they are `text` again."""
        data = text.encode()
        borders = [*np.flatnonzero(self._byte_starts([text])[0]).tolist(), len(data)]
        return [data[start:stop].decode() for start, stop in pairwise(borders)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become the replacement character."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of `ids`; special tokens give their literal strings. Raises InlayError for an id without a
        token.
        """
        try:
            return b"".join([self._bytes[token] for token in ids])
        except KeyError as error:
            raise InlayError(f"token id {error.args[0]} is not in the vocabulary of {self.vocab_size} tokens") from None

    @cached_property
    def hash(self) -> str:
        """Hash of what decides ids: pattern, ranks, special tokens. The layout of the file does not matter."""
        digest = xxhash.xxh3_128(self.pattern.encode())
        for token_id in sorted(self._bytes):
            token = self._bytes[token_id]
            digest.update(b"%d %d " % (token_id, len(token)) + token)
        digest.update(json.dumps([sorted(self.special.items()), self._names]).encode())
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._definition, *self._names))

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, {self.backend}, {self.hash[:8]})"

    def _byte_starts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """For each text bool over its bytes: a pre-token starts here."""
        if self.pattern == QWEN_PATTERN:
            return pretoken_starts(texts)
        results = []
        for text in texts:
            starts = np.zeros(len(text.encode()), bool)
            pieces = self._reference.pre_tokenizer.pre_tokenize_str(text)
            # Byte-level pre-tokens hold one character per byte.
            widths = np.array([len(piece) for piece, _ in pieces], np.int64)
            starts[np.cumsum(widths) - widths] = True
            results.append(starts)
        return results

    def _is_provably_equal(self) -> bool:
        if self.pattern not in _SHARED_PATTERNS or len(self._ranks) != len(set(self._ranks.values())):
            return False
        if any(bytes([value]) not in self._ranks for value in range(256)):
            return False
        model = json.loads(self._reference.to_str())["model"]
        results = [model["vocab"].get(left + right) for left, right in _merges(model)]
        if None in results or results != sorted(set(results)):
            return False
        # Without the pre-tokenizer, so that a token is seen whole: does BPE make each token of its own bytes?
        model["ignore_merges"] = False
        bare = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
        names = list(model["vocab"])
        encoded = bare.encode_batch(names)
        return all(
            len(found.ids) == 1 and found.ids[0] == model["vocab"][name]
            for name, found in zip(names, encoded, strict=True)
        )


def _check(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"text holds a lone surrogate at character {error.start}; give valid Unicode text") from None


def _parse(definition: str) -> dict[str, Any]:
    try:
        parsed = json.loads(definition)
    except ValueError as error:
        raise BadInput(f"not JSON: {error}") from None
    model = parsed.get("model") if isinstance(parsed, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise BadInput("the model is not BPE; give a byte-level BPE tokenizer")
    normaliser = parsed.get("normalizer")
    # NFC (Qwen2) is left out on purpose: code must come back byte for byte, and source files are NFC almost always.
    if normaliser is not None and normaliser.get("type") != "NFC":
        raise BadInput(f"its normaliser '{normaliser.get('type')}' changes text; give a tokenizer without one")
    if (
        model.get("byte_fallback")
        or model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
        or model.get("dropout")
    ):
        raise BadInput("the model is not plain byte-level BPE (byte fallback, word affixes or dropout)")
    return parsed


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Merges as pairs; older files write them as one string with a space."""
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(left, right) for left, right in pairs]


def _steps(parsed: dict[str, Any]) -> list[dict[str, Any]]:
    step = parsed.get("pre_tokenizer") or {}
    return step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]


def _pattern_of(parsed: dict[str, Any]) -> str:
    """The one regular expression that splits text, or a text that names the steps when there is more than one split."""
    steps = _steps(parsed)
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


def _ranks_of(parsed: dict[str, Any], special: dict[str, int]) -> dict[bytes, int]:
    characters = _byte_characters()
    try:
        return {
            bytes([characters[character] for character in token]): token_id
            for token, token_id in parsed["model"]["vocab"].items()
            if token not in special
        }
    except KeyError as error:
        raise BadInput(f"the vocabulary is not byte-level (character {error.args[0]!r})") from None


def _reference_of(parsed: dict[str, Any]) -> Any:
    """The same tokenizer in `tokenizers`, without normaliser, template and special tokens."""
    model = dict(parsed["model"])
    added = {token["content"] for token in parsed.get("added_tokens") or []}
    model["vocab"] = {token: token_id for token, token_id in model["vocab"].items() if token not in added}
    plain = dict(
        parsed, added_tokens=[], normalizer=None, post_processor=None, truncation=None, padding=None, model=model
    )
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(plain))
    except Exception as error:
        raise BadInput(f"damaged tokenizer definition: {error}") from None


def _token_name(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value
