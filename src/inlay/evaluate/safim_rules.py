"""SAFIM's own rules for an answer: how its harness shortens one, and when it takes one for the right API call.

Both are written from the published harness's behaviour (gonglinyuan/safim: `truncate_line_until_block`,
`truncate_control`, `truncate_api_call`, `syntax_match`), so that its scores can be met; `calls_match` is the scorer
without its faults. Text that no parser accepts is compared as tokens; nothing here raises for what a model wrote.
"""

import ast
import importlib
import re
import warnings
from functools import cache, lru_cache

from tree_sitter import Language, Parser, Query, QueryCursor, Tree

from inlay.text.syntax_grammars import GRAMMARS

Event = tuple[bool, str]
"""Entering (True) or leaving a node, and its kind."""

MOST_LINES = 512
"""Of an answer to a block: each line that is dropped costs a parse, and no token budget gives so many."""
MOST_CHARACTERS = 20_000
"""Of an answer: what is longer is cut (a block) or compared as it is (a call), so that none costs minutes."""
_PASS_EVENTS = 4
"""Of Python's `pass`: the statement and its keyword, each entered and left."""
_TOKEN = re.compile(
    r"""\"(?:\\.|[^"\\\n])*\"|'(?:\\.|[^'\\\n])*'|\w+|\+\+|--|&&|\|\||<=|>=|==|!=|->|::|\S""",
    re.DOTALL,
)


def shortened_block(language: str, before: str, after: str, text: str) -> str:
    """`text` less as many last lines as it takes to leave the syntax around it as it was.

    `before` and `after` are the program around the gap. What counts is that the program parses with the answer, and
    that its tree is the tree of the program with an empty gap (`pass` in Python) and something added in one place.
    Where the program with an empty gap does not parse (the harness stops there), only the first is asked. Lines after
    the first MOST_LINES, and text after MOST_CHARACTERS, are dropped at once.
    """
    lines = text[:MOST_CHARACTERS].splitlines(keepends=True)[:MOST_LINES]
    empty = _empty_events(language, before, after)
    head, tail = _bytes(before), _bytes(after)
    while lines:
        tree = _parser(language).parse(head + _bytes("".join(lines)) + tail)
        if not _has_errors(language, tree) and (empty is None or _only_adds(language, empty, _events(tree))):
            break
        lines.pop()
    return "".join(lines)


def shortened_control(language: str, text: str) -> str:
    """The first line that is not blank (Python), or the text up to the first bracket that closes none of its own."""
    if language == "python":
        return next((line for line in text.splitlines() if line.strip()), "")
    end = _closing(text, -1)
    return text if end is None else text[:end]


def shortened_call(text: str) -> str:
    """The text up to the end of its first call: the bracket that closes all that are open."""
    end = _closing(text, 0)
    return text if end is None else text[: end + 1]


def calls_match(language: str, text: str, gold: str) -> bool:
    """Whether two expressions are the same but for white space between tokens (Python: and the order of keywords).

    Names of functions count, and so does what stands in a string.
    """
    if len(text) > MOST_CHARACTERS:
        return text == gold
    if language == "python":
        left, right = _python(text.strip()), _python(gold.strip())
        if left is not None and right is not None:
            return left == right
    return _TOKEN.findall(text) == _TOKEN.findall(gold)


def calls_match_original(language: str, text: str, gold: str) -> bool:
    """The published scorer: all white space is deleted, in strings too, and of two Python calls the arguments alone are
    compared, not the function's name."""
    left, right = re.sub(r"\s+", "", text), re.sub(r"\s+", "", gold)
    if language == "python" and len(text) <= MOST_CHARACTERS:
        calls = [_expression(one) for one in (left, right)]
        if all(isinstance(call, ast.Call) for call in calls):
            first, second = (_arguments(call) for call in calls if isinstance(call, ast.Call))
            return first == second
    return left == right


def _closing(text: str, depth_left: int) -> int | None:
    """Index of the first `)` after which the brackets' depth is `depth_left` or less."""
    depth = 0
    for index, sign in enumerate(text):
        if sign == "(":
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth <= depth_left:
                return index
    return None


def _expression(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _python(text: str) -> object | None:
    """A value that is equal for equal expressions, keyword arguments in any order; None for what is no expression."""
    body = _expression(text)
    if body is None:
        return None
    try:
        for node in ast.walk(body):
            if isinstance(node, ast.Call) and all(one.arg for one in node.keywords):
                # With `**mapping` among them their order can matter.
                node.keywords.sort(key=lambda one: one.arg or "")
        return ast.dump(body)
    except (RecursionError, MemoryError):
        return None


def _arguments(call: ast.Call) -> object | None:
    try:
        return [ast.dump(one) for one in call.args], {one.arg: ast.dump(one.value) for one in call.keywords}
    except (RecursionError, MemoryError):
        return None


@cache
def _language(name: str) -> Language:
    grammar = GRAMMARS[name]
    return Language(getattr(importlib.import_module(grammar.module), grammar.function)())


@cache
def _parser(name: str) -> Parser:
    return Parser(_language(name))


@cache
def _errors(name: str) -> Query:
    return Query(_language(name), "(ERROR) @error")


def _has_errors(language: str, tree: Tree) -> bool:
    """Whether a part of the text could not be parsed; a lone `;` is let pass, as the harness does."""
    if not tree.root_node.has_error:
        return False
    found = QueryCursor(_errors(language)).captures(tree.root_node)
    return any(node.text != b";" for nodes in found.values() for node in nodes)


@lru_cache(maxsize=8)
def _empty_events(language: str, before: str, after: str) -> tuple[Event, ...] | None:
    """Of the program with an empty gap; None where it does not parse."""
    gap = b"pass" if language == "python" else b""
    tree = _parser(language).parse(_bytes(before) + gap + _bytes(after))
    return None if _has_errors(language, tree) else tuple(_events(tree))


def _events(tree: Tree) -> list[Event]:
    """Every node of the tree, entered and left, in order."""
    cursor = tree.walk()
    events: list[Event] = []
    while True:
        events.append((True, cursor.node.type if cursor.node else ""))
        if cursor.goto_first_child():
            continue
        events.append((False, events[-1][1]))
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return events
            events.append((False, cursor.node.type if cursor.node else ""))


def _only_adds(language: str, empty: tuple[Event, ...], filled: list[Event]) -> bool:
    """Whether the common beginning and end of both lists are all of `empty`, no less and no more."""
    if len(empty) > len(filled):
        return False
    first = 0
    while first < len(empty) and empty[first] == filled[first]:
        first += 1
    last = 0
    while last < len(empty) and empty[-1 - last] == filled[-1 - last]:
        last += 1
    return len(empty) - first - last == (_PASS_EVENTS if language == "python" else 0)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")
