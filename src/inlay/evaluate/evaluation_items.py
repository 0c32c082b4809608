"""What an evaluation leaves behind: one line for every answer, the result as JSON, and the page about both.

It decides how an answer is written down, and in which order the files appear: all are written aside before any old one
goes, and the result comes last, so that it never stands beside the answers of another and a full disk costs none. It
refuses nothing but what the disk refuses: a number that is not finite has no place in JSON, so it becomes null and its
name is kept beside it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inlay.config.files import write_together
from inlay.evaluate.evaluation_page import render_evaluation
from inlay.evaluate.metric import Measure
from inlay.evaluate.result_names import ENDINGS
from inlay.evaluate.scored import Scored

PREFIX_CHARACTERS = 1200
SUFFIX_CHARACTERS = 800

Item = dict[str, Any]
"""One line of `NAME.items.jsonl`; see `item_of`."""


def item_of(scored: Scored, row: str, order: str, chosen: bool | None) -> Item:
    """One answer as plain JSON types.

    `row`: the table's row that it belongs to ("spm"). `chosen`: whether best-of-n chose it among its example's answers;
    None where nothing was chosen. Keys: id, order, row, sample, chosen, doc (what bootstrap resamples), path, language,
    category, length (bytes of the gold), gold, middle (the raw answer), post (null when equal to the raw one), stopped,
    tokens, outcome and post_outcome (`Outcome`, null where nothing ran), prefix (its end), suffix (its beginning) and
    measures (null: not measured).
    """
    example, answer, answered = scored.example, scored.answer, scored.answered
    outcomes = [None if one is None else one.to_dict() for one in (answered.raw_outcome, answered.post_outcome)]
    return {
        "id": example.id,
        "order": order,
        "row": row,
        "sample": answered.sample,
        "chosen": chosen,
        "doc": example.group,
        "path": example.path,
        "language": example.language,
        "category": example.category,
        "length": len(example.middle.encode("utf-8", "surrogatepass")),
        "gold": example.middle,
        "middle": answer.text,
        "post": None if answered.post == answer.text else answered.post,
        "stopped": answer.stopped,
        "tokens": answer.tokens,
        "outcome": outcomes[0],
        "post_outcome": outcomes[1],
        "prefix": example.prefix[-PREFIX_CHARACTERS:],
        "suffix": example.suffix[:SUFFIX_CHARACTERS],
        "measures": {name: _value(measure) for name, measure in scored.measures.items()},
    }


def write(folder: str | Path, result: dict[str, Any], items: Sequence[Item], name: str | None = None) -> list[Path]:
    """Writes `NAME.items.jsonl`, `NAME.html` and `NAME.json` (in this order) into `folder`; returns the three paths.

    `name` defaults to the task's. Raises InlayError or BadInput, in one line, when the disk does not take them.
    """
    name = str(result.get("name") or result["task"]) if name is None else name
    files = [Path(folder) / f"{name}.{end}" for end in ENDINGS]
    clean, lost = finite(result)
    if lost:
        clean["not_finite"] = lost
    # Everything is made before the first file changes: what fails here leaves the old result whole.
    lines = "".join(f"{_line(item)}\n" for item in items)
    page = render_evaluation(clean, items)
    whole = _dump(clean, indent=1) + "\n"
    write_together(dict(zip(files, (lines, page, whole), strict=True)))
    return files


def finite(value: Any) -> tuple[Any, list[str]]:
    """`value` with each float that JSON cannot hold made None, and where those stood ("metrics.spm.exact.value")."""
    lost: list[str] = []
    return _finite(value, "", lost), lost


def _finite(value: Any, at: str, lost: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(at)
        return None
    if isinstance(value, dict):
        return {key: _finite(inner, f"{at}.{key}" if at else str(key), lost) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner, f"{at}[{index}]", lost) for index, inner in enumerate(value)]
    return value


def _line(item: Item) -> str:
    clean, lost = finite(item)
    return _dump(clean | {"not_finite": lost} if lost else clean)


def _dump(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair, as a server or a file of completions may send it, exists in JSON as an escape alone.
        text = json.dumps(value, indent=indent, allow_nan=False)
    return text


def _value(measure: Measure | None) -> float | None:
    """The score of this answer alone; one without weight has none."""
    return None if measure is None or measure[1] == 0 else measure[0] / measure[1]
