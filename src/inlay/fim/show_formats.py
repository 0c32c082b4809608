"""`inlay inspect formats`: what each family says, and the prompt it sends for one example, as literal text.

No tokenizer is needed: strings stand for tokens. The space that SentencePiece puts before the prefix of some families
is not text, so it is named under `spacing` and not drawn.
"""

import inspect
import json
import sys
from typing import Any

from inlay.fim.example import Region
from inlay.fim.family import Family, Order, all_families

PREFIX, MIDDLE, SUFFIX = "def area(radius):\n    return ", "pi * radius**2", "\n\nprint(area(2))\n"
"""The one example."""
REPOSITORY, OTHER, PATH = "shapes", ("shapes/constants.py", "pi = 3.14159\n"), "shapes/circle.py"
"""The repository it is in, a file beside it (path, text), and its own path."""

Drawn = list[tuple[str, Region]]

_DRAWN = {ord("\n"): "↵", ord(" "): "·"}
_STYLES = {
    Region.PREFIX: "cyan",
    Region.SUFFIX: "blue",
    Region.SENTINEL: "bold magenta",
    Region.HEADER: "yellow",
    Region.HINT: "bold yellow",
    Region.TEXT: "dim",
}


def draw_prompt(family: Family, order: Order, *, repository: bool = False, hints: bool = False) -> Drawn:
    """The example's prompt in `order` as pieces of text, each with its region; with a file before it if asked."""
    before: Drawn = [] if family.bos is None else [(family.bos, Region.SENTINEL)]
    inside: Drawn = []
    if repository and family.repository is not None:
        for piece in family.repository.pieces(REPOSITORY, [OTHER[0]], PATH):
            text = (OTHER[1], Region.TEXT) if piece.role == "text" else (piece.text, Region.HEADER)
            (inside if piece.inside else before).append(text)
    hint = [(family.hint_start, Region.SENTINEL), ("    return ", Region.HINT), (family.hint_end, Region.SENTINEL)]
    places = {
        "prefix": [(family.prefix, Region.SENTINEL)],
        "suffix": [(family.suffix, Region.SENTINEL)],
        "middle": [(family.middle, Region.SENTINEL)],
        "p": [*inside, (PREFIX.removesuffix("    return ") if hints else PREFIX, Region.PREFIX)],
        "s": [(SUFFIX, Region.SUFFIX)],
        "hints": hint,
        "m": [],
    }
    drawn = before + [part for place in family.layout(order, hints) for part in places[place]]
    return [(text, region) for text, region in drawn if text]


def describe(family: Family) -> dict[str, Any]:
    """What a family says, in plain JSON types."""

    def text(drawn: Drawn) -> str:
        return "".join(part for part, _ in drawn)

    hinted = family.hint_start is not None and family.hint_end is not None
    form = family.repository
    return {
        "family": family.kind,
        "orders": list(family.orders),
        "order": family.order,
        "sentinels": {"prefix": family.prefix, "suffix": family.suffix, "middle": family.middle},
        "bos": family.bos,
        "terminator": family.terminator,
        "end": family.end or family.terminator,
        "pad": family.pad,
        "stops": stops(family),
        "spacing": family.spacing,
        "hints": [family.hint_start, family.hint_end] if hinted else None,
        "repository": None if form is None else form.model_dump(),
        "prompts": {order: text(draw_prompt(family, order)) for order in family.orders},
        "repository_prompt": None if form is None else text(draw_prompt(family, family.order, repository=True)),
        "hint_prompt": text(draw_prompt(family, family.order, hints=True)) if hinted else None,
        "middle": MIDDLE,
        "source": " ".join((inspect.getdoc(type(family)) or "").split()),
    }


def stops(family: Family) -> list[str]:
    """Every string that ends a completion: the terminator first, then all other control tokens."""
    hints = [text for text in (family.hint_start, family.hint_end) if text is not None]
    ends = [family.terminator, *([] if family.end is None else [family.end])]
    return list(dict.fromkeys([*ends, *family.stops, *family.strings().values(), *hints]))


def print_formats(as_json: bool) -> None:
    """Prints the registry: one object a line, or for people with colours where the terminal has them."""
    if as_json:
        for family in all_families().values():
            sys.stdout.write(json.dumps(describe(family), ensure_ascii=False) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    legend = Text("one example: ")
    for label, style in (("prefix", "cyan"), ("suffix", "blue"), ("sentinel", "bold magenta"), ("header", "yellow")):
        legend.append(f" {label} ", style)
    console.print(legend.append("; ↵ a line end, · a space; the model goes on behind it"))
    for family in all_families().values():
        console.print()
        console.print(_block(family))


def _block(family: Family) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, width=12, style="dim")
    grid.add_column(overflow="fold")
    sentinels = [text for text in (family.prefix, family.suffix, family.middle) if text]
    rows: list[tuple[str, str | Text]] = [
        ("sentinels", _joined(sentinels)),
        ("ends with", _ends(family)),
        ("pads with", family.pad),
        ("also stops", _joined([text for text in stops(family) if text not in _said(family)])),
    ]
    if family.bos is not None:
        rows.insert(1, ("begins with", family.bos))
    if family.spacing == "dummy":
        rows.append(("spacing", "a SentencePiece space before the prefix, none before suffix and middle"))
    rows += [(f"{order}", _text(draw_prompt(family, order))) for order in family.orders]
    if family.repository is not None:
        rows.append(("repository", _text(draw_prompt(family, family.order, repository=True))))
    if family.hint_start is not None:
        rows.append(("line hints", _text(draw_prompt(family, family.order, hints=True))))
    for label, value in rows:
        if value:
            grid.add_row(label, Text(value) if isinstance(value, str) else value)
    return Group(Text(family.kind, style="bold"), grid)


def _said(family: Family) -> list[str | None]:
    hints = [family.hint_start, family.hint_end]
    return [family.prefix, family.suffix, family.middle, family.terminator, family.end, family.pad, family.bos, *hints]


def _ends(family: Family) -> str:
    return family.terminator if family.end is None else f"{family.terminator} (middle), {family.end} (document)"


def _joined(texts: list[str]) -> str:
    return "  ".join(texts)


def _text(drawn: Drawn) -> Any:
    from rich.text import Text

    text = Text()
    for part, region in drawn:
        text.append(part.translate(_DRAWN), _STYLES[region])
    return text
