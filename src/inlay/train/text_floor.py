"""What the training text itself says about possible losses: its unigram loss, and what a compressor makes of it.

Text that repeats itself (boilerplate, data files, many near copies) is learnt to very low losses in an honest first
pass. A compressor finds the same repetitions, so that a threshold can follow the text. Both are measured once, on a
sample of whole documents that are spread evenly.
"""

import lzma
import math

import numpy as np

from inlay.text.store import StoreSplit
from inlay.train.guards import Text

SAMPLE_TOKENS = 1 << 20
"""About three megabytes of text: half a second."""


def measure(split: StoreSplit, sample_tokens: int = SAMPLE_TOKENS) -> Text:
    """`Text` of a store's split."""
    bytes_per_token = split.byte_count / max(1, split.token_count)
    count = len(split.lengths)
    chosen = np.arange(count)
    if split.token_count > sample_tokens:
        wanted = max(1, round(count * sample_tokens / split.token_count))
        chosen = np.unique(np.linspace(0, count - 1, wanted).astype(np.int64))
    texts = [np.asarray(split.tokens(int(index))) for index in chosen]
    tokens = np.concatenate(texts) if texts else np.zeros(0, dtype=np.uint16)
    if not len(tokens):
        return Text(bytes_per_token)
    counts = np.bincount(tokens)
    shares = counts[counts > 0] / len(tokens)
    packed = lzma.compress(tokens.tobytes(), format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}])
    return Text(
        bytes_per_token,
        unigram=float(-(shares * np.log(shares)).sum()),
        compressed=8 * len(packed) / (len(tokens) * bytes_per_token) if bytes_per_token else math.inf,
    )
