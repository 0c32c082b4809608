"""The result of a sweep as a table (terminal, Markdown), plots (SVG) and one HTML page: `table.md`, `curves.svg`,
`rates.svg`, `sweep.html` beside it.

Cells are means over seeds; behind ± stands half the distance between the lowest and the highest seed. Differences to
the first arm are taken seed by seed, so that what a seed does to every arm alike drops out.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import escape

from inlay.config.files import write_together
from inlay.evaluate.charts import HEIGHT, WIDTH, Series, amount, line_chart
from inlay.evaluate.report_data import Point
from inlay.train.study_plot import STYLE, colour_rules, rates_svg
from inlay.train.study_words import rate_lines

TABLE, PLOT, RATES, PAGE = "table.md", "curves.svg", "rates.svg", "sweep.html"
LEGEND_WIDTH = 150
PAGE_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 76rem; padding: 0 .8rem; color: #222 }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
"""

Result = dict[str, Any]


def write_pages(folder: str | Path, result: Result) -> list[Path]:
    """Writes the table, the page and what plots `result` allows into `folder`; returns their paths."""
    place = Path(folder)
    pictures = {PLOT: svg(result), RATES: rates_svg(result)}
    contents = {TABLE: markdown(result), **pictures, PAGE: html(result, [*filter(None, pictures.values())])}
    written = {place / name: content for name, content in contents.items() if content is not None}
    write_together(written)
    for name in contents.keys() - {file.name for file in written}:
        (place / name).unlink(missing_ok=True)  # of an earlier result
    return list(written)


def columns(result: Result) -> list[str]:
    """The titles of the table's columns."""
    wanted = result["measures"]
    found = ["arm"]
    if "size" in wanted:
        found.append("parameters")
    if "loss" in wanted:
        found += ["l2r", f"l2r − {result['reference']}", "psm", "spm"]
    if "speed" in wanted:
        found.append("train tokens/s")
    if "size" in wanted:
        found.append(f"K/V bytes/token at {result['context']:,}")
    if "decode" in wanted:
        found.append("decode tokens/s")
    return found


def rows(result: Result) -> list[list[str]]:
    """The cells of the table, an arm a row."""
    wanted = result["measures"]
    reference = next(arm for arm in result["arms"] if arm["name"] == result["reference"])
    found = []
    for arm in result["arms"]:
        cells = [arm["name"]]
        if "size" in wanted:
            cells.append(f"{arm['parameters']:,}" if "parameters" in arm else "")
        if "loss" in wanted:
            differences = list(_differences(arm, reference, "l2r"))
            cells += [
                _spread(_losses(arm, "l2r"), 3)
                or next((state for state in ("diverged", "pruned") if arm.get(state)), ""),
                _spread(differences, 3, sign=True) if arm is not reference else "",
            ]
            cells += [_spread(_losses(arm, kind), 3) for kind in ("psm", "spm")]
        if "speed" in wanted:
            cells.append(_spread([run["tokens_per_second"] for run in arm["runs"] if run["tokens_per_second"]], 0))
        if "size" in wanted:
            cells.append(_bytes(arm.get("cache_bytes"), reference.get("cache_bytes")))
        if "decode" in wanted:
            decode = arm.get("decode")
            cells.append(f"{decode['median']:,.0f} ({decode['low']:,.0f}-{decode['high']:,.0f})" if decode else "")
        found.append(cells)
    return found


def notes(result: Result) -> list[str]:
    """What a reader of the table has to know, a sentence each, and every run that failed."""
    tokens = sorted({run["tokens"] for arm in result["arms"] for run in arm["runs"] if run["tokens"]})
    machine = result["machine"]
    loads = [run["load_before"] for arm in result["arms"] for run in arm["runs"] if run.get("load_before") is not None]
    found = [
        f"Seeds: {len(result['seeds'])}; tokens a run: {' or '.join(f'{count:,}' for count in tokens)}. Losses in nats"
        " per token of the same held-out rows; ± is half the distance between the lowest and the highest seed.",
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"
        + (f"; load before a run {min(loads):.1f} to {max(loads):.1f}." if loads else "."),
    ]
    if "decode" in result["measures"]:
        found.append(
            "Decoding: one row in fp32, greedy, with the cache, arms interleaved; median (lowest-highest) of rounds."
        )
    for arm in result["arms"]:
        if seeds := arm.get("pruned"):
            found.append(f"{arm['name']} was stopped early by the search, with seed {', '.join(map(str, seeds))}.")
    return found + [f"{folder} failed: {reason}" for folder, reason in result["failed"].items()]


def markdown(result: Result) -> str:
    """The table and its notes as Markdown."""
    titles = columns(result)
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' + '---:|' * (len(titles) - 1)}"]
    lines += [f"| {' | '.join([f'`{cells[0]}`', *cells[1:]])} |" for cells in rows(result)]
    for curve in result.get("rates", []):
        lines += ["", *rate_lines(curve, markdown=True)]
    return "\n".join([*lines, "", *notes(result)]) + "\n"


def html(result: Result, pictures: list[str]) -> str:
    """The table, the plots and the learning-rate curves on one page without scripts."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>sweep {escape(result['name'])}</title><style>{PAGE_STYLE}</style></head><body>",
        f"<h1>sweep {escape(result['name'])}</h1>",
        _html_table(columns(result), rows(result)),
    ]
    parts += [f"<p>{escape(line)}</p>" for line in notes(result)]
    # The colours of one picture must not reach into the next one: each stands in a frame of its own.
    parts += [f'<div class="wide"><img alt="plot" src="{_data_uri(picture)}"></div>' for picture in pictures]
    for curve in result.get("rates", []):
        parts.append(f"<pre>{escape(chr(10).join(rate_lines(curve)))}</pre>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_table(titles: list[str], cells: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _data_uri(picture: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def print_result(result: Result) -> None:
    """Prints the table and its notes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    # Nine columns of numbers in 80 characters: what stands behind a number goes below it.
    table = Table(title=f"sweep {result['name']}", title_justify="left", box=SIMPLE, padding=(0, 0))
    titles = columns(result)
    for number, title in enumerate(titles):
        least = 6 if number else max(len(arm["name"]) for arm in result["arms"])
        short = title.replace("parameters", "params").replace(" − ", " −\n")
        short = short.replace(" at ", "\nat ").replace(" bytes/", "\nbytes\n/").replace(" tokens", "\ntokens")
        table.add_column(short, justify="right" if number else "left", min_width=least)
    for cells in rows(result):
        shown = [cell.replace(" ±", "\n±").replace(" (", "\n(") for cell in cells]
        if "parameters" in titles and (parameters := shown[titles.index("parameters")]):
            shown[titles.index("parameters")] = amount(int(parameters.replace(",", "")))
        table.add_row(*shown)
    console = Console(highlight=False)
    console.print(table)
    for curve in result.get("rates", []):
        print("\n".join(rate_lines(curve)), end="\n\n")
    for line in notes(result):
        console.print(line, markup=False)


def svg(result: Result) -> str | None:
    """The plot: left-to-right validation loss against tokens, and its difference to the first arm; None without curves.

    A line is the mean over the seeds of an arm.
    """
    curves = {arm["name"]: _mean_curve(arm) for arm in result["arms"]}
    reference = dict(curves.get(result["reference"], []))
    if not reference:
        return None
    colours = {name: number for number, name in enumerate(curves)}
    absolute = [Series(name, points, colours[name]) for name, points in curves.items()]
    relative = [
        Series(name, [(x, y - reference[x]) for x, y in points if x in reference], colours[name])
        for name, points in curves.items()
    ]
    panels = [
        line_chart("held-out loss", "left to right, nats per token", absolute),
        line_chart("difference", f"left to right, minus {result['reference']}, nats per token", relative),
    ]
    drawn = [panel for panel in panels if panel is not None]
    if len(drawn) < len(panels):
        return None
    width, height = 2 * WIDTH + LEGEND_WIDTH, max(HEIGHT, 24 + 18 * len(curves)) + 26
    rules = colour_rules(colours.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(result["name"])}">',
        f"<style>{STYLE}{rules}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(drawn):
        x = number * WIDTH
        parts.append(f'<text class="title" x="{x + 10}" y="16">{escape(panel.title)}</text>')
        placed = f'<svg x="{x}" y="24" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(str(panel.svg).replace("<svg ", placed, 1))
    for name, number in colours.items():
        if curves[name]:
            x, y = 2 * WIDTH + 12, 40 + 18 * number
            parts.append(f'<line class="line c{number}" x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}"/>')
            parts.append(f'<text x="{x + 24}" y="{y}">{escape(name)} {curves[name][-1][1]:.3f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _losses(arm: dict[str, Any], kind: str) -> list[float]:
    return [run["loss"][kind] for run in arm["runs"] if kind in run["loss"]]


def _differences(arm: dict[str, Any], reference: dict[str, Any], kind: str) -> Iterator[float]:
    """The loss of each seed minus that of the reference with the same seed."""
    expected = {run["seed"]: run["loss"][kind] for run in reference["runs"] if kind in run["loss"]}
    for run in arm["runs"]:
        if kind in run["loss"] and run["seed"] in expected:
            yield run["loss"][kind] - expected[run["seed"]]


def _mean_curve(arm: dict[str, Any]) -> list[Point]:
    """The mean over seeds of the left-to-right curve, where all seeds have been measured."""
    seeds = [dict(map(tuple, run.get("curves", {}).get("l2r", []))) for run in arm["runs"]]
    if not seeds:
        return []
    common = sorted(set.intersection(*map(set, seeds)))
    return [(x, sum(seed[x] for seed in seeds) / len(seeds)) for x in common]


def _bytes(held: float | None, full: float | None) -> str:
    if held is None:
        return ""
    return f"{held:,.0f}" if full is None else f"{held:,.0f} ({held / full:.0%})"


def _spread(values: list[float], digits: int, *, sign: bool = False) -> str:
    """The mean, and half the distance between the lowest and the highest where there are several."""
    if not values:
        return ""
    mean = sum(values) / len(values)
    text = f"{mean:{'+' if sign else ''},.{digits}f}"
    return text if len(values) == 1 else f"{text} ±{(max(values) - min(values)) / 2:,.{digits}f}"
