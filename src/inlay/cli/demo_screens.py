"""What `inlay demo` shows: before, what will happen; after, an infill as an editor shows it, what the model can do, and
commands to go on with.

Everything fits 80 columns. Characters that the terminal's encoding has not are replaced, never an error, and what
colour says is also said by signs: ghost text stands between << and >> where there is no colour.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 2
"""Infills printed at the end: the first one-word gaps of the fixed list, right or wrong."""
BEFORE, AFTER = 3, 2
"""Lines around a gap."""
LONGEST_EXAMPLE = 60
"""Characters of the line that is offered for `inlay complete`."""
MARKER = "<CURSOR>"


def program() -> str:
    """How this program is called in a command that can be copied."""
    if shutil.which("inlay"):
        return "inlay"
    command = Path(sys.argv[0])
    return shlex.quote(str(command)) if command.name == "inlay" else f"{shlex.quote(sys.executable)} -m inlay"


def first_screen(path: str, code: str, minutes: float | None, slow: str | None, options: Sequence[str]) -> list[str]:
    """What will happen. `minutes` of training, None when steps or tokens bound it; `slow`: why training will be slower
    than it could be; `options` of the command line that goes on after a stop."""
    training = f"{minutes:g} min" if minutes is not None else "as configured"
    lines = [
        "inlay demo: from code to a model that fills gaps in it, on this machine",
        "",
        "  step          what                                                 takes about",
        f"  1 prepare     read the code, make a tokenizer and a token store    {'1 min'}",
        f"  2 train       a small model from nothing                           {training}",
        f"  3 evaluate    fill gaps in code that it has not seen               {'1 to 2 min'}",
        f"  4 report      one page with curves, scores and samples             {'seconds'}",
        "",
        f"  code:         {code}",
        f"  writes to:    {path} (nothing else; delete it to be rid of everything)",
        "  stop:         Ctrl-C, at any time",
        f"  go on:        {program()} demo {shlex.join(options)}",
    ]
    return [*lines, f"  note:         {slow}", ""] if slow else [*lines, ""]


def there_screen(path: str, report: str, out: Sequence[str]) -> list[str]:
    """A demo that is complete is there already."""
    name = program()
    return [
        f"{path} is there, and complete: nothing was done.",
        f"  look:         {name} report {shlex.quote(path)}    (the page is {report})",
        f"  score again:  {name} evaluate {shlex.quote(path)}",
        f"  anew:         {name} demo {shlex.join([*out, '--new'])}    (goes to a new folder beside it)",
        "  with make:    make demo DEMO_ARGS=--new",
    ]


def terminal(file: IO[str] | None = None) -> "Console":
    """A console that replaces what its encoding has not, and never wraps words into other lines of code."""
    from rich.console import Console

    stream = file or sys.stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return Console(file=stream, highlight=False, soft_wrap=True, markup=False)


def infill_lines(sample: Mapping[str, Any], console: "Console") -> "list[Any]":
    """A filled gap as an editor shows it: its file, lines around it with the ghost text in place, and a verdict."""
    from rich.text import Text

    head = "".join(sample["prefix"].splitlines(keepends=True)[-BEFORE:])
    tail = "".join(sample["suffix"].splitlines(keepends=True)[:AFTER]).rstrip("\r\n")
    plain = console.color_system is None or console.no_color
    ghost = f"<<{sample['middle']}>>" if plain else sample["middle"]
    text = Text(_clean(head))
    text.append(_clean(ghost), "bold green" if sample["exact"] else "bold yellow")
    text.append(_clean(tail))
    width = min(console.width, 80)
    title = Text(f"+-- {_clean(sample['path'])} "[: width - 1].ljust(width - 1, "-"), "dim")
    lines = [title]
    for line in text.split("\n", allow_blank=True):
        line.truncate(width - 3, overflow="crop")
        lines.append(Text.assemble(("| ", "dim"), line))
    verdict = "as the author wrote it" if sample["exact"] else f"the author wrote {_short(sample['gold'])}"
    lines.append(Text(f"+-- the model fills {_short(sample['middle'])}: {verdict}", "dim"))
    lines[-1].truncate(width, overflow="crop")
    return lines


def what_it_can(result: Mapping[str, Any]) -> str:
    """One sentence from the measured scores of the first order that was evaluated."""
    row = next(iter(result["metrics"]))
    overall, kinds = result["metrics"][row], result["slices"][row].get("category", {})

    def share(scores: Mapping[str, Any], name: str) -> float | None:
        return (scores.get(name) or {}).get("value")

    stops = share(overall, "stopped")
    found = []
    for kind, title in (("word", "one-word gaps"), ("line_end", "rests of a line"), ("line", "whole lines")):
        value = share(kinds.get(kind, {}), "exact")
        if value is not None:
            found.append(f"{value:.0%} of {title}")
    said = [f"it fills {', '.join(found)} exactly as the author did"] if found else []
    said += [f"stops by itself in {stops:.0%} of the gaps"] if stops is not None else []
    return (
        f"On code that it has not seen {' and '.join(said)}; the rest it gets wrong."
        if said
        else "Nothing was measured."
    )


def example_line(samples: Sequence[Mapping[str, Any]]) -> str | None:
    """A line of the held-out code itself with a cursor in it, so that it is of the corpus's language; None where no
    line can stand between single quotes in a shell."""
    for sample in samples:
        before = sample["prefix"].rpartition("\n")[2].lstrip()
        after = sample["suffix"].partition("\n")[0].rstrip()
        line = f"{before}{MARKER}{after}"
        simple = line.isascii() and line.isprintable() and not set(line) & set("'\\") and line.count(MARKER) == 1
        if simple and not before.startswith("-") and 8 <= len(line) - len(MARKER) <= LONGEST_EXAMPLE and before:
            return line
    return None


def next_commands(path: str, store: str, corpus: str | None, minutes: float, line: str | None) -> list[str]:
    """Three commands that run as they stand."""
    name, run = program(), shlex.quote(path)
    first = f"echo '{line}' | {name} complete {run}" if line else f"{name} evaluate {run} --limit 20"
    longer = f"{name} demo --new --minutes {4 * minutes:g}" + (f" --corpus {shlex.quote(corpus)}" if corpus else "")
    own = longer if corpus else f"{name} demo --corpus . --minutes 10 --out runs/mine"
    return [first, f"{name} inspect rows {shlex.quote(store)} --count 2", own]


def last_screen(
    result: Mapping[str, Any],
    path: str,
    store: str,
    report: str,
    corpus: str | None,
    minutes: float,
    seconds: float,
    console: "Console | None" = None,
) -> None:
    """Prints the end of a demo."""
    console = console or terminal()
    samples = result.get("samples", [])
    words = [sample for sample in samples if sample["category"] == "word"] or list(samples)
    console.print(f"\nThe first {len(words[:SHOWN])} one-word gaps of the held-out list, right or wrong:")
    for sample in words[:SHOWN]:
        for line in infill_lines(sample, console):
            console.print(line)
    console.print()
    for line in _wrapped(what_it_can(result)):
        console.print(line)
    console.print(f"Done in {seconds / 60:.1f} minutes. The report: {report}\nNext:")
    for command in next_commands(path, store, corpus, minutes, example_line(samples)):
        console.print(f"  {command}")


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\t", "    ").replace("\x1b", "?").replace("\r", "\n")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 30 else f"{shown[:26]}...{shown[0]}"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 79)
