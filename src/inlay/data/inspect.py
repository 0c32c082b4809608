"""Rows as people read them: which text is prefix, suffix and middle, what is trained, where documents break.

It shows the very rows that training reads under the same options, and refuses options and stores that training would.
"""

import codecs
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from inlay.config import Config, validate
from inlay.config.compose import compose, quoted
from inlay.data.loader import LoaderState, Rows
from inlay.data.mixture import MixedRows
from inlay.data.rows import Placed
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import FimConfig
from inlay.text.store import TokenStore
from inlay.text.tokenizer import Tokenizer

STYLES = {
    Region.TEXT: "",
    Region.PREFIX: "cyan",
    Region.SUFFIX: "blue",
    Region.MIDDLE: "bold black on green",
    Region.SENTINEL: "bold magenta",
    Region.TERMINATOR: "bold red",
    Region.HINT: "bold yellow",
    Region.HEADER: "yellow",
}
UNTRAINED = "dim underline"
"""Added to the style of a token that is never a target, or one with weight 0."""
# What a terminal would obey is shown as a picture; line feeds and tabs stay.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


class LengthOptions(Config):
    """The part of `train` that rows depend on."""

    sequence_length: int


class PieceOptions(Config):
    """The part of `data` that rows depend on."""

    shortest_piece: int | None


class RowOptions(Config):
    """What rows depend on, typed here because the training floor that owns it is above."""

    seed: int
    fim: FimConfig
    train: LengthOptions
    data: PieceOptions


def open_rows(store: str, overrides: list[str], split: str = "train") -> Rows:
    """Rows of a store under the default FIM options and `overrides` (`fim.rate=1`, `train.sequence_length=256` ...)."""
    data = compose("train", [f"data.path={quoted(store)}", "train.steps=1", *overrides])
    chosen = {
        "seed": data["seed"],
        "fim": data["fim"],
        "train": {"sequence_length": data["train"]["sequence_length"]},
        "data": {"shortest_piece": data["data"]["shortest_piece"]},
    }
    options = validate(RowOptions, chosen)
    return Rows(store, split, options.fim, options.train.sequence_length, options.seed, options.data.shortest_piece)


@dataclass(frozen=True)
class Shown:
    """Rows to show: a stream from a place on, in the order of training."""

    rows: Rows | MixedRows
    start: LoaderState
    count: int
    """How many the stream has."""
    source: str | None = None
    """Only those of this source of a mixture."""
    title: str | None = None
    """What they are, where that is no store as it is."""

    def part(self, number: int = 0) -> Rows:
        """The rows of one source by its number; of one store, all."""
        return self.rows.part(number) if isinstance(self.rows, MixedRows) else self.rows

    def walk(self, most: int) -> Iterator[tuple[int, str | None, Rows, list[Placed]]]:
        """At most `most` rows: (number in the stream, name of the source, rows that it is of, examples)."""
        state, number, found, names = self.start, 0, 0, self.rows.source_names
        while number < self.count and found < most:
            addresses, state = self.rows.advance(state, min(_AT_ONCE, self.count - number))
            for epoch, row, *whose in addresses:
                name = names[whose[0]] if whose else None
                if found < most and self.source in (None, name):
                    part = self.part(*whose)
                    yield number, name, part, part.maker.examples(part.plan(epoch), epoch, row)
                    found += 1
                number += 1


_AT_ONCE = 64
"""Rows whose places are reckoned together."""


def of_store(store: str, overrides: list[str]) -> Shown:
    """The rows of a store's first epoch. Raises BadInput for a damaged store."""
    TokenStore.open(store)
    rows = open_rows(store, overrides)
    return Shown(rows, LoaderState(), rows.plan(0).row_count)


def print_rows(place: str | Shown, count: int, as_json: bool, overrides: list[str]) -> None:
    """Prints the first `count` rows of a store under `overrides`, or of what is opened already: coloured text, or one
    JSON object an example."""
    shown = of_store(place, overrides) if isinstance(place, str) else place
    if shown.title is not None:
        print(shown.title, file=sys.stderr)
    for line in shown.rows.notices:
        print(line, file=sys.stderr)
    if not as_json:
        _print_legend()
    for number, source, rows, examples in shown.walk(count):
        if as_json:
            for placed in examples:
                of = {} if source is None else {"source": source}
                sys.stdout.write(json.dumps({**describe(rows, number, placed), **of}) + "\n")
        else:
            _print_row(rows, number, examples, source)


def describe(rows: Rows, number: int, placed: Placed) -> dict[str, Any]:
    """One example as plain data: whose text it is, its kind and its three parts.

    The parts are those of the text in this window. Of an order that encodes prefix and middle as one text, the token
    that the cut falls into is shared out as the cut has it. `header`: names and other files ahead of the example.
    """
    info = rows.split.document(placed.document)
    example = placed.example
    form = rows.maker.transform.format
    prefix, middle, suffix = (part.decode(errors="replace") for part in parts_of(placed, form))
    return {
        "row": number,
        "doc_id": info.id,
        "path": info.path,
        "language": info.language,
        "kind": Kind(example.row.kind).name.lower(),
        "span_kind": example.strategy,
        "node_kind": example.node_kind,
        "fallback": example.fallback,
        "level": rows.maker.transform.config.level,
        "window": [placed.part, placed.parts],
        "header": form.tokenizer.decode(example.row.tokens[_header(placed)].tolist()),
        "context": [rows.split.document(other).id for other in placed.context],
        "prefix": prefix,
        "middle": middle,
        "suffix": suffix,
        "trimmed": example.trimmed,
        "tokens": example.row.tokens.tolist(),
    }


def parts_of(placed: Placed, form: FimFormat) -> tuple[bytes, bytes, bytes]:
    """The bytes of prefix, middle and suffix in the example's window; of plain text the whole is the prefix."""
    example = placed.example
    row = example.row

    def spelled(region: Region) -> bytes:
        data = form.tokenizer.decode_bytes(row.tokens[row.regions == region].tolist())
        # The first input of a later window is the last target of the one before, maybe only the end of a character.
        return data.lstrip(_INSIDE) if placed.part else data

    if placed.parts > 1:
        whole = spelled(Region.TEXT) if row.kind == Kind.L2R else spelled(Region.PREFIX)
        return whole, spelled(Region.MIDDLE), spelled(Region.SUFFIX)
    text = form.restore(row)
    if example.span is None:
        return text, b"", b""
    # A token that straddles the cut (the joint order) is in the middle's region; the cut itself is where the span says.
    joint = row.kind == Kind.SPM_JOINT
    middle = example.span[1] - example.span[0] if joint else len(spelled(Region.MIDDLE))
    end = len(text) - len(spelled(Region.SUFFIX))
    return text[: end - middle], text[end - middle : end], text[end:]


_INSIDE = bytes(range(0x80, 0xC0))
"""The bytes of a UTF-8 character behind its first."""


def _header(placed: Placed) -> np.ndarray:
    """[n] bool: the tokens of names and other files, which stand before the example's own."""
    regions = placed.example.row.regions
    text = regions == Region.TEXT
    return (regions == Region.HEADER) | (text & (np.cumsum(text) <= placed.context_text))


def _print_legend() -> None:
    from rich.console import Console
    from rich.text import Text

    named = [region for region in STYLES if region != Region.TEXT]
    words = [("text", ""), *((region.name.lower(), STYLES[region]) for region in named), ("untrained", UNTRAINED)]
    legend = Text(" ").join(Text(word, style) for word, style in words)
    Console().print(legend)


def _print_row(rows: Rows, number: int, examples: list[Placed], source: str | None = None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    console = Console()
    maker = rows.maker
    used = sum(len(placed.example.row.tokens) - 1 for placed in examples)
    of = f" of {source}" if source is not None else ""
    console.rule(f"row {number}{of} · {len(examples)} examples · {used} of {maker.length} slots")
    weights = maker.transform.config.loss.table()
    for placed in examples:
        info, example = rows.split.document(placed.document), placed.example
        notes = [f"{info.repo} · {info.path}", _place(rows, placed), Kind(example.row.kind).name.lower()]
        notes += [note for note in (example.strategy, example.node_kind) if note]
        notes += [f"{example.fallback}: lines or tokens"] if example.fallback else []
        notes += [f"{example.trimmed} trimmed"] if example.trimmed else []
        console.print(f"[dim]▌ {escape(' · '.join(notes))}[/dim]", highlight=False)  # paths may hold brackets
        text = Text()
        for piece, style in _styled(placed, maker.transform.format.tokenizer, weights):
            text.append(piece.translate(_CONTROLS), style)
        console.print(text)


def _place(rows: Rows, placed: Placed) -> str:
    if placed.parts > 1:
        return f"window {placed.part + 1} of {placed.parts}"
    if rows.maker.transform.config.level == "document":
        return "whole"
    return f"tokens {placed.start}-{placed.stop}"


def _styled(placed: Placed, tokenizer: Tokenizer, weights: np.ndarray) -> Iterator[tuple[str, str]]:
    """The example's text in runs of one style. A character of several tokens has the style of its last."""
    row = placed.example.row
    trained = weights[row.regions] > 0.0
    trained[0] = False  # the first token of a row's example is nobody's target
    marks = row.regions.astype(np.int64) * 2 + trained
    borders = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(marks)]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for begin, end in pairwise(borders):
        style = STYLES[Region(int(row.regions[begin]))]
        if not trained[begin]:
            style = f"{style} {UNTRAINED}".replace("bold ", "").strip()
        data = tokenizer.decode_bytes(row.tokens[begin:end].tolist())
        yield decoder.decode(data, final=end == len(marks)), style
