"""What running the answers says: tests passed, files compiled, and pass@k over an example's samples."""

from collections import defaultdict
from collections.abc import Sequence

from inlay.evaluate.metric import Measure, share
from inlay.evaluate.scored import Answered

PASS_AT = (10, 100)


def executed(item: Answered) -> dict[str, Measure | None]:
    """Tests passed with the raw and the post-processed text; None where nothing was run or no toolchain is here."""
    raw, post = item.raw_outcome, item.post_outcome
    return {
        "passed": share(None if raw is None else raw.passed),
        "passed_post": share(None if post is None else post.passed),
    }


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimator of 2107.03374, 1 - C(n - c, k) / C(n, k), as a product: no large numbers.

    Raises ValueError unless 0 <= passed <= samples and 1 <= k <= samples.
    """
    if not (0 <= passed <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {passed} passed in {samples} samples")
    missed = 1.0
    for count in range(samples - passed + 1, samples + 1):
        missed *= max(0.0, 1.0 - k / count)
    return 1.0 - missed


def pass_rates(items: Sequence[Answered]) -> list[dict[str, Measure | None]]:
    """pass@k for each k of PASS_AT, by answer: on the first answer of each example that has at least k measured ones,
    and None on all others."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        passed = None if item.raw_outcome is None else item.raw_outcome.passed
        if passed is not None:
            outcomes[item.example.id].append(passed)
    rates: list[dict[str, Measure | None]] = []
    for item in items:
        found = outcomes.pop(item.example.id, [])
        rates.append(
            {f"pass@{k}": (pass_at_k(len(found), sum(found), k), 1.0) if len(found) >= k else None for k in PASS_AT}
        )
    return rates
