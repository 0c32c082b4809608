"""Answers made ready for the page: which ones it holds, their differences from gold, and what they are filtered by.

It decides that failures come first, and when even those are too many, which of them stay: a choice keyed by the
answer's own name, so that it does not depend on how the model did elsewhere. Long texts are cut, which is said; the
whole of every answer is in the items file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from inlay.evaluate.evaluation_diff import diff
from inlay.evaluate.evaluation_verdicts import failed, marks_of
from inlay.evaluate.report_paired import rows_of_item
from inlay.evaluate.summary import LENGTHS, length_bucket
from inlay.evaluate.table import category_title, row_facts, row_title
from inlay.fim.draws import Draws

MOST_ANSWERS = 2000
MOST_CHARACTERS = 4000
"""Of a gold, an answer or its post-processed text; a budget of 512 tokens rarely gives more."""
CONTEXT_CHARACTERS = 1200
_KINDS = {"equal": 0, "missing": 1, "inserted": 2}


def answers_view(result: dict[str, Any], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`data` for the page's script, and `shown`, `total`, `failures` and `left_out` (of both sorts) for its text.

    `data.answers` in the order of the list; each has its rows, what it is filtered by, its marks and its differences as
    [kind, text] with kind 0 equal, 1 missing (in the gold alone), 2 inserted (in the answer alone).
    """
    facts = {row: row_facts(result, row) for row in result["metrics"]}
    present = {str(item.get("row", item["order"])) for item in items}
    verdicts = [failed(item) for item in items]
    kept = choose(items, verdicts)
    contexts: dict[tuple[str, str], int] = {}
    answers = [_answer(items[at], verdicts[at], facts, present, contexts) for at in kept]
    failures = sum(verdict is True for verdict in verdicts)
    shown_failures = sum(verdicts[at] is True for at in kept)
    return {
        "data": {
            "answers": answers,
            "contexts": [list(one) for one in contexts],
            "rows": [[row, row_title(result, row)] for row in result["metrics"]],
            "lengths": [[label, bucket_title(label)] for label in _buckets()],
        },
        "shown": len(kept),
        "total": len(items),
        "failures": failures,
        "left_out": (failures - shown_failures, (len(items) - len(kept)) - (failures - shown_failures)),
    }


def choose(items: Sequence[Mapping[str, Any]], verdicts: Sequence[bool | None], most: int = MOST_ANSWERS) -> list[int]:
    """Indices, rising, of the answers that the page holds: all failures before what nothing judged before successes."""
    if len(items) <= most:
        return list(range(len(items)))

    def rank(at: int) -> tuple[int, int]:
        item = items[at]
        name = (str(item.get(key)) for key in ("row", "order", "id", "sample"))
        return (0 if verdicts[at] is True else 1 if verdicts[at] is None else 2), Draws("page", *name).bits()

    return sorted(sorted(range(len(items)), key=rank)[:most])


def bucket_title(label: str) -> str:
    """A length bucket as people read it."""
    if label == "0":
        return "nothing"
    return f"{label.replace('-', chr(0x2013)).replace('>', 'over ')} bytes"


def _buckets() -> list[str]:
    """Every label of `length_bucket`, rising."""
    return [length_bucket(high) for _, high in LENGTHS] + [length_bucket(LENGTHS[-1][1] + 1)]


def _answer(
    item: dict[str, Any],
    verdict: bool | None,
    facts: dict[str, dict[str, Any]],
    present: set[str],
    contexts: dict[tuple[str, str], int],
) -> dict[str, Any]:
    gold, middle = str(item["gold"]), str(item["middle"])
    around = (str(item.get("prefix") or "")[-CONTEXT_CHARACTERS:], str(item.get("suffix") or "")[:CONTEXT_CHARACTERS])
    outcome = item.get("outcome") or {}
    post = item.get("post")
    runs = diff(gold[:MOST_CHARACTERS], middle[:MOST_CHARACTERS])
    bits = (item.get("measures") or {}).get("middle_bpb")
    length = item.get("length")
    return {
        "id": str(item["id"]),
        "rows": rows_of_item(item, facts, present),
        "sample": item.get("sample", 0),
        "category": str(item.get("category") or ""),
        "kind": category_title(str(item.get("category") or "")),
        "language": str(item.get("language") or ""),
        "length": length_bucket(length if isinstance(length, int) else len(gold.encode("utf-8", "surrogatepass"))),
        "path": str(item.get("path") or ""),
        "marks": marks_of(item),
        "failed": None if verdict is None else int(verdict),
        "diff": [[_KINDS[kind], text] for kind, text in runs],
        "more": [max(0, len(gold) - MOST_CHARACTERS), max(0, len(middle) - MOST_CHARACTERS)],
        "post": None if post is None else str(post)[:MOST_CHARACTERS],
        "detail": str(outcome.get("detail") or ""),
        "tokens": item.get("tokens"),
        "bits": None if bits is None else round(float(bits), 2),
        "at": contexts.setdefault(around, len(contexts)),
    }
