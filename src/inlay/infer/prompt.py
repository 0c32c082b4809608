"""Fits a cursor's surroundings into the model's context: one rule for completion and evaluation.

Only the far ends are trimmed: the head of the prefix and the tail of the suffix, by whole tokens and then on to a
character boundary. What lies next to the cursor is never dropped. The suffix is promised a third of the room, the
prefix the rest; what one side does not need goes to the other.

Other files of the repository, where they are given, may have half of the room, and what prefix and suffix leave beyond
that. The most useful stands nearest to the block; the one that does not fit whole keeps its end, as in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from inlay.config import BadInput
from inlay.fim.family import Order
from inlay.fim.format import FimFormat, Header
from inlay.text.tokenizer import Tokenizer

SUFFIX_SHARE = 1 / 3
BYTES_PER_TOKEN_GUESS = 8
"""How much text is encoded at first per token of room; twice the usual density of code, and doubled until it is
enough."""
EDGE_TOKENS = 16
"""Tokens encoded beyond the room, so that a pre-token broken by the guess is never in the prompt."""
FILES_SHARE = 1 / 2
"""Share of the room that other files are promised."""
SHORTEST_FILE = 32
"""Tokens of a file that are worth a place when the rest of it does not fit; what training takes as well."""
UNNAMED = ("myproject", "filename")
"""Repository and file where they have no name, or none that a header can hold: llama.cpp's server sends these."""


@dataclass(frozen=True, slots=True)
class Context:
    """The ids on both sides of a cursor, already fitted, and whether something was trimmed away."""

    prefix: list[int]
    suffix: list[int]
    trimmed: bool
    header: Header | None = None
    """The repository's other files, where some are shown."""


def fit(prefix: str, suffix: str, room: int, tokenizer: Tokenizer) -> Context:
    """Encodes both sides and trims their far ends so that together they have at most `room` tokens.

    Raises BadInput when `room` is negative: the completion's budget leaves no place for any context.
    """
    if room < 0:
        raise BadInput("max_tokens leaves no room for context: lower it, or train with a longer train.sequence_length")
    before = _encode_end(prefix, room, tokenizer)
    after = _encode_start(suffix, room, tokenizer)
    promised = int(room * SUFFIX_SHARE)
    suffix_room = max(promised, room - len(before))
    suffix_room = min(suffix_room, len(after))
    prefix_room = min(room - suffix_room, len(before))
    fitted_prefix = trim_head(before, prefix_room, tokenizer)
    fitted_suffix = trim_tail(after, suffix_room, tokenizer)
    trimmed = len(fitted_prefix) < len(before) or len(fitted_suffix) < len(after)
    return Context(fitted_prefix, fitted_suffix, trimmed)


def fit_with_files(
    prefix: str,
    suffix: str,
    room: int,
    fim_format: FimFormat,
    files: Sequence[tuple[str, str]],
    repository: str = "",
    path: str = "",
) -> Context:
    """As `fit`, with other `files` (path, text; the most useful first) of a repository before the file at `path`.

    Files are left out where the family has no repository form, and where not even `SHORTEST_FILE` tokens of one fit.
    Raises BadInput when `room` is negative.
    """
    alone = fit(prefix, suffix, room, fim_format.tokenizer)
    if not files or fim_format.family.repository is None:
        return alone
    left = max(int(room * FILES_SHARE), room - len(alone.prefix) - len(alone.suffix))
    header = _header(files, left, fim_format, repository, path)
    if header is None:
        return alone
    inner = fit(prefix, suffix, room - len(header.tokens), fim_format.tokenizer)
    return Context(inner.prefix, inner.suffix, inner.trimmed, header)


def prompt_of(context: Context, order: Order, fim_format: FimFormat) -> list[int]:
    """The prompt's ids: what `FimFormat` renders in training, up to where the middle begins."""
    return fim_format.prompt(context.prefix, context.suffix, order, context.header)


def _header(
    files: Sequence[tuple[str, str]], room: int, fim_format: FimFormat, repository: str, path: str
) -> Header | None:
    """The header of at most `room` tokens with as many of the files as fit; None when not one does."""
    tokenizer = fim_format.tokenizer
    names = _name(repository, UNNAMED[0]), _name(path, UNNAMED[1])
    chosen: list[tuple[str, list[int]]] = []
    for label, text in files:
        named = _name(label, UNNAMED[1])
        used = len(fim_format.repository(names[0], [(named, []), *chosen], names[1]).tokens)
        ids = _encode_end(text, max(0, room - used), tokenizer)
        if len(ids) > room - used and room - used < SHORTEST_FILE:
            break
        chosen.insert(0, (named, trim_head(ids, room - used, tokenizer)))
    return fim_format.repository(names[0], chosen, names[1]) if chosen else None


def _name(name: str, other: str) -> str:
    return other if not name or "\n" in name or "\r" in name else name


def trim_head(ids: list[int], room: int, tokenizer: Tokenizer) -> list[int]:
    """The last `room` ids, less those that begin inside a character."""
    start = len(ids) - room
    if start <= 0:
        return ids
    while start < len(ids) and not _starts_character(tokenizer.decode_bytes(ids[start : start + 1])):
        start += 1
    return ids[start:]


def trim_tail(ids: list[int], room: int, tokenizer: Tokenizer) -> list[int]:
    """The first `room` ids, less those at the end that leave a character unfinished."""
    stop = min(room, len(ids))
    # A cut is on a character boundary exactly when the next token starts a character.
    while 0 < stop < len(ids) and not _starts_character(tokenizer.decode_bytes(ids[stop : stop + 1])):
        stop -= 1
    return ids[:stop]


def _starts_character(data: bytes) -> bool:
    return bool(data) and data[0] & 0xC0 != 0x80


def _encode_end(text: str, room: int, tokenizer: Tokenizer) -> list[int]:
    """Ids of the end of `text`: all of it, or at least `room` tokens. Encoding a long file for a short window is
    waste."""
    length = BYTES_PER_TOKEN_GUESS * (room + EDGE_TOKENS)
    while length < len(text):
        ids = tokenizer.encode(text[len(text) - length :])
        if len(ids) >= room + EDGE_TOKENS:
            return ids
        length *= 2
    return tokenizer.encode(text)


def _encode_start(text: str, room: int, tokenizer: Tokenizer) -> list[int]:
    length = BYTES_PER_TOKEN_GUESS * (room + EDGE_TOKENS)
    while length < len(text):
        ids = tokenizer.encode(text[:length])
        if len(ids) >= room + EDGE_TOKENS:
            return ids
        length *= 2
    return tokenizer.encode(text)
