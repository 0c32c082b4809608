"""What could be cut in one file: its syntax, and a few spans of each strategy as they stand in their lines.

It draws by the very strategies and the indentation rule that training uses, on the whole file as one piece. It refuses
a file that is not UTF-8 and one whose language its name does not tell.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inlay.config import BadInput, validate
from inlay.config.compose import compose
from inlay.config.files import read_bounded
from inlay.fim.draws import Draws
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, apply_indentation, strategies
from inlay.fim.transform import FimConfig
from inlay.text.document import language_of
from inlay.text.store import TokenStore
from inlay.text.syntax import parse
from inlay.text.tokenizer import Tokenizer

_SIDE = 32
"""Characters of the line shown before and behind a middle."""
_MIDDLE = 96
"""Characters of a middle shown; a longer one is shown by its ends."""
_MOST_KINDS = 24
_OWN_VOCABULARY = 2048
"""Tokens of a vocabulary that is made for one file: about as long as those of a real one."""
_VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True, slots=True)
class Drawn:
    """A span of a file: the name of its strategy, its bytes, and the kind of the node it is or begins with."""

    strategy: str
    span: Span
    node_kind: str | None


def read_view(file: str, store: str | None) -> tuple[TextView, str]:
    """(the file as strategies see it, its language). Without a store the tokens are those of a small
    vocabulary that is trained on the file itself.

    Raises BadInput for a file that cannot be read, is not UTF-8, or has a name that tells no language.
    """
    language = language_of(file)
    if language is None:
        raise BadInput(f"cannot tell the language of '{file}' from its name; give a file with a known suffix")
    try:
        data = read_bounded(Path(file))
        text = data.decode()
    except OSError as error:
        raise BadInput(f"cannot read '{file}': {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"'{file}' is not UTF-8 at byte {error.start}; give a text file") from None
    tokenizer = TokenStore.open(store, verify=False).tokenizer if store else Tokenizer.train([text], _OWN_VOCABULARY)
    parsed = parse(data, language, file)
    syntax = None if parsed is None else Syntax(parsed.nodes, parsed.kinds)
    return TextView(tokenizer, tokenizer.encode_array(text), syntax), language


def draw_spans(view: TextView, named: dict[str, SpanStrategy], count: int, indentation: float) -> Iterator[Drawn]:
    """`count` spans of each strategy, fewer where the text has none."""
    for name, strategy in named.items():
        for number in range(count):
            draws = Draws("inspect", name, number)
            span = strategy.draw(view, draws)
            if span is not None:
                node = view.syntax.kind_at(*span) if view.syntax and strategy.needs_syntax else None
                yield Drawn(name, apply_indentation(view, span, draws, indentation), node)


def print_spans(
    file: str, overrides: list[str], kind: str | None, count: int, store: str | None, as_json: bool
) -> None:
    """Prints what could be cut in `file` under the FIM options of `overrides` (`fim=lines`, `fim.indentation=0` ...).

    `kind`: only this strategy, by its name in the options or by its kind. Raises BadInput for what cannot be shown.
    """
    if count < 1:
        raise BadInput(f"--count {count}: show at least one span")
    config = validate(FimConfig, compose("train", ["train.steps=1", "data.path=none", *overrides])["fim"])
    named = _chosen(config, kind)
    view, language = read_view(file, store)
    found = draw_spans(view, named, count, config.indentation)
    if as_json:
        for drawn in found:
            sys.stdout.write(json.dumps(_plain(view, drawn)) + "\n")
        return
    _print(view, f"{file} · {language}", list(found), named, store is not None)


def node_kinds(syntax: Syntax) -> list[tuple[str, int, int]]:
    """(kind, nodes, their bytes) of each kind, the kind with most bytes first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    indices, number = np.unique(syntax.nodes[:, 2], return_counts=True)
    widths = np.bincount(syntax.nodes[:, 2], weights=syntax.nodes[:, 1] - syntax.nodes[:, 0])
    for index, nodes in zip(indices.tolist(), number.tolist(), strict=True):
        counts[syntax.kinds[index]] += nodes
        sizes[syntax.kinds[index]] += int(widths[index])
    return [(kind, counts[kind], size) for kind, size in sizes.most_common()]


def _chosen(config: FimConfig, kind: str | None) -> dict[str, SpanStrategy]:
    if kind is None:
        return {name: strategy for name, strategy in config.spans.items() if strategy.weight > 0.0}
    if kind in config.spans:
        return {kind: config.spans[kind]}
    strategy = strategies.get(kind)()
    assert isinstance(strategy, SpanStrategy)
    return {kind: strategy}


def _plain(view: TextView, drawn: Drawn) -> dict[str, Any]:
    start, end = drawn.span
    middle = view.window(start, end).decode()
    return {
        "strategy": drawn.strategy,
        "start": start,
        "end": end,
        "middle": middle,
        "node_kind": drawn.node_kind,
        "tokens": len(view.tokenizer.encode(middle)),
    }


def _print(view: TextView, title: str, found: list[Drawn], named: dict[str, SpanStrategy], counted: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = f"{view.size:,} bytes · {len(view.line_starts) - 1:,} lines"
    nodes = "not parsed" if view.syntax is None else f"{len(view.syntax.nodes):,} syntax nodes"
    tokens = f" · {len(view.tokens):,} tokens" if counted else ""
    console.print(Text(f"{title} · {lines}{tokens} · {nodes}", "bold"))
    if not counted:
        console.print(Text("Tokens of a small vocabulary made for this file; --store STORE takes a store's.", "dim"))
    if view.syntax is not None:
        kinds = node_kinds(view.syntax)
        table = Table("node kind", "nodes", "bytes")
        for kind, number, size in kinds[:_MOST_KINDS]:
            table.add_row(kind, f"{number:,}", f"{size:,}")
        console.print(table)
        if len(kinds) > _MOST_KINDS:
            console.print(Text(f"and {len(kinds) - _MOST_KINDS} more kinds", "dim"))
    for name, strategy in named.items():
        console.print(Text(f"\n{name}", "bold cyan"))
        mine = [drawn for drawn in found if drawn.strategy == name]
        if not mine:
            why = "no syntax: training takes lines or tokens" if strategy.needs_syntax and view.syntax is None else ""
            console.print(Text(f"  nothing to cut here{': ' if why else ''}{why}", "dim"))
        for drawn in mine:
            console.print(_shown(view, drawn, counted), soft_wrap=True)


def _shown(view: TextView, drawn: Drawn, counted: bool) -> Any:
    """One span in its line: where it is, the line's text around it, and its size."""
    from rich.text import Text

    start, end = drawn.span
    line = int(view.line_starts.searchsorted(start, side="right")) - 1
    line = min(line, max(0, len(view.line_starts) - 2))
    begin = int(view.line_starts[line])
    before = view.window(begin, start).decode()
    middle = view.window(start, end).decode()
    stop = view.align_up(min(view.size, end + 4 * _SIDE))
    after = view.window(end, stop).decode().partition("\n")[0]
    sizes = [f"{end - start} bytes"] + ([f"{len(view.tokenizer.encode(middle))} tokens"] if counted else [])
    if drawn.node_kind:
        sizes.append(drawn.node_kind)
    if len(middle) > _MIDDLE:
        middle = f"{middle[: _MIDDLE // 2]} … {middle[-_MIDDLE // 2 :]}"
    place = f"  {line + 1}:{len(before) + 1}"
    return Text.assemble(
        (f"{place:<10}", "dim"),
        (_safe(before[-_SIDE:]), "blue"),
        "⟦",
        (_safe(middle), "bold black on green"),
        "⟧",
        (_safe(after[:_SIDE]), "blue"),
        (f"   {' · '.join(sizes)}", "dim"),
    )


def _safe(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would act upon."""
    shown = text.translate(_VISIBLE)
    return "".join(character if character.isprintable() else "\ufffd" for character in shown)
