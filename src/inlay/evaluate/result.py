"""What an evaluation says, as one JSON object: scores by row and slice, the gold ceiling, and all that is needed to
repeat it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from inlay import __version__
from inlay.evaluate.gold import Gold
from inlay.evaluate.metric import Metric
from inlay.evaluate.scored import Scored
from inlay.evaluate.subject import Decoding
from inlay.evaluate.summary import slices, summarise
from inlay.evaluate.task import Examples, TaskConfig
from inlay.infer.samples import sample_of

SAMPLES = 24
"""Examples at the head of the fixed list that the result shows in full."""
LIBRARIES = ("torch", "tokenizers", "tree-sitter", "transformers")


def result_of(
    identity: Mapping[str, Any],
    task: TaskConfig,
    examples: Examples,
    gold: Gold,
    scored: Mapping[str, Sequence[Scored]],
    rows: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[Metric],
    *,
    name: str,
    killed: Mapping[str, int],
    orders: Sequence[str],
    decoding: Decoding,
    limit: int | None,
    sandbox: str | None,
    seconds: float,
) -> dict[str, Any]:
    """The result of one task.

    `name`: of its files, see `result_names`. `scored` has the answers of each row, `rows` says how each row came about:
    its order, samples an example, and of how many the best was taken (None: of none). `killed`: texts over which a
    parser had to be ended, by its fate; they count as not valid.
    """
    step = int(identity.get("step") or 0)
    corpus = {"source": examples.source, "hash": examples.hash, "of": examples.of, "sample": examples.sample}
    return {
        "task": task.kind,
        "name": name,
        "n": len(examples.items),
        "of": examples.of,
        "sample": examples.sample,
        "gold": gold.to_dict(),
        "metrics": {row: summarise(found, metrics) for row, found in scored.items()},
        "slices": {row: slices(found, metrics) for row, found in scored.items()},
        "rows": dict(rows),
        "definitions": [
            {"name": one.name, "title": one.title, "meaning": one.meaning, "better": one.better, "share": one.share}
            for one in metrics
        ],
        "settings": {
            **identity,
            "orders": list(orders),
            "max_tokens": task.max_tokens,
            "decoding": decoding.title,
            "decoding_options": decoding.to_dict(),
            "limit": limit,
            "task": task.to_dict(),
            "corpus": corpus,
            "documents_used": len({example.group for example in examples.items}),
            "post": task.POST,
            "citation": task.CITATION,
            "sandbox": sandbox,
            "parsers_ended": dict(killed),
            "interval": "95 %, bootstrap over documents or problems",
            "version": __version__,
            "versions": versions(),
            "seconds": round(seconds, 2),
        },
        "samples": [
            sample_of(one.example, one.answer, order, step) for order in orders for one in _first(scored[order])
        ],
    }


def versions() -> dict[str, str]:
    """What the numbers depend on beside inlay itself."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first(scored: Sequence[Scored]) -> list[Scored]:
    return [one for one in scored if one.answered.sample == 0][:SAMPLES]
