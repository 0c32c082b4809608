"""`inlay complete`: one insertion at a cursor, alone on standard output.

It decides where the text around the cursor comes from (a file and a position, two files, or standard input with a
marker) and refuses a cursor outside the text. Lines end at `\\n` or `\\r\\n`; columns count characters, and the one
after the last character of a line is allowed.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from inlay.config.errors import BadInput
from inlay.config.files import read_bounded

MARKER = "<CURSOR>"
MOST_BYTES = 64 << 20
"""Of the text around the cursor."""
Tail = Annotated[str, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json", negative=(), show_default=False)]


def complete(
    target: str,
    /,
    *overrides: Tail,
    file: Path | None = None,
    at: str | None = None,
    prefix_file: Path | None = None,
    suffix_file: Path | None = None,
    as_json: Json = False,
) -> None:
    """Print what a model inserts at a cursor.

    Give --file F --at LINE:COL, or --prefix-file A --suffix-file B, or text with the marker <CURSOR> on standard input.

    Parameters
    ----------
    target
        A run directory, a checkpoint, or a Hugging Face folder.
    overrides
        Options as key=value: max_tokens=32, order=psm, temperature=0.4, family=starcoder2 ...; best_of=4
        temperature=0.8 takes four samples and prints the best (--json shows all).
    file
        The file that the cursor is in.
    at
        The cursor, as LINE:COL, both from 1.
    prefix_file
        Text before the cursor.
    suffix_file
        Text after the cursor.
    as_json
        One JSON object in place of the text.
    """
    prefix, suffix = read_cursor(file, at, prefix_file, suffix_file)

    from inlay.config import validate
    from inlay.config.compose import apply_overrides
    from inlay.infer.complete import CompleteConfig, candidates

    options = apply_overrides(CompleteConfig().to_dict(), overrides)
    config = validate(CompleteConfig, options, where="command line")
    found, best = candidates(target, prefix, suffix, config)
    completion = found[best]
    if as_json:
        others = {"best": best, "candidates": [one.to_dict() for one in found]} if config.best_of > 1 else {}
        text = json.dumps({**completion.to_dict(), **others}) + "\n"
    else:
        text = completion.text
    # Bytes, so that no newline is translated and no console encoding refuses a character.
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def read_cursor(
    file: Path | None, at: str | None, prefix_file: Path | None, suffix_file: Path | None
) -> tuple[str, str]:
    """The text before and after the cursor, from whichever of the three ways was given.

    Raises BadInput for a mixture of ways, a file that cannot be read, and a cursor outside the text.
    """
    if file is not None or at is not None:
        if prefix_file is not None or suffix_file is not None:
            raise BadInput("give --file and --at, or --prefix-file and --suffix-file, not both")
        if file is None or at is None:
            raise BadInput(f"--{'at' if file is None else 'file'} needs --{'file' if file is None else 'at'} beside it")
        return split_at(_read(file), at, str(file))
    if prefix_file is not None or suffix_file is not None:
        return (_read(prefix_file) if prefix_file else ""), (_read(suffix_file) if suffix_file else "")
    if sys.stdin is None or sys.stdin.isatty():
        raise BadInput(f"no cursor: give --file F --at LINE:COL, or text with {MARKER} on standard input")
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BadInput(f"standard input has more than {MOST_BYTES:,} bytes, the most that is read")
    return split_marker(_decode(data, "standard input"))


def split_at(text: str, at: str, name: str) -> tuple[str, str]:
    """`text` before and after the position `at` ("LINE:COL", from 1). Raises BadInput outside the text."""
    line_text, colon, column_text = at.partition(":")
    if not colon or not _is_number(line_text) or not _is_number(column_text):
        raise BadInput(f"--at {at}: write LINE:COL, both from 1, such as --at 12:5")
    line, column = int(line_text), int(column_text)
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise BadInput(f"--at {at} is outside '{name}': it has lines 1 to {len(lines)}")
    width = len(lines[line - 1].removesuffix("\r"))
    if not 1 <= column <= width + 1:
        raise BadInput(f"--at {at} is outside '{name}': its line {line} has columns 1 to {width + 1}")
    offset = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    return text[:offset], text[offset:]


def split_marker(text: str) -> tuple[str, str]:
    """`text` before and after its one `<CURSOR>`. Raises BadInput when there is none, or more than one."""
    count = text.count(MARKER)
    if count != 1:
        raise BadInput(f"standard input has {count or 'no'} {MARKER} markers: put one where the insertion goes")
    prefix, _, suffix = text.partition(MARKER)
    return prefix, suffix


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _read(path: Path) -> str:
    path = path.expanduser()
    try:
        data = read_bounded(path, MOST_BYTES)
    except FileNotFoundError:
        raise BadInput(f"no file at '{path}'") from None
    except OSError as error:
        raise BadInput(f"cannot read '{path}': {(error.strerror or str(error)).lower()}") from None
    return _decode(data, f"'{path}'")


def _decode(data: bytes, name: str) -> str:
    try:
        # As prepare does: no training row begins with a byte-order mark, and editors do not count it as a column.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text (byte {error.start} does not decode)") from None
