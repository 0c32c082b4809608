"""Generated ids to text. Byte-level tokens may end inside a character: such a tail is held back and counted.

Bytes inside the text that are no UTF-8 become U+FFFD, as in every editor, and are counted as well; nothing else of the
text is touched.
"""

from collections.abc import Sequence
from typing import NamedTuple

from inlay.text.tokenizer import Tokenizer


class Text(NamedTuple):
    """Decoded text and what could not be shown of it."""

    text: str
    dropped_bytes: int
    """Bytes of an unfinished character at the end, held back."""
    invalid_bytes: int
    """Bytes inside the text that are no UTF-8."""


def detokenise(ids: Sequence[int], tokenizer: Tokenizer) -> Text:
    """The text of `ids`; special ids appear as their literal strings."""
    return decode_utf8(tokenizer.decode_bytes(list(ids)))


def decode_utf8(data: bytes) -> Text:
    """Decodes `data`, holding back a character that its end cuts short."""
    dropped = _unfinished(data)
    kept = data[: len(data) - dropped]
    try:
        return Text(kept.decode("utf-8"), dropped, 0)
    except UnicodeDecodeError:
        invalid = len(kept) - len(kept.decode("utf-8", errors="ignore").encode("utf-8"))
        return Text(kept.decode("utf-8", errors="replace"), dropped, invalid)


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a character that is not complete yet (0 to 3)."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if 0xC2 <= byte <= 0xDF else 3 if 0xE0 <= byte <= 0xEF else 4 if 0xF0 <= byte <= 0xF4 else 1
        return back if needed > back else 0
    return 0
