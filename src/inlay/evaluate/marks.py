"""Marked files: a source file with the gap written into it by hand, between the sentinels of a format family.

    <|fim_prefix|>...text before the gap...<|fim_suffix|>...text after it...<|fim_middle|>the gold answer

Rules, so that a file says exactly one gap:

* The prefix sentinel is the first thing in the file; what stands between sentinels is text, byte for byte, line ends
  and blanks included.
* One line end at the end of the file is the editor's and belongs to nothing. A gold that ends in a line end is followed
  by one more; or by the family's terminator, behind which only blanks may stand.
* Each sentinel comes once, in that order, all three of one family; all families that have a middle sentinel are known.
* UTF-8 without a byte-order mark and line feeds only: what a model writes is compared byte for byte.

`mark` writes such a file and `read_mark` reads it: `read_mark(mark(...))` gives back the three texts, and a file that
ends in one line end and has no terminator is `mark` of what it says, byte for byte. It refuses anything else in one
line that names file and line.
"""

from dataclasses import dataclass
from functools import cache

from inlay.config import BadInput
from inlay.fim.family import all_families, load_family


@dataclass(frozen=True)
class Sentinels:
    """What marks a gap in one family or several that write alike."""

    prefix: str
    suffix: str
    middle: str
    terminators: tuple[str, ...]
    """Of all families with these sentinels."""

    @property
    def strings(self) -> tuple[str, str, str]:
        """In the order of a marked file."""
        return self.prefix, self.suffix, self.middle


@dataclass(frozen=True)
class Marked:
    """What a marked file says."""

    prefix: str
    middle: str
    suffix: str


@cache
def all_sentinels() -> tuple[Sentinels, ...]:
    """Those of every family with a middle sentinel, ours first, each set once."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for family in all_families().values():
        if family.middle is not None:
            terminators = found.setdefault((family.prefix, family.suffix, family.middle), [])
            if family.terminator not in terminators:
                terminators.append(family.terminator)
    return tuple(Sentinels(*strings, tuple(terminators)) for strings, terminators in found.items())


def mark(text: str, start: int, end: int, family: str = "inlay") -> str:
    """`text` with characters `start` to `end` as the gap: the content of a marked file, one final line end included.

    Raises BadInput for an empty gap, a place outside of the text, carriage returns, zero bytes or sentinels in the
    text, and a family without a middle sentinel.
    """
    form = load_family(family)
    if form.middle is None:
        raise BadInput(f"format family '{family}' has no middle sentinel, so its files say no gold; take 'inlay'")
    if not 0 <= start < end <= len(text):
        raise BadInput(f"no gap from {start} to {end} in a text of {len(text)} characters: at least one is missing")
    if "\r" in text:
        raise BadInput("the text has carriage returns; convert its line ends to line feeds")
    if "\0" in text:
        raise BadInput("the text has zero bytes, so it is no source file")
    for sentinel in (form.prefix, form.suffix, form.middle):
        if sentinel in text:
            raise BadInput(f"the text has '{sentinel}' in it; choose another family")
    if any(text[start:end].rstrip().endswith(stop) for stop in _sentinels_of(form.prefix).terminators):
        raise BadInput("the gap ends in a terminator, which would be read as its end; choose another family")
    return f"{form.prefix}{text[:start]}{form.suffix}{text[end:]}{form.middle}{text[start:end]}\n"


def read_mark(text: str, where: str) -> Marked:
    """The gap that the content of a marked file says; `where` names the file in errors. Raises BadInput."""
    sentinels = _sentinels(text, where)
    places = []
    for sentinel in sentinels.strings:
        place = text.find(sentinel)
        if place < 0:
            raise BadInput(f"{where}: '{sentinel}' is missing{_other(text, sentinel, sentinels)}; write it in once")
        again = text.find(sentinel, place + len(sentinel))
        if again >= 0:
            raise BadInput(
                f"{where}, line {_line(text, again)}: '{sentinel}' comes a second time; one file has one gap"
            )
        places.append(place)
    first, second, third = places
    if not first < second < third:
        wrong = sentinels.suffix if second > third else sentinels.prefix
        raise BadInput(
            f"{where}, line {_line(text, text.find(wrong))}: '{wrong}' stands in the wrong order; write"
            f" {' ... '.join(sentinels.strings)} and the gold"
        )
    gold = _gold(text, third + len(sentinels.middle), sentinels, where)
    prefix = text[len(sentinels.prefix) : second]
    suffix = text[second + len(sentinels.suffix) : third]
    return Marked(prefix, gold, suffix)


def decode(data: bytes, where: str) -> str:
    """The text of a marked file. Raises BadInput for what is no UTF-8 with line feeds."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise BadInput(f"{where}: not a text file in UTF-8 (it has zero bytes, or is UTF-16); save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise BadInput(f"{where}, line 1: starts with a byte-order mark; save it as UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{where}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8") from None
    if "\r" in text:
        raise BadInput(
            f"{where}, line {_line(text, text.index(chr(13)))}: has a carriage return (CRLF); answers are compared byte"
            " for byte, so save it with LF line ends"
        )
    return text


def _sentinels(text: str, where: str) -> Sentinels:
    for sentinels in all_sentinels():
        if text.startswith(sentinels.prefix):
            return sentinels
    for sentinels in all_sentinels():
        place = text.find(sentinels.prefix)
        if place >= 0:
            before = f"line {_line(text, place)}: text stands before '{sentinels.prefix}'"
            raise BadInput(f"{where}, {before}; the file must begin with it")
    known = ", ".join(dict.fromkeys(sentinels.prefix for sentinels in all_sentinels()))
    raise BadInput(f"{where}: no gap is marked; the file must begin with a prefix sentinel ({known})")


def _gold(text: str, start: int, sentinels: Sentinels, where: str) -> str:
    line = _line(text, start)
    gold = text[start:]
    stop = next((stop for stop in sentinels.terminators if gold.rstrip().endswith(stop)), None)
    gold = gold.removesuffix("\n") if stop is None else gold.rstrip().removesuffix(stop)
    if not gold:
        raise BadInput(f"{where}, line {line}: nothing follows '{sentinels.middle}': the gold answer is missing")
    return gold


def _other(text: str, missing: str, sentinels: Sentinels) -> str:
    """Names a sentinel of another family that may have been meant."""
    role = sentinels.strings.index(missing)
    for others in all_sentinels():
        other = others.strings[role]
        if other != missing and other in text:
            return f" ('{other}' on line {_line(text, text.find(other))} is another family's)"
    return ""


def _sentinels_of(prefix: str) -> Sentinels:
    return next(sentinels for sentinels in all_sentinels() if sentinels.prefix == prefix)


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
