"""The tokenizer: byte-level BPE, trained and stored by `tokenizers`, encoded by tiktoken from the same ranks.

It decides that text is lossless (no normaliser), that special tokens stand at the end of the vocabulary, and that user
text never becomes a special token: `<|fim_prefix|>` in a source file is a string like any other. Tokenizers of other
projects are read by `inlay.text.definition`, byte-level or SentencePiece-style; anything else is refused.

SentencePiece cannot tell a space from the character U+2581 that stands for it. Here that character is written as its
three byte tokens, so that text with it comes back as it was.

Both encoders give the same ids when every token is what BPE makes of that token's own bytes: then a pair of neighbours
that spells a token is always the pair that its merge names, and merging by rank of the result (tiktoken) is merging by
order of merges (`tokenizers`). That condition and the pattern are checked when a tokenizer is made; one that does not
pass is encoded by `tokenizers` itself (`backend` says which), slower and exact.
"""

import json
import re
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
from inlay.config.files import read_bounded_text, read_json
from inlay.text.definition import SPACE, Style, merges_of, read_definition, token_name
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
    "<|fim_line_start|>",
    "<|fim_line_end|>",
)
"""Qwen2.5-Coder's strings, in its order: every editor template already sends them. The last two open the hints of a
partial first and last line (FIM-SE, 2405.17103)."""

# Patterns on which both regex engines are known to agree; tests compare them over texts of every character class.
_SHARED_PATTERNS = frozenset({QWEN_PATTERN, GPT2_PATTERN, CL100K_PATTERN, O200K_PATTERN})
_END_OF_TEXT = "<|endoftext|>"
_PADDING = "<|fim_pad|>"
LONGEST_BLANKS = 500_000
"""Blanks in a row."""
# From the start of a run alone: tried at each of its characters, a run just below the limit would take minutes.
_ENDLESS = (
    (re.compile(rf"(?<!\s)\s{{{LONGEST_BLANKS + 1}}}"), f"more than {LONGEST_BLANKS:,} blanks in a row"),
    (re.compile(r"(?<!\S)\S{4000001}"), "more than 4,000,000 characters without a blank"),
)
_LONG_RUN = re.compile(r"(?<!\S)(\S{512})\S+|(?<!\s)(\s{512})\s+")
"""What training leaves out: the rest of a run without a blank, or of blanks, that no token could hold anyway."""


class Tokenizer:
    """A BPE vocabulary V with special tokens. Immutable, picklable, safe to use from several threads.

    Law: `decode_bytes(encode(s)) == s.encode()` for every string without lone surrogates.
    """

    def __init__(self, definition: str, end_of_text: str | None = None, padding: str | None = None) -> None:
        """`definition` is the text of a `tokenizer.json`; the names default to ours, where it has them.

        Raises BadInput when it is no lossless BPE or lacks a token that was named.
        """
        self._definition = definition
        parsed = read_definition(definition)
        self.style: Style = parsed.style
        self.special: dict[str, int] = parsed.special
        for name in (end_of_text, padding):
            if name is not None and name not in self.special:
                raise BadInput(
                    f"tokenizer has no special token '{name}'; its special tokens: {', '.join(self.special) or 'none'}"
                )
        self._names = tuple(
            name or (default if default in self.special else None)
            for name, default in ((end_of_text, _END_OF_TEXT), (padding, _PADDING))
        )
        self.eot: int | None = self.special.get(self._names[0] or "")
        """The end-of-text token, None where the file names none: a format family knows its terminator itself."""
        self.pad: int | None = self.special.get(self._names[1] or "")
        self.pattern: str = parsed.pattern
        """The pre-tokenizer's regular expression, or a text that names its steps when it is not one expression."""
        self._merges = parsed.merges
        self._missing = parsed.missing
        self._bytes: dict[int, bytes] = dict(parsed.tokens)
        self._bytes.update({token_id: name.encode() for name, token_id in self.special.items()})
        self._space = [parsed.byte_tokens[value] for value in SPACE.encode()] if parsed.byte_tokens else []
        self.vocab_size: int = max(self._bytes) + 1
        self.token_lengths: np.ndarray = np.zeros(self.vocab_size, np.int32)
        self.token_lengths[list(self._bytes)] = [len(token) for token in self._bytes.values()]
        self._reference = parsed.encoder
        ranks = {token: token_id for token_id, token in parsed.tokens.items()}
        self.backend: str = "tiktoken" if self._is_provably_equal(parsed.tokens, ranks) else "tokenizers"
        self._fast = (
            tiktoken.Encoding("inlay", pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={})
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
        # The trainer's time grows with the square of a pre-token: a run of 300,000 brackets would take hours.
        tokenizer.train_from_iterator((_LONG_RUN.sub(r"\1\2", text) for text in texts), trainer)
        tokenizer.add_special_tokens(
            [tokenizers.AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS]
        )
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a `tokenizer.json`, or a folder that holds one (and a `tokenizer_config.json` that names its end and
        padding tokens).

        Raises BadInput that names the file when it is missing, damaged, or not a BPE that keeps text whole.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            definition = read_bounded_text(file)
            beside = file.with_name("tokenizer_config.json")
            settings = read_json(beside) if beside.is_file() else {}
        except OSError as error:
            raise BadInput(f"cannot read tokenizer {file}: {error.strerror}") from None
        except ValueError as error:
            raise BadInput(f"damaged tokenizer at {file}: {error}") from None
        try:
            return cls(definition, token_name(settings.get("eos_token")), token_name(settings.get("pad_token")))
        except BadInput as error:
            raise BadInput(f"cannot use tokenizer {file}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and a `tokenizer_config.json` with which transformers' AutoTokenizer loads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        end_of_text, padding = self._names
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **({"eos_token": end_of_text} if end_of_text else {}),
            **({"pad_token": padding} if padding else {}),
            "additional_special_tokens": [name for name in self.special if name not in self._names],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        }
        (folder / "tokenizer.json").write_text(self._definition, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @property
    def definition(self) -> str:
        """The text of its `tokenizer.json`."""
        return self._definition

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; never a special id. Raises BadInput on a lone surrogate, which no UTF-8 text can hold, on a
        character that a foreign vocabulary has no bytes for, and on a run that no pre-tokenizer holds (`endless_run`).
        """
        if self._fast is None or len(text) > LONGEST_BLANKS or not text.isascii():
            return self.encode_array(text).tolist()
        return self._fast.encode_ordinary(text)  # for a few characters half the price of an array

    def encode_array(self, text: str) -> np.ndarray:
        """Ids of `text` as uint32 [T], without a list in between."""
        if self._fast is None:
            _check(text)
            return np.array(self._encode_exactly(text), np.uint32)
        if len(text) > LONGEST_BLANKS or not text.isascii():
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
        if self.style == "sentencepiece":  # its ids need not follow the order of its merges
            digest.update(json.dumps(self._merges).encode())
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
            if self.style == "sentencepiece":
                # Merges may run over any place, so only the text's own start is safe.
                starts[:1] = True
                results.append(starts)
                continue
            pieces = self._reference.pre_tokenizer.pre_tokenize_str(text)
            # Byte-level pre-tokens hold one character per byte.
            widths = np.array([len(piece) for piece, _ in pieces], np.int64)
            starts[np.cumsum(widths) - widths] = True
            results.append(starts)
        return results

    def _encode_exactly(self, text: str) -> list[int]:
        """Ids as the reference gives them; U+2581 under SentencePiece as its bytes."""
        if self._missing and not text.isascii():
            self._refuse_missing(text)
        pieces = text.split(SPACE) if self._space else [text]
        ids = self._reference.encode(pieces[0], add_special_tokens=False).ids
        for piece in pieces[1:]:
            ids += [*self._space, *self._reference.encode(piece, add_special_tokens=False).ids]
        return ids

    def _refuse_missing(self, text: str) -> None:
        data = text.encode()
        for value in self._missing:
            if value in data:
                character = next(character for character in text if value in character.encode())
                raise BadInput(
                    f"text holds U+{ord(character):04X}, whose byte 0x{value:02X} no token of this tokenizer has;"
                    " leave the character out or take another tokenizer"
                )

    def _is_provably_equal(self, tokens: dict[int, bytes], ranks: dict[bytes, int]) -> bool:
        if self.style != "byte-level" or self.pattern not in _SHARED_PATTERNS or len(ranks) != len(tokens):
            return False
        if any(bytes([value]) not in ranks for value in range(256)):
            return False
        model = json.loads(self._reference.to_str())["model"]
        results = [model["vocab"].get(left + right) for left, right in merges_of(model)]
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


def endless_run(text: str) -> str | None:
    """What in a text is one pre-token that no pre-tokenizer can hold, in words; None where nothing is.

    A million blanks end the regular expressions of both encoders (stack overflow), and a word of eleven million
    characters takes 64 bytes a character.
    """
    if len(text) <= LONGEST_BLANKS:
        return None
    for pattern, what in _ENDLESS:
        found = pattern.search(text)
        if found is not None:
            line = text.count("\n", 0, found.start()) + 1
            return f"{what} in line {line}"
    return None


def _check(text: str) -> None:
    endless = endless_run(text)
    if endless is not None:
        raise BadInput(f"text holds {endless}, more than a tokenizer can read; shorten it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"text holds a lone surrogate at character {error.start}; give valid Unicode text") from None
