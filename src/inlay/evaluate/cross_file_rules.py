"""How the cross-file benchmarks read an answer: where they cut it, and how they compare it with the gold.

From the descriptions and the observed behaviour of amazon-science/cceval (scripts/eval_utils.py, eval_metric.py) and
Leolty/repobench (run.py, evaluation/metrics.py). Where they differ from what one would expect, the rule follows them
and says so: these numbers exist to be compared with theirs. It refuses languages they do not have.
"""

import keyword
import re
from collections.abc import Iterator
from functools import cache

from tree_sitter import Node

from inlay.text.syntax_grammars import GRAMMARS
from inlay.text.syntax_walk import Walker

_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_STRING = re.compile(r"""\"([^"\\]*(\\.[^"\\]*)*)\"|'([^'\\]*(\\.[^'\\]*)*)'""")
_COMMENT = re.compile(r"#.*|//.*")
_BRACKETS = re.compile(r"[;{}]")

_WORDS = {
    # As cceval counts them: literals such as true are identifiers there, None is a keyword.
    "python": " ".join(sorted(set(keyword.kwlist) - {"True", "False"})),
    "java": "abstract assert boolean break byte case catch char class const continue default do double else enum"
    " extends final finally float for goto if implements import instanceof int interface long native new package"
    " private protected public return short static strictfp super switch synchronized this throw throws transient try"
    " void volatile while var",
    "csharp": "abstract as base bool break byte case catch char checked class const continue decimal default delegate"
    " do double else enum event explicit extern finally fixed float for foreach goto if implicit in int interface"
    " internal is lock long namespace new null object operator out override params private protected public readonly"
    " ref return sbyte sealed short sizeof stackalloc static string struct switch this throw try typeof uint ulong"
    " unchecked unsafe ushort using virtual void volatile while",
    "typescript": "break case catch class const continue debugger default delete do else enum export extends finally"
    " for function if implements import in instanceof interface let new package private protected public return"
    " static super switch this throw try typeof var void while with yield",
}
_KEYWORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
STATEMENT_LANGUAGES = tuple(_KEYWORDS)
"""Of CrossCodeEval."""


def first_statement(prefix: str, text: str, language: str) -> str:
    """CrossCodeEval's cut of an answer, by language.

    Python: up to the first line end before which prefix and answer parse without error, blanks at its end dropped; the
    whole answer where there is none. Elsewhere: up to the first `;`, `{` or `}`, that one included; the whole answer
    where there is none, or where it is the very first character (as their code has it).
    """
    if language != "python":
        found = _BRACKETS.search(text)
        return text[: found.end()] if found is not None and found.start() > 0 else text
    for end in _line_ends(text):
        if end > 0 and _parses(prefix + text[:end], language):
            return text[:end].rstrip()
    return text


def without_comments(text: str) -> str:
    """Drops everything from `#` or `//` to the end of the line, in strings too and whatever the language."""
    return _COMMENT.sub("", text)


def same_lines(left: str, right: str) -> bool:
    """Whether the lines that are not blank are equal, blanks at both of their ends aside."""
    return _lines(left) == _lines(right)


def identifiers(text: str, language: str) -> list[str]:
    """Words outside of strings that begin as identifiers do and are no keywords, in order."""
    words = re.findall(r"\w+", _STRING.sub("", text))
    return [word for word in words if _IDENTIFIER.match(word) and word not in _KEYWORDS[language]]


def f1_of_sets(left: list[str], right: list[str]) -> float:
    """Harmonic mean of precision and recall between two sets; 0 where both are empty, as cceval has it."""
    ours, theirs = set(left), set(right)
    total = len(ours) + len(theirs)
    return 2 * len(ours & theirs) / total if total else 0.0


def indel_similarity(left: str, right: str) -> float:
    """1 - (insertions + deletions) / (characters of both): `fuzz.ratio` of fuzzywuzzy with python-Levenshtein, before
    it is rounded to whole per cents. Equal texts give 1, an empty one beside another 0.

    The longest common subsequence comes from the bit-parallel recurrence of Hyyro (2004), a big integer a row.
    """
    total = len(left) + len(right)
    if left == right:
        return 1.0
    masks: dict[str, int] = {}
    for index, character in enumerate(left):
        masks[character] = masks.get(character, 0) | 1 << index
    every = (1 << len(left)) - 1
    row = every
    for character in right:
        hits = row & masks.get(character, 0)
        row = ((row + hits) | (row - hits)) & every
    return 2 * (len(left) - row.bit_count()) / total


def first_code_line(text: str, language: str) -> str:
    """RepoBench's cut: the first line that is neither blank nor a comment (a docstring is one), blanks kept; the first
    line where there is none."""
    lines = text.lstrip("\n").split("\n")
    opens, closes, single = (('"""', "'''"), ('"""', "'''"), "#")
    if language == "java":
        opens, closes, single = ("/*",), ("*/",), "//"
    inside = False
    for line in lines:
        bare = line.strip()
        if not bare:
            continue
        if not inside and bare.startswith(opens):
            inside = True  # on one line as well: the comment then ends at the next line that closes one
        elif inside:
            inside = not bare.endswith(closes)
        elif not bare.startswith(single):
            return line
    return lines[0]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _line_ends(text: str) -> Iterator[int]:
    at = text.find("\n")
    while at >= 0:
        yield at
        at = text.find("\n", at + 1)


def _parses(text: str, language: str) -> bool:
    """Whether a tree has no error node; missing nodes do not count, as in cceval."""
    root = _walker(language).parse(text.encode("utf-8", "replace")).root_node
    waiting: list[Node] = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error:
            return False
        if node.has_error:
            waiting.extend(node.children)
    return True


@cache
def _walker(language: str) -> Walker:
    return Walker(GRAMMARS[language])
