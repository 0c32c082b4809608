"""Whether the lines of an answer are indented as the gold's: what an editor shows at once, and what Python runs on.

Only lines that begin inside the gap count; how the first one is indented was decided before it, unless the gap begins
in that line's indentation.
"""

import re

_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK = " \t\f\v"


def indented_as_gold(text: str, gold: str, prefix: str, suffix: str) -> bool | None:
    """Whether each line of `text` has the leading whitespace of the gold's line in the same place, blank lines left
    out, for as many lines as both have. None where the gold has no such line; False where the answer has none."""
    wanted = indents(gold, prefix, suffix)
    if not wanted:
        return None
    if text == gold:
        return True
    found = indents(text, prefix, suffix)
    return bool(found) and all(one == other for one, other in zip(found, wanted, strict=False))


def indents(text: str, prefix: str, suffix: str) -> list[str]:
    """Leading whitespace of the lines that begin in `text`, as they read with what stands around it, but for blank
    lines and for a last line of which `text` has no character."""
    lines = _LINE_END.split(text)
    opening = _LINE_END.split(prefix)[-1]
    if not lines[-1]:
        lines.pop()
    else:
        lines[-1] += _LINE_END.split(suffix, maxsplit=1)[0]
    if lines and opening.strip(_BLANK):
        lines = lines[1:]
    return [line[: len(line) - len(line.lstrip(_BLANK))] for line in lines if line.strip(_BLANK)]
