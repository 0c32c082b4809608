"""A gap as the text that a server is sent, where no tokenizer is at hand: what fits, and a family's form as text.

Room is counted in bytes of UTF-8. Only the far ends are cut, at a character's border: the head of the prefix, the tail
of the suffix. The suffix is promised a third of the room, the prefix the rest, and what one side does not need goes to
the other; as `inlay.infer.prompt` does with tokens. Other files may take half of the room, the most useful first.

A family's sentinels stand as strings, which the server's tokenizer has to read as one token each. It refuses a family
that writes a space before the prefix (Code Llama, Codestral): a server's tokenizer has its own rule for that.
"""

from collections.abc import Sequence

from inlay.config import BadInput
from inlay.evaluate.task import ContextFile, Example
from inlay.fim.family import Family, Order

SUFFIX_SHARE = 1 / 3
CONTEXT_SHARE = 1 / 2


def fitted(example: Example, room: int, *, context: bool) -> tuple[str, str, list[ContextFile]]:
    """Prefix, suffix and other files (most useful first) that together have at most `room` bytes. Without `context`
    the other files are left out."""
    files: list[ContextFile] = []
    left = int(room * CONTEXT_SHARE) if context else 0
    for file in example.context:
        # A path with a line end would end the line of a header that it stands in.
        text = _head(file.text, left - len(file.path.encode()))
        if text and "\n" not in file.path:
            files.append(ContextFile(file.path, text))
            left -= len(file.path.encode()) + len(text.encode())
    room -= sum(len(file.path.encode()) + len(file.text.encode()) for file in files)
    before, after = len(example.prefix.encode()), len(example.suffix.encode())
    suffix_room = min(after, max(int(room * SUFFIX_SHARE), room - before))
    return _tail(example.prefix, room - suffix_room), _head(example.suffix, suffix_room), files


def orders_of(family: Family) -> tuple[Order, ...]:
    """The orders in which a family's prompts differ as text. Raises BadInput for a family that text cannot say."""
    if family.spacing == "dummy":
        raise BadInput(
            f"format family '{family.kind}' cannot be sent as text (its space before the prefix is the tokenizer's);"
            " leave the family out, so that the server makes the prompt"
        )
    layouts: dict[tuple[str, ...], Order] = {}
    for order in family.orders:
        layouts.setdefault(family.layout(order), order)
    return tuple(layouts.values())


def stops_of(family: Family) -> tuple[str, ...]:
    """Every string that ends a completion, the terminator first."""
    strings = family.strings()
    return tuple(dict.fromkeys([strings["terminator"], *strings.values()]))


def prompt_text(
    family: Family, order: Order, prefix: str, suffix: str, repo: str, path: str, files: Sequence[ContextFile]
) -> str:
    """The prompt up to where the middle begins, as text; `files` most useful first. A beginning-of-sequence token is
    the server's to add."""
    before = inside = ""
    if files and family.repository is not None:
        # The most useful file stands nearest to the gap.
        others = list(reversed(files))
        for piece in family.repository.pieces(_line(repo), [file.path for file in others], _line(path)):
            text = others[piece.file].text if piece.role == "text" else piece.text
            before, inside = (before, inside + text) if piece.inside else (before + text, inside)
    places = {
        "prefix": family.prefix,
        "suffix": family.suffix,
        "middle": family.middle or "",
        "p": inside + prefix,
        "s": suffix,
        "m": "",
    }
    return before + "".join(places[place] for place in family.layout(order))


def sentinel_in(family: Family, example: Example) -> str | None:
    """A control string of the family that stands in an example's own text, where a server would take it for one."""
    texts = (example.prefix, example.suffix, *(file.text for file in example.context))
    return next((one for one in stops_of(family) if any(one in text for text in texts)), None)


def _line(text: str) -> str:
    return " ".join(text.split("\n"))


def _tail(text: str, room: int) -> str:
    data = text.encode()
    return data[max(0, len(data) - max(0, room)) :].decode(errors="ignore")


def _head(text: str, room: int) -> str:
    return text.encode()[: max(0, room)].decode(errors="ignore")
