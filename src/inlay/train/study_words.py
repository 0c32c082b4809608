"""A learning-rate curve and its transfer in words and small tables, for the terminal, Markdown and the page."""

import statistics
from typing import Any

from inlay.evaluate.charts import amount


def rate_lines(curve: dict[str, Any], *, markdown: bool = False) -> list[str]:
    """The curve, what was read from it, and what it means for the target; a line each, tables among them."""
    name = f" of {curve['arm']}" if curve["arm"] else ""
    title = f"learning-rate curve{name} ({curve['option']}, {curve['metric']})"
    lines = [f"### {title}", ""] if markdown else [title]
    lines += _table(["rate", "loss", "seeds", "spread", ""], _curve_rows(curve), markdown)
    if curve["refused"]:
        return [*lines, f"no rate is suggested: {curve['refused']}"]
    reading = curve["reading"]
    sigma = "not known" if reading["sigma"] is None else f"{reading['sigma']:.4f}"
    lines += [
        f"best measured: {reading['best']:.3g}, loss {reading['best_loss']:.4f}; deviation between seeds {sigma}",
        f"flat part (within {reading['tolerance']:.4f} of the best): {reading['low']:.3g} to {reading['high']:.3g}",
        f"chosen, its middle: {reading['chosen']:.3g}{_vertex(reading)}",
    ]
    lines += [f"warning: {line}" for line in reading["warnings"]]
    if curve["transfer"] is not None:
        lines += ["", *transfer_lines(curve["transfer"], curve, markdown=markdown)]
    return lines


def transfer_lines(found: dict[str, Any], curve: dict[str, Any], *, markdown: bool = False) -> list[str]:
    """The transfer of a curve: both set-ups, each rate with each factor, the overrides, the runs that check it."""
    proxy, target = found["proxy"], found["target"]
    title = f"transfer to {target['name']}"
    lines = [f"### {title}", ""] if markdown else [title]
    sizes = [
        [what, shown(proxy[key]), shown(target[key]), f"x{target[key] / proxy[key]:.3g}"]
        for what, key, shown in (
            ("width d", "width", str),
            ("layers", "layers", str),
            ("parameters (no tables)", "parameters", amount),
            ("tokens a step B", "tokens_per_step", amount),
            ("tokens D", "tokens", amount),
        )
    ]
    lines += _table(["", "proxy", "target", "ratio"], sizes, markdown)
    lines.append(f"tokens a step by the rule ∝ D^0.383 (2505.13738): {found['batch_rule']:,}")
    lines.append("")
    causes = list(dict.fromkeys(factor["cause"] for entry in found["quantities"] for factor in entry["factors"]))
    rows = []
    for entry in found["quantities"]:
        factors = {factor["cause"]: factor for factor in entry["factors"]}
        cells = [
            f"{factors[cause]['value']:.3g} ({factors[cause]['rule']})" if cause in factors else "" for cause in causes
        ]
        rows.append([entry["option"], f"{entry['proxy']:.3g}", *cells, f"{entry['target']:.3g}"])
    lines += _table(["option", "proxy", *causes, "target"], rows, markdown)
    sources: dict[str, None] = {}
    for entry in found["quantities"]:
        for factor in entry["factors"]:
            sources[f"{entry['what']}, {factor['cause']} {factor['rule']}: {factor['source']}"] = None
    lines += [f"source: {line}" for line in sources]
    lines += [f"warning: {line}" for line in found["warnings"]]
    check = found["check"]
    rest = [text for text in found["overrides"] if not text.startswith((f"{check['option']}=", "train.tokens="))]
    rates = ",".join(f"{rate:g}" for rate in check["rates"])
    command = [
        "suggested, to be added to inlay train data.path=STORE:",
        f"  {' '.join(found['overrides'])}",
        f"check it with short runs of the target at x0.7, x1 and x1.4 ({amount(check['tokens'])} tokens each):",
        f"  inlay sweep 'grid={{{check['option']}:[{rates}]}}' data.path=STORE {' '.join(rest)}"
        f" train.tokens={check['tokens']}",
    ]
    return [*lines, *(["```", *command, "```"] if markdown else command)]


def _curve_rows(curve: dict[str, Any]) -> list[list[str]]:
    fitted = {rate["value"]: rate["loss"] for rate in curve["reading"]["rates"]} if curve["reading"] else {}
    rows = []
    for rate in dict.fromkeys(point["rate"] for point in curve["points"]):
        mine = [point for point in curve["points"] if point["rate"] == rate]
        losses = [point["loss"] for point in mine if point["loss"] is not None]
        loss = fitted.get(rate) if fitted.get(rate) is not None else (statistics.fmean(losses) if losses else None)
        spread = f"±{(max(losses) - min(losses)) / 2:.4f}" if len(losses) > 1 else ""
        states = sorted({point["state"] for point in mine} - {"complete"})
        shown = "diverged" if loss is None else f"{loss:.4f}"
        rows.append([f"{rate:g}", shown, str(len(mine)), spread, " ".join(states) if loss is not None else ""])
    return rows


def _vertex(reading: dict[str, Any]) -> str:
    if reading["vertex"] is None:
        return ""
    error = reading["vertex_error"]
    spread = "" if error is None else f" (times or over {2.0**error:.2f})"
    return f"; the vertex of a parabola: {reading['vertex']:.3g}{spread}"


def _table(titles: list[str], rows: list[list[str]], markdown: bool) -> list[str]:
    """Columns in equal width, the first to the left; in Markdown with its bars and an empty line behind."""
    if markdown:
        lines = [f"| {' | '.join(titles)} |", f"|{'---|' + '---:|' * (len(titles) - 1)}"]
        return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
    widths = [max(len(row[place]) for row in [titles, *rows]) for place in range(len(titles))]
    return [
        "  " + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [titles, *rows]
    ]  # fmt: skip
