"""Trains a byte-level BPE tokenizer on a sample of the training split, never on validation text."""

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field

from inlay.config import Config
from inlay.text.tokenizer import Tokenizer, tokenizer_kinds


@tokenizer_kinds.register
class BpeTokenizer(Config):
    """A tokenizer trained on the corpus itself."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(8192, ge=267, le=1 << 22)
    """Number of ids, special tokens included; a multiple of 64 suits the matrix kernels. A tiny corpus gives fewer."""
    sample_bytes: int = Field(20_000_000, ge=1, le=1 << 36)
    """Bytes of training text that the trainer reads, drawn evenly over the documents."""
    min_frequency: int = Field(2, ge=1, le=1 << 30)
    """A pair of tokens that occurs less often is never merged."""

    def build(self, sample: Callable[[int], Iterable[str]]) -> Tokenizer:
        """`sample(bytes)` gives training texts of about that size. Raises BadInput for too small a vocabulary."""
        return Tokenizer.train(sample(self.sample_bytes), self.vocab_size, self.min_frequency)
