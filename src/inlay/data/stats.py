"""What a store holds, and what its rows are made of under given options: the numbers behind `inlay inspect stats`.

**Effective FIM rate**: the share of examples that hold prefix, middle, suffix and terminator in one window. A prefix or
suffix may be empty only where the cut was at the text's own end; one that was trimmed away, or fell into another
window, does not count. The nominal rate is `fim.rate`.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from inlay.data.inspect import Shown, of_store, parts_of
from inlay.data.rows import Placed
from inlay.fim.format import FimFormat, Kind, Region
from inlay.fim.transform import FimConfig
from inlay.text.source import left_out_line
from inlay.text.store import TokenStore

if TYPE_CHECKING:
    from rich.console import Console

ROWS_LOOKED_AT = 200
TOP_NODES = 15
BORDERS = (0, 1, 2, 5, 9, 17, 33, 65, 129)
"""Lower borders of the histogram of middle lengths, in tokens."""
BAR = 40
QUANTILES = (0.1, 0.5, 0.9)
WHY = {
    "no syntax": "the document has no syntax",
    "no node": "no node fits the piece",
}


def is_effective(placed: Placed, form: FimFormat) -> bool:
    """Whether an example holds all three parts and its terminator in one window (see the module's text)."""
    example = placed.example
    if example.span is None or placed.parts > 1 or example.row.regions[-1] != Region.TERMINATOR:
        return False
    prefix, middle, suffix = parts_of(placed, form)
    start, end = example.span
    return len(middle) == end - start and bool(prefix or start == 0) and bool(suffix or end == placed.size)


def stats(place: str | Shown, overrides: list[str], rows_looked_at: int = ROWS_LOOKED_AT) -> dict[str, Any]:
    """Counts of a store, and of its first `rows_looked_at` rows: fill, rates, shares, middle lengths. `place`: a store,
    with `overrides`, or rows that are opened already, of a mixture those of one source.

    Shares are of examples; `strategies`, `node_kinds` and `orders` of FIM examples. Raises what opening rows raises.
    """
    shown = of_store(place, overrides) if isinstance(place, str) else place
    names = shown.rows.source_names
    rows = shown.part(names.index(shown.source) if shown.source is not None else 0)
    opened = TokenStore.open(rows.store_path, verify=False)
    transform = rows.maker.transform
    names = ("kinds", "languages", "strategies", "node_kinds", "fallbacks")
    count: dict[str, Counter[str]] = {name: Counter() for name in names}
    lengths: list[int] = []
    pieces: list[int] = []
    used = trimmed = effective = bare = contexts = examples = looked_at = 0
    for _, _, _, row in shown.walk(rows_looked_at):
        looked_at += 1
        for placed in row:
            example = placed.example
            examples += 1
            count["kinds"][Kind(example.row.kind).name.lower()] += 1
            count["languages"][rows.split.document(placed.document).language] += 1
            used += len(example.row.tokens) - 1
            pieces.append(placed.stop - placed.start)
            trimmed += example.trimmed
            effective += is_effective(placed, transform.format)
            contexts += len(placed.context)
            if example.strategy is None or example.row.regions[-1] != Region.TERMINATOR:
                continue  # plain text, or a window without the middle
            count["strategies"][example.strategy] += 1
            if example.fallback is not None:
                count["fallbacks"][example.fallback] += 1
            bare += example.span == (0, placed.size)
            if example.node_kind:
                count["node_kinds"][example.node_kind] += 1
            lengths.append(int(np.count_nonzero(example.row.regions == Region.MIDDLE)))
    kinds = count["kinds"]
    nodes = dict(count["node_kinds"].most_common(TOP_NODES))
    rest = sum(count["node_kinds"].values()) - sum(nodes.values())
    return {
        "splits": {
            name: {
                "documents": opened.split(name).document_count,
                "tokens": opened.split(name).token_count,
                "bytes": opened.split(name).byte_count,
            }
            for name in opened.splits
        },
        "split_languages": {
            name: _shares(Counter({one: counts["tokens"] for one, counts in split.get("languages", {}).items()}))
            for name, split in opened.manifest["splits"].items()
        },
        "left_out": {reason: entry["count"] for reason, entry in opened.manifest.get("dropped", {}).items()},
        "licences": dict(
            sum(map(Counter, (counts["licences"] for counts in opened.manifest["splits"].values())), Counter())
        ),
        "syntax": opened.manifest.get("syntax", {}),
        "level": transform.config.level,
        "rows_an_epoch": rows.plan(0).row_count,
        "rows_looked_at": looked_at,
        "examples_looked_at": examples,
        "fill": used / max(1, looked_at * rows.maker.length),
        "nominal_fim_rate": transform.config.rate,
        "effective_fim_rate": effective / max(1, examples),
        "kinds": _shares(kinds),
        "orders": _shares(Counter({name: number for name, number in kinds.items() if name != "l2r"})),
        "languages": _shares(count["languages"]),
        "strategies": _shares(count["strategies"]),
        "node_kinds": _shares(Counter({**nodes, "(other)": rest} if rest else nodes)),
        "nominal_strategies": _nominal(transform.config),
        "fallbacks": {reason: number / len(lengths) for reason, number in sorted(count["fallbacks"].items())},
        "middles_without_context": bare / max(1, len(lengths)),
        "middle_mean": float(np.mean(lengths)) if lengths else None,
        "middle_quantiles": [float(value) for value in np.quantile(lengths, QUANTILES)] if lengths else [],
        "piece_median": float(np.median(pieces)) if pieces else None,
        "context_files": contexts / max(1, examples),
        "trimmed_tokens_share": trimmed / max(1, used),
        "middle_tokens": _histogram(lengths),
    }


def print_stats(place: str | Shown, as_json: bool, overrides: list[str] | None = None) -> None:
    """Prints `stats`: tables for people, or one JSON object."""
    found = stats(place, overrides or [])
    if isinstance(place, Shown) and place.title is not None:
        print(place.title, file=sys.stderr)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False)
    _print_store(console, found)
    _print_rates(console, found)
    for title in ("kinds", "languages", "strategies", "node_kinds"):
        nominal = found["nominal_strategies"] if title == "strategies" else {}
        _print_shares(console, title.replace("_", " "), found[title], nominal)
    for reason, share in found["fallbacks"].items():
        console.print(f"{share:.1%} of the middles are lines or tokens in place of a node: {WHY[reason]}")
    if found["middle_quantiles"]:
        low, middle, high = (f"{value:g}" for value in found["middle_quantiles"])
        console.print(
            f"\na middle has {found['middle_mean']:.1f} tokens in the mean, {low} / {middle} / {high} at"
            f" {' / '.join(f'{part:.0%}' for part in QUANTILES)};\n"
            f"{found['middles_without_context']:.1%} of them are a whole piece"
            " (laws of lengths hold up to the room of a piece)",
        )
        console.print(
            f"half of the examples have at most {found['piece_median']:g} tokens of text: the shorter, the fewer\n"
            "nodes and the less room, so shares and mean differ from the nominal ones in brackets"
        )
    top = max(found["middle_tokens"].values())
    console.print("\nmiddles by length in tokens")
    for label, number in found["middle_tokens"].items():
        console.print(f"{label:>8}  {'█' * round(BAR * number / max(1, top))} {number:,}")


def _print_store(console: "Console", found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("split", box=None, pad_edge=False)
    for name in ("documents", "tokens", "bytes"):
        table.add_column(name, justify="right")
    for name, counts in found["splits"].items():
        table.add_row(name, *(f"{counts[key]:,}" for key in ("documents", "tokens", "bytes")))
    console.print(table)
    for name, shares in found["split_languages"].items():
        if len(shares) > 1:
            listed = ", ".join(f"{language} {share:.1%}" for language, share in shares.items())
            console.print(f"languages of {name}, by tokens: {listed}", markup=False)
    dropped = {reason: {"count": count} for reason, count in found["left_out"].items()}
    if left_out := left_out_line(dropped, sum(counts["documents"] for counts in found["splits"].values())):
        console.print(f"\n{left_out}", markup=False)
    if found["licences"]:
        most = sorted(found["licences"].items(), key=lambda item: -item[1])
        console.print("\nlicences: " + ", ".join(f"{name} {number:,}" for name, number in most), markup=False)
    if found["syntax"]:
        _print_syntax(console, found["syntax"])


def _print_syntax(console: "Console", syntax: dict[str, Any]) -> None:
    from rich.table import Table

    by_language = {name: counts for name, counts in syntax.items() if isinstance(counts, dict)}
    columns = ("documents", "parsed", "failed", "timed_out", "nodes")
    table = Table("syntax", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, counts in sorted(by_language.items()):
        table.add_row(name, *(f"{counts.get(key, 0):,}" for key in columns))
    if by_language:
        console.print()
        console.print(table)


def _print_rates(console: "Console", found: dict[str, Any]) -> None:
    context = f", {found['context_files']:.1f} other files in each" if found["level"] == "repository" else ""
    console.print(
        f"\n{found['rows_an_epoch']:,} rows an epoch at {found['level']} level; in the first"
        f" {found['rows_looked_at']:,}:\n"
        f"  {found['examples_looked_at']:,} examples{context}\n"
        f"  {found['fill']:.1%} of the slots filled, {found['trimmed_tokens_share']:.2%} of the tokens trimmed\n"
        f"  effective FIM rate {found['effective_fim_rate']:.1%}, nominal {found['nominal_fim_rate']:.1%}\n"
        "  (share of examples with prefix, middle, suffix and terminator in one window;\n"
        "  a part may be empty only where the cut was at the end of the text)"
    )


def _nominal(config: FimConfig) -> dict[str, float]:
    """The shares of the strategies as the configuration says them."""
    total = sum(strategy.weight for strategy in config.spans.values())
    return {name: strategy.weight / total for name, strategy in config.spans.items() if strategy.weight and config.rate}


def _print_shares(
    console: "Console", title: str, shares: dict[str, float], nominal: Mapping[str, float] = MappingProxyType({})
) -> None:
    if not shares:
        return
    widest = max(map(len, shares))
    console.print(f"\n{title}")
    for name, share in shares.items():
        said = f"({nominal[name]:.1%}) " if name in nominal else ""
        console.print(f"  {name:<{widest}} {share:>6.1%} {said}{'█' * round(BAR * share)}", markup=False)


def _shares(counts: Counter[str]) -> dict[str, float]:
    """Shares by falling count, then by name."""
    total = counts.total()
    return {name: number / total for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _histogram(lengths: list[int]) -> dict[str, int]:
    found = np.histogram(lengths, bins=[*BORDERS, 1 << 30])[0]
    labels = [f"{low}-{high - 1}" if high - low > 1 else str(low) for low, high in pairwise(BORDERS)]
    return dict(zip([*labels, f"{BORDERS[-1]}+"], found.tolist(), strict=True))
