"""Teacher-forced losses as measures: sums in nats or bits, and the tokens or bytes to divide them by.

An empty gold has no bytes, so it counts in the terminator's loss alone.
"""

import math

from inlay.evaluate.answer import Losses
from inlay.evaluate.metric import Measure

LOSSES = ("middle_nats", "middle_bpb", "terminator_nats", "l2r_bpb", "document_bpb")
_LN2 = math.log(2.0)


def losses_of(losses: Losses | None, gold: str) -> dict[str, Measure | None]:
    """All measures of loss; every one None without `losses`."""
    size = float(len(gold.encode("utf-8", "surrogatepass")))
    if losses is None:
        return dict.fromkeys(LOSSES)
    return {
        "middle_nats": _ratio(losses.middle_nats, float(losses.middle_tokens)),
        "middle_bpb": _ratio(losses.middle_nats / _LN2, size),
        "terminator_nats": (losses.terminator_nats, 1.0),
        "l2r_bpb": None if losses.l2r_nats is None else _ratio(losses.l2r_nats / _LN2, size),
        "document_bpb": None
        if losses.document_nats is None or losses.document_bytes is None
        else _ratio(losses.document_nats / _LN2, float(losses.document_bytes)),
    }


def _ratio(value: float, weight: float) -> Measure | None:
    return (value, weight) if weight > 0.0 else None
