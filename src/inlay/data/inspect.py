"""Rows as people read them: which text is prefix, suffix and middle, what is trained, where documents break.

It shows the very rows that training reads under the same options, and refuses options and stores that training would.
"""

import json
import sys
from itertools import pairwise
from typing import Any

import numpy as np

from inlay.config import Config, validate
from inlay.config.compose import compose, quoted
from inlay.data.loader import Rows
from inlay.data.rows import Placed
from inlay.fim.format import Kind, Region
from inlay.fim.transform import FimConfig
from inlay.text.store import TokenStore

STYLES = {
    Region.TEXT: "",
    Region.PREFIX: "cyan",
    Region.SUFFIX: "blue",
    Region.MIDDLE: "bold black on green",
    Region.SENTINEL: "bold magenta",
    Region.TERMINATOR: "bold red",
}


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


def print_rows(store: str, count: int, as_json: bool, overrides: list[str]) -> None:
    """Prints the first `count` rows of epoch 0: coloured text, or one JSON object an example."""
    TokenStore.open(store)
    rows = open_rows(store, overrides)
    plan = rows.plan(0)
    for number in range(min(count, plan.row_count)):
        examples = rows.maker.examples(plan, 0, number)
        if as_json:
            for placed in examples:
                sys.stdout.write(json.dumps(describe(rows, number, placed)) + "\n")
        else:
            _print_row(rows, number, examples)


def describe(rows: Rows, number: int, placed: Placed) -> dict[str, Any]:
    """One example as plain data: whose text it is, its kind and its three parts."""
    info = rows.split.document(placed.document)
    row = placed.example.row
    tokenizer = rows.maker.transform.format.tokenizer

    def text(region: Region) -> str:
        return tokenizer.decode(row.tokens[row.regions == region].tolist())

    parts = {"prefix": text(Region.PREFIX), "middle": text(Region.MIDDLE), "suffix": text(Region.SUFFIX)}
    if row.kind == Kind.L2R:
        parts = {"prefix": text(Region.TEXT), "middle": "", "suffix": ""}
    return {
        "row": number,
        "doc_id": info.id,
        "path": info.path,
        "language": info.language,
        "kind": Kind(row.kind).name.lower(),
        "span_kind": placed.example.strategy,
        "level": "context",
        **parts,
        "trimmed": placed.example.trimmed,
        "tokens": row.tokens.tolist(),
    }


def _print_row(rows: Rows, number: int, examples: list[Placed]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    console = Console()
    tokenizer = rows.maker.transform.format.tokenizer
    used = sum(len(placed.example.row.tokens) - 1 for placed in examples)
    console.rule(f"row {number} · {len(examples)} examples · {used} of {rows.maker.length} slots")
    for placed in examples:
        info = rows.split.document(placed.document)
        row = placed.example.row
        kind = Kind(row.kind).name.lower()
        how = f"{kind} · {placed.example.strategy}" if placed.example.strategy else kind
        origin = escape(f"{info.repo} · {info.path}")  # paths may hold brackets
        console.print(f"[dim]{origin} · tokens {placed.start}-{placed.stop} · {how}[/dim]", highlight=False)
        text = Text()
        borders = [0, *(np.flatnonzero(np.diff(row.regions)) + 1).tolist(), len(row.tokens)]
        for begin, end in pairwise(borders):
            region = Region(int(row.regions[begin]))
            text.append(tokenizer.decode(row.tokens[begin:end].tolist()), STYLES[region])
        console.print(text)


def stats(store: str, overrides: list[str], rows_looked_at: int = 200) -> dict[str, Any]:
    """What a store holds and what its rows look like: counts, fill, effective FIM rate, kinds, middle lengths."""
    opened = TokenStore.open(store)
    rows = open_rows(store, overrides)
    plan = rows.plan(0)
    kinds: dict[str, int] = {}
    strategies: dict[str, int] = {}
    lengths: list[int] = []
    used = trimmed = 0
    looked_at = min(rows_looked_at, plan.row_count)
    for number in range(looked_at):
        for placed in rows.maker.examples(plan, 0, number):
            row = placed.example.row
            kind = Kind(row.kind).name.lower()
            kinds[kind] = kinds.get(kind, 0) + 1
            used += len(row.tokens) - 1
            trimmed += placed.example.trimmed
            if placed.example.strategy:
                strategies[placed.example.strategy] = strategies.get(placed.example.strategy, 0) + 1
                lengths.append(int((row.regions == Region.MIDDLE).sum()))
    total = sum(kinds.values())
    borders = (0, 1, 2, 5, 9, 17, 33, 65, 129)
    histogram = np.histogram(lengths, bins=[*borders, 1 << 30])[0]
    labels = [f"{low}-{high - 1}" if high - low > 1 else str(low) for low, high in pairwise(borders)]
    return {
        "splits": {
            name: {
                "documents": opened.split(name).document_count,
                "tokens": opened.split(name).token_count,
                "bytes": opened.split(name).byte_count,
            }
            for name in opened.splits
        },
        "rows_an_epoch": plan.row_count,
        "rows_looked_at": looked_at,
        "fill": used / (looked_at * rows.maker.length),
        "effective_fim_rate": 1.0 - kinds.get("l2r", 0) / total,
        "kinds": {name: count / total for name, count in sorted(kinds.items())},
        "strategies": {name: count / max(1, sum(strategies.values())) for name, count in sorted(strategies.items())},
        "trimmed_tokens_share": trimmed / max(1, used),
        "middle_tokens": dict(zip([*labels, f"{borders[-1]}+"], histogram.tolist(), strict=True)),
    }


def print_stats(store: str, as_json: bool, overrides: list[str] | None = None) -> None:
    """Prints `stats`."""
    found = stats(store, overrides or [])
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("split", "documents", "tokens", "bytes")
    for name, counts in found["splits"].items():
        table.add_row(name, *(f"{counts[key]:,}" for key in ("documents", "tokens", "bytes")))
    console.print(table)
    console.print(
        f"{found['rows_an_epoch']:,} rows an epoch, {found['fill']:.1%} filled; "
        f"effective FIM rate {found['effective_fim_rate']:.1%}; "
        f"{found['trimmed_tokens_share']:.2%} of the tokens trimmed (of the first {found['rows_looked_at']} rows)",
        highlight=False,
    )
    for title, shares in (("kinds", found["kinds"]), ("spans", found["strategies"])):
        console.print(
            f"{title}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()), highlight=False
        )
    top = max(found["middle_tokens"].values() or [1])
    for label, count in found["middle_tokens"].items():
        console.print(f"{label:>8} tokens {'█' * round(40 * count / max(1, top))} {count}", highlight=False)
