"""Where pre-tokens start, for the Qwen2-style pattern, computed on whole arrays at once.

The pattern splits text by character class alone, and its decisions look at most two characters back, one ahead, and at
whether a run of blanks ends in a line end. That makes it a handful of vector operations (over 100 MB/s, where a regex
engine called from Python reaches 7), which is what lets the token store keep one bit per token for nearly nothing. The
classes of non-ASCII characters are asked from the encoder's own regex engine, so both always know the same Unicode
tables.

Legend: `classes` uint8 [n], one class per character; `starts` bool [n], true where a pre-token begins.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import tiktoken

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer pattern: words with one leading character, single digits, punctuation runs, blanks."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern: words, numbers and punctuation runs, each with one leading space."""
CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""OpenAI's cl100k pattern, which Llama 3 uses as well: Qwen2's with up to three digits together."""
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""OpenAI's o200k pattern: words split where lower case turns to upper, contractions kept with their word."""

_EDGE, _LETTER, _NUMBER, _BLANK, _SPACE, _LINE_END, _OTHER = 0, 1, 2, 4, 8, 16, 32
_SEPARATOR = b"\xff"
_LONG_S = 0x17F


def _ascii_classes() -> bytes:
    table = bytearray([_OTHER]) * 256
    for code in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        table[code] = _LETTER
    for code in b"0123456789":
        table[code] = _NUMBER
    for code in b"\t\v\f":
        table[code] = _BLANK
    table[0x20] = _SPACE
    table[0x0A] = table[0x0D] = _LINE_END
    # 0xFF never occurs in UTF-8, so it can stand between documents that are handled in one array.
    table[0xFF] = _EDGE
    return bytes(table)


_ASCII_CLASSES = _ascii_classes()


@cache
def _unicode_classes() -> np.ndarray:
    """Class of every code point, uint8 [0x110000], as tiktoken's regex engine sees it (about 0.1 s, once a process)."""
    table = np.full(0x110000, _OTHER, np.uint8)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    for pattern, value in ((r"\p{L}", _LETTER), (r"\p{N}", _NUMBER), (r"\s", _BLANK)):
        # Text between the matches of the pattern is dropped, so what comes back is the class itself.
        probe = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=_single_bytes(), special_tokens={})
        members = probe.decode(probe.encode_ordinary(everything))
        table[np.frombuffer(members.encode("utf-32-le"), np.uint32)] = value
    table[:0x80] = np.frombuffer(_ASCII_CLASSES, np.uint8)[:0x80]
    return table


def _single_bytes() -> dict[bytes, int]:
    return {bytes([value]): value for value in range(256)}


def pretoken_starts(texts: Sequence[str]) -> list[np.ndarray]:
    """For each text a bool array over its UTF-8 bytes, true where a pre-token of `QWEN_PATTERN` begins.

    Equal to the starts of the matches that a regex engine finds (the witness of the tests is `tokenizers`).
    """
    ascii_data = [text.encode() for text in texts if text.isascii()]
    joined = _SEPARATOR.join(ascii_data)
    classes = np.frombuffer(joined.translate(_ASCII_CLASSES), np.uint8)
    starts = _starts(classes, np.frombuffer(joined, np.uint8))
    results, position = [], 0
    for text in texts:
        if text.isascii():
            results.append(starts[position : position + len(text)])
            position += len(text) + 1
        else:
            results.append(_starts_in_bytes(text))
    return results


def _starts_in_bytes(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    starts = _starts(_unicode_classes()[codes], codes)
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    ends = np.cumsum(widths)
    in_bytes = np.zeros(ends[-1], bool)
    in_bytes[(ends - widths)[starts]] = True
    return in_bytes


def _starts(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Starts of pre-tokens. classes uint8 [n]; codes [n] code points (or bytes). Returns bool [n].

    Per class of the current character (what precedes it decides): a letter starts after a line end, and after
    punctuation that is itself inside a pre-token (a single character that starts one takes the letters with it); a
    number always starts, and so does what follows it; punctuation starts unless it follows punctuation or a space; a
    line end starts after letters and numbers; a blank starts where a run of blanks begins and before the last blank of
    a run, except that blanks between line ends stay together.
    """
    size = len(classes)
    if size == 0:
        return np.zeros(0, bool)
    padded = np.zeros(size + 3, np.uint8)
    padded[2:-1] = classes
    before2, before, after = padded[:-3], padded[1:-2], padded[3:]
    blank = (classes & (_BLANK | _SPACE)) != 0
    after_line_end = before == _LINE_END

    starts = (before & _NUMBER) != 0
    starts |= before == _EDGE
    starts |= classes == _NUMBER
    letter = classes == _LETTER
    starts |= letter & (after_line_end | ((before == _OTHER) & ((before2 & (_OTHER | _SPACE)) != 0)))
    starts |= (classes == _OTHER) & ((before & (_LETTER | _LINE_END | _BLANK)) != 0)
    starts |= (classes == _LINE_END) & (before == _LETTER)
    opens = (before & (_LETTER | _OTHER | _LINE_END)) != 0
    closes = (after & (_LETTER | _NUMBER | _OTHER)) != 0
    starts |= blank & (opens | closes)
    starts &= classes != _EDGE
    _join_blank_lines(starts, padded, blank)
    _split_contractions(starts, padded, codes)
    return starts


def _join_blank_lines(starts: np.ndarray, padded: np.ndarray, blank: np.ndarray) -> None:
    """Blanks between two line ends belong to the pre-token begun before them, unless punctuation owns the first."""
    classes = padded[2:-1]
    trailing = np.flatnonzero(blank[:-1] & (classes[1:] == _LINE_END))
    if len(trailing) == 0:
        return
    first = _run_start(blank, trailing)
    first = first[padded[first + 1] == _LINE_END]
    if len(first) == 0:
        return
    line_end = _run_start(classes == _LINE_END, first - 1)
    starts[first] = padded[line_end + 1] == _OTHER


def _run_start(mask: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The first index of the run of true values that holds each position. mask bool [n], positions [k] (all true)."""
    found = positions.copy()
    active = np.arange(len(found))
    for _ in range(64):
        active = active[(found[active] > 0) & mask[found[active] - 1]]
        if len(active) == 0:
            return found
        found[active] -= 1
    gaps = np.concatenate(([-1], np.flatnonzero(~mask)))
    found[active] = gaps[np.searchsorted(gaps, found[active]) - 1] + 1
    return found


def _split_contractions(starts: np.ndarray, padded: np.ndarray, codes: np.ndarray) -> None:
    """`'s 't 're 've 'm 'll 'd` end their pre-token where they stand at its start: letters after them start another."""
    classes = padded[2:-1]
    quotes = np.flatnonzero((codes[:-1] == 0x27) & starts[:-1] & (classes[1:] == _LETTER))
    if len(quotes) == 0:
        return
    folded = np.zeros(len(codes) + 3, np.uint32)
    folded[: len(codes)] = codes
    near = folded[quotes[:, None] + np.arange(1, 4)]
    # Case folding of the pattern's (?i:...) also takes the long s.
    near = np.where(near == _LONG_S, ord("s"), near | 0x20)
    first, second = near[:, 0], near[:, 1]
    single = np.isin(first, [ord(letter) for letter in "stmd"])
    double = ((second == ord("e")) & np.isin(first, [ord("r"), ord("v")])) | (
        (first == ord("l")) & (second == ord("l"))
    )
    ends = np.concatenate((quotes[single] + 2, quotes[double & ~single] + 3))
    ends = ends[ends < len(codes)]
    starts[ends[classes[ends] == _LETTER]] = True
