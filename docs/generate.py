"""Writes the worked examples of docs/fim.md: what stands between its markers is what the code makes of a small corpus.

    python docs/generate.py            writes the file anew
    python docs/generate.py --check    only says whether it is up to date

A test runs the check, so an example that the code no longer makes cannot stay on the page.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from inlay.data.level import Placed
from inlay.data.loader import Rows
from inlay.fim.draws import Draws
from inlay.fim.family import all_families
from inlay.fim.format import FimFormat, Region
from inlay.fim.length import LengthLaw, lengths
from inlay.fim.show_formats import MIDDLE, OTHER, PATH, PREFIX, REPOSITORY, SUFFIX
from inlay.fim.span import Span, SpanStrategy, Syntax, TextView, strategies
from inlay.fim.splice import Splicer
from inlay.fim.transform import FimConfig, Transform
from inlay.text.document import document
from inlay.text.syntax import parse
from inlay.text.tokenizer import Tokenizer
from inlay.text.writer import StoreWriter

PAGE = Path(__file__).parent / "fim.md"
FILES = {
    "shapes/constants.py": "pi = 3.14159\ntau = 2 * pi\n",
    "shapes/circle.py": "from shapes.constants import pi\n\n\ndef area(radius):\n    return pi * radius**2\n",
    "tools/show.py": (
        "from shapes.circle import area\n\n\ndef show(radius):\n    text = str(area(radius))\n    print(text)\n"
    ),
}
"""One repository. Its tokenizer is trained on it, so a token is a word or less."""
TEXT = FILES["tools/show.py"]
LONGEST = 60
"""Bytes of a middle that is shown."""
BUCKETS = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 100))


def formats() -> str:
    """The registry."""
    lines = ["| family | orders, its own first | begins with | a middle ends with | repository form | line hints |"]
    lines.append("|---|---|---|---|---|---|")
    for name, family in all_families().items():
        cells = [
            f"`{name}`",
            ", ".join(family.orders),
            code(family.bos),
            code(family.terminator),
            "yes" if family.repository else "",
            "yes" if family.hint_start else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def orders() -> str:
    """One example in every order, as the literal string of its tokens."""
    tokenizer = make_tokenizer()
    blocks = []
    for order in ("psm", "spm", "spm_v2", "spm_joint"):
        form = FimFormat.load("inlay", tokenizer)
        row = form.render(*map(tokenizer.encode, (PREFIX, MIDDLE, SUFFIX)), order)
        blocks.append(f"{order:<10} {visible(tokenizer.decode(row.tokens.tolist()))}")
    open_order = "<s>[SUFFIX]" + SUFFIX + "[PREFIX]" + PREFIX + MIDDLE + "</s>"
    blocks.append(f"{'spm_open':<10} {visible(open_order)}")
    hinted = FimFormat.load("inlay", tokenizer).render(
        *map(tokenizer.encode, ("def area(radius):\n", "    return " + MIDDLE, SUFFIX)),
        "spm",
        hints=(tokenizer.encode("    return "), tokenizer.encode("")),
    )
    blocks.append(f"{'hints':<10} {visible(tokenizer.decode(hinted.tokens.tolist()))}")
    return fenced("\n".join(blocks))


def repository() -> str:
    """The same example behind another file of its repository."""
    tokenizer = make_tokenizer()
    form = FimFormat.load("inlay", tokenizer)
    header = form.repository(REPOSITORY, [(OTHER[0], tokenizer.encode(OTHER[1]))], PATH)
    row = form.render(*map(tokenizer.encode, (PREFIX, MIDDLE, SUFFIX)), "spm", header)
    return fenced(visible(tokenizer.decode(row.tokens.tolist())))


def levels() -> str:
    """A row of each level."""
    told = []
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store")
        for level, length in (("context", 64), ("document", 32), ("repository", 112)):
            fim = FimConfig(
                rate=1.0,
                level=level,
                orders={"psm": 1.0},
                spans={"any": strategies.get("sized")(length=law("fixed", 5))},
            )
            rows = Rows(str(Path(folder) / "store"), "train", fim, length, 4, None)
            plan = rows.plan(0)
            if level == "document":
                found = [p for r in range(plan.row_count) for p in rows.maker.examples(plan, 0, r) if p.parts > 1]
                windows = sorted((p for p in found if p.document == found[0].document), key=lambda p: p.part)
                shown = "\n".join(f"window {p.part + 1} of {p.parts}: {told_of(rows, p)}" for p in windows)
            else:
                examples = [rows.maker.examples(plan, 0, r) for r in range(plan.row_count)]
                best = max(examples, key=lambda row: sum(len(p.example.row.tokens) for p in row))
                shown = "\n".join(f"example {n + 1}: {told_of(rows, p)}" for n, p in enumerate(best))
            told.append(f"`fim.level={level}`, rows of {length} tokens:\n\n{fenced(shown)}")
    return "\n\n".join(told)


def cuts() -> str:
    """A span or two of each strategy in one text."""
    tokenizer = make_tokenizer()
    parsed = parse(TEXT.encode(), "python")
    assert parsed is not None
    view = TextView(tokenizer, tokenizer.encode_array(TEXT), Syntax(parsed.nodes, parsed.kinds))
    lines = []
    for name in sorted(strategies.members()):
        strategy = strategies.get(name)()
        assert isinstance(strategy, SpanStrategy)
        drawn = [strategy.draw(view, Draws("docs", name, number)) for number in range(20)]
        for start, end in distinct(drawn):
            before = view.window(max(0, start - 14), start).decode()
            after = view.window(end, min(view.size, end + 14)).decode()
            lines.append(f"{name:<12} {visible(before)}⟦{visible(view.window(start, end).decode())}⟧{visible(after)}")
    return fenced("\n".join(lines))


def distinct(drawn: list[Span | None], count: int = 2) -> list[Span]:
    """The first few different spans that are short enough to be shown."""
    return list(dict.fromkeys(span for span in drawn if span is not None and span[1] - span[0] <= LONGEST))[:count]


def laws() -> str:
    """How often each law gives a length, by drawing."""
    names = [name for name in sorted(lengths.members()) if name != "fixed"]
    lines = [f"| tokens | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    draws = {name: np.array([law(name).draw(Draws("docs", name, n)) for n in range(20_000)]) for name in names}
    for low, high in BUCKETS:
        shares = [float(((found >= low) & (found <= high)).mean()) for found in draws.values()]
        label = str(low) if low == high else f"{low} to {high}"
        lines.append(f"| {label} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return "\n".join(lines)


def splicing() -> str:
    """What is copied and what is encoded for one cut."""
    tokenizer = make_tokenizer()
    view = TextView(tokenizer, tokenizer.encode_array(TEXT))
    start = TEXT.index("str(area") + 2
    end = TEXT.index("print") + 3
    parts = Splicer(tokenizer).cut(view, start, end)

    def tokens(ids: np.ndarray) -> str:
        return "|".join(visible(tokenizer.decode([token])) for token in ids.tolist())

    whole = tokens(view.tokens)
    named = (("document", whole), ("prefix", tokens(parts.prefix)), ("middle", tokens(parts.middle)))
    return fenced("\n".join(f"{name:<9} {text}" for name, text in (*named, ("suffix", tokens(parts.suffix)))))


def fit() -> str:
    """One piece in ever less room."""
    tokenizer = make_tokenizer()
    form = FimFormat.load("inlay", tokenizer)
    spans = {"any": strategies.get("sized")(length=law("fixed", 4))}
    transform = Transform(FimConfig(rate=1.0, orders={"psm": 1.0}, spans=spans), form)
    ids, lines = tokenizer.encode_array(TEXT), []
    for capacity in (100, 30, 14, 6):
        example = transform(ids, capacity, Draws("docs", 11))
        lines.append(f"{capacity:>3} tokens: {visible(tokenizer.decode(example.row.tokens.tolist()))}")
    return fenced("\n".join(lines))


SECTIONS: dict[str, Callable[[], str]] = {
    "formats": formats,
    "orders": orders,
    "repository": repository,
    "levels": levels,
    "cuts": cuts,
    "laws": laws,
    "splicing": splicing,
    "fit": fit,
}


def render(page: str) -> str:
    """`page` with every generated section made anew. Raises ValueError when a section is missing."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"docs/fim.md has no section '{name}'")
        made = make()
        page = pattern.sub(lambda found, made=made: f"{found[1]}\n{made}\n\n{found[2]}", page)
    return page


def make_tokenizer() -> Tokenizer:
    """The tokenizer of the little repository."""
    return Tokenizer.train(list(FILES.values()), 340)


def write_store(path: Path) -> None:
    """A store whose training split is the little repository."""
    tokenizer = make_tokenizer()
    encoded = tokenizer.encode_with_starts(list(FILES.values()))
    with StoreWriter(path, tokenizer) as writer:
        for (name, text), (ids, starts) in zip(FILES.items(), encoded, strict=True):
            made = document(text, language="python", path=name, repo="demo", licence="MIT", source="folder")
            writer.add("train", made, ids, starts)
        writer.commit({"split_by": "repo", "seed": 0})


def law(name: str, length: int | None = None) -> LengthLaw:
    """A length law with its defaults, or of one length."""
    made = lengths.get(name)(**({} if length is None else {"length": length}))
    assert isinstance(made, LengthLaw)
    return made


def told_of(rows: Rows, placed: Placed) -> str:
    """The text of an example's tokens."""
    row = placed.example.row
    assert (row.regions != Region.PADDING).all()
    return visible(rows.maker.transform.format.tokenizer.decode(row.tokens.tolist()))


def visible(text: str) -> str:
    """`text` on one line."""
    return text.replace("\n", "⏎")


def code(text: str | None) -> str:
    """`text` as code in a table, nothing for None."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def fenced(text: str) -> str:
    """`text` as a block."""
    return f"```text\n{text}\n```"


def main(arguments: list[str]) -> int:
    """Writes or checks the page; 1 when a check finds it out of date."""
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if "--check" in arguments:
        if made != page:
            print("docs/fim.md is not what the code makes: run 'python docs/generate.py'", file=sys.stderr)
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
