"""Every command that a page, a help text or a comment of a YAML file tells its reader, and what it is made of.

A command is a line of an indented or fenced block, or words between backticks, that begins with the name of a program
of ours. Nothing is listed by hand: a command that is added to a page is found here.
"""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from inlay.cli import complete, export, judge, make, sweep
from inlay.cli import inspect as inspect_verbs

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
YAML = tuple(sorted((ROOT / "src" / "inlay" / "conf").rglob("*.yaml")))
VERBS = {
    "demo": make.demo,
    "prepare": make.prepare,
    "train": make.train,
    "sweep": sweep.sweep,
    "evaluate": judge.evaluate,
    "report": judge.report,
    "complete": complete.complete,
    "export": export.export,
    **{f"inspect {name}": getattr(inspect_verbs, name) for name in
       ("model", "optim", "plan", "rows", "stats", "spans", "formats")},
}  # fmt: skip
START = re.compile(
    r"(?:\$ )?(?:\.venv/bin/)?(inlay|torchrun|tensorboard|wandb|sbatch|pip|make|git|python3?)\s+(?!has\b|is\b|:)\S"
)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:inlay|torchrun|python -m|make) [^`]+)`")


class Command(NamedTuple):
    """A command and where it stands."""

    where: str
    text: str

    @property
    def words(self) -> list[str]:
        """As a shell reads it, without the comment behind it."""
        return shlex.split(self.text, comments=True)

    @property
    def inlay(self) -> list[str] | None:
        """What comes behind `inlay`; None for another program."""
        words = [word.removeprefix(".venv/bin/") for word in self.words if word != "$"]
        if words[0] == "inlay":
            return words[1:]
        if "-m" in words and words[words.index("-m") + 1 :][:1] == ["inlay"]:
            return words[words.index("-m") + 2 :]
        return None


def commands() -> list[Command]:
    """All of them, each text once a place."""
    found = [Command(path.relative_to(ROOT).as_posix(), text) for path in PAGES for text in of_page(path.read_text())]
    for path in YAML:
        comments = " ".join(line.partition("#")[2].strip() for line in path.read_text().splitlines())
        found += [Command(path.relative_to(ROOT).as_posix(), text) for text in INLINE.findall(comments)]
    for verb, function in VERBS.items():
        found += [Command(f"inlay {verb} --help", text) for text in of_help(inspect.getdoc(function) or "")]
    return list(dict.fromkeys(found))


def of_page(page: str) -> Iterator[str]:
    """Commands of a Markdown page."""
    fenced = False
    lines = iter(re.sub(r"<!-- generated: .*?<!-- end -->", "", page, flags=re.DOTALL).splitlines())
    for line in lines:
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and START.match(line.strip()):
            text = line.strip()
            while text.endswith("\\"):
                text = text.rstrip("\\ ") + " " + next(lines).strip()
            yield text
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(text.split()) for text in INLINE.findall(prose))


def of_help(text: str) -> Iterator[str]:
    """Commands in a docstring: from `inlay VERB` or `torchrun` to the end of the phrase."""
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.split())
        if line.startswith("Example"):
            pieces = re.split(r", (?=and |after |then )|; |: (?=inlay|torchrun)|, and |, then ", line)
            yield from (
                piece.partition(" (")[0].strip() for piece in pieces if re.match(r"(inlay|torchrun) ", piece.strip())
            )


def overrides_in_comments() -> list[Command]:
    """Overrides that a comment of a YAML file gives in quotes, with the group that the file belongs to."""
    found = []
    for path in YAML:
        for line in path.read_text().splitlines():
            for text in re.findall(r"'([\w.@+~]+=[^']+)'", line.partition("#")[2]):
                found.append(Command(path.relative_to(ROOT).as_posix(), text))
    return found
