"""Whether a mixture can be had: what the sources hold, what a run asks of them, and the nearest mixture that works.

Repeating text up to about four times costs next to nothing, and ever more beyond (2305.16264, section 5), so a source
may have a cap on its epochs. A run that would break one is refused before it trains, with the shares nearest to those
asked for (by Kullback-Leibler divergence) and the largest total at which the asked shares hold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inlay.config import BadInput

ENGLISH_SHARE = 0.1
"""Share of English by tokens where there is English beside code and nobody says: 90 % code and 10 % technical English,
the mix of infilling models that are to follow comments."""
SLACK = 1e-6
"""Of the whole, that sources must have more than enough, for shares in digits to be advised."""
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Supply:
    """What one source holds for training."""

    tokens: int
    """Tokens of text of one epoch."""
    max_epochs: float | None = None
    """How often it may be read; None for no limit."""
    density: float = 1.0
    """Tokens of text per slot of its rows: the rest is sentinels and padding."""

    @property
    def limit(self) -> float:
        """Tokens of text that it can give; infinite without a cap."""
        return math.inf if self.max_epochs is None else self.tokens * self.max_epochs


@dataclass(frozen=True)
class Demand:
    """What a stage asks: `slots` of rows (padding included), and the `shares` of text tokens by source."""

    slots: int
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Use:
    """What a run takes from one source."""

    source: str
    share: float
    """Of the run's tokens of text."""
    tokens: int
    """Tokens of text."""
    epochs: float
    max_epochs: float | None


def check_sum(shares: Mapping[str, float], what: str) -> None:
    """Raises ValueError unless the shares are positive and sum to 1; `what` names them."""
    for name, share in shares.items():
        if not share > 0.0:
            raise ValueError(f"{what}: the share of '{name}' is {share:g}; leave a source out that is not to be read")
    total = sum(shares.values())
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise ValueError(f"{what} sum to {total:g}, not 1")


def resolve(asked: Mapping[str, float | None], english: frozenset[str], sizes: Mapping[str, int]) -> dict[str, float]:
    """The share of each source, of which `sizes` is tokens and `english` names those that hold English.

    What is not asked for is shared out by size. Where nothing is asked and there is code as well as English, English
    has 10 % together. The shares that are given leave something for the others (`check_sum` and the configuration say
    so first).
    """
    given = {name: share for name, share in asked.items() if share is not None}
    if not given and 0 < len(english) < len(asked):
        groups = [(ENGLISH_SHARE, [name for name in asked if name in english])]
        groups += [(1.0 - ENGLISH_SHARE, [name for name in asked if name not in english])]
    else:
        groups = [(1.0 - sum(given.values()), [name for name in asked if name not in given])]
    shares = dict(given)
    for left, names in groups:
        total = sum(sizes[name] for name in names)
        shares |= {name: left * sizes[name] / total for name in names}
    return {name: shares[name] for name in asked}


def row_shares(shares: Mapping[str, float], density: Mapping[str, float]) -> dict[str, float]:
    """Shares of rows that give `shares` of text tokens, where rows of each source hold `density` tokens per slot."""
    rows = {name: share / density[name] if share else 0.0 for name, share in shares.items()}
    total = sum(rows.values())
    return {name: value / total for name, value in rows.items()}


def solve(supplies: Mapping[str, Supply], demands: Sequence[Demand]) -> list[Use]:
    """What all stages together take of each source.

    Raises BadInput with one line when a source would be read more often than its cap allows: it names the source, the
    shares of the whole run nearest to those asked for that can be had, and the largest run at which those asked hold.
    """
    wanted = dict.fromkeys(supplies, 0.0)
    for demand in demands:
        per_slot = 1.0 / sum(share / supplies[name].density for name, share in demand.shares.items())
        for name, share in demand.shares.items():
            wanted[name] += demand.slots * per_slot * share
    total = sum(wanted.values())
    uses = [
        Use(name, wanted[name] / total, round(wanted[name]), wanted[name] / supply.tokens, supply.max_epochs)
        for name, supply in supplies.items()
    ]
    over = [use for use in uses if wanted[use.source] > supplies[use.source].limit * (1.0 + 1e-9)]
    if not over:
        return uses
    worst = max(over, key=lambda use: use.epochs / (use.max_epochs or math.inf))
    slots = sum(demand.slots for demand in demands)
    fits = math.floor(slots * min(supplies[use.source].limit / wanted[use.source] for use in over))
    limits = {name: supply.limit / total for name, supply in supplies.items()}
    instead = _nearest({use.source: use.share for use in uses}, limits)
    raise BadInput(
        f"the mixture cannot be had: {slots:,} tokens would read source '{worst.source}' {worst.epochs:.3g} times, and"
        f" its max_epochs is {worst.max_epochs:g}; {instead}; with the shares asked for at most {fits:,} tokens; or"
        f" raise data.sources.{worst.source}.max_epochs"
    )


def nearest_shares(asked: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float] | None:
    """The shares nearest to `asked` that are no more than `limits`, or None when the limits together are less than 1.

    Nearest by the Kullback-Leibler divergence from `asked`: sources at their limit, all others in the ratio asked for.
    A source that is not asked for stays out.
    """
    found: dict[str, float] = {}
    open_ones = {name: share for name, share in asked.items() if share > 0.0}
    while open_ones:
        scale = (1.0 - sum(found.values())) / sum(open_ones.values())
        full = [name for name, share in open_ones.items() if share * scale > limits[name]]
        if not full:
            found |= {name: share * scale for name, share in open_ones.items()}
            return {name: found.get(name, 0.0) for name in asked}
        for name in full:
            found[name] = limits[name]
            del open_ones[name]
    return None


def _nearest(asked: Mapping[str, float], limits: Mapping[str, float]) -> str:
    found = nearest_shares(asked, limits)
    # Sources that are just enough leave one mixture alone, which no digits say: advice that cannot be followed is none.
    if found is None or sum(limits[name] for name, share in asked.items() if share) < 1.0 + SLACK:
        return "no shares of these sources give so many tokens within their max_epochs"
    return "the nearest shares that can be had: " + ", ".join(f"{name} {text}" for name, text in _digits(found, limits))


def _digits(shares: Mapping[str, float], limits: Mapping[str, float]) -> list[tuple[str, str]]:
    """Shares in as few digits as keep them within their limits; what rounding down leaves goes where most room is."""
    roomiest = max(shares, key=lambda name: limits[name] - shares[name])
    for digits in (3, 4, 6, 9):
        unit = 10**digits
        whole = {name: math.floor(share * unit) for name, share in shares.items()}
        whole[roomiest] += unit - sum(whole.values())
        kept = all(count or not shares[name] for name, count in whole.items())
        if kept and whole[roomiest] <= limits[roomiest] * unit:
            break
    return [(name, f"{count / unit:.{digits}f}".rstrip("0").rstrip(".")) for name, count in whole.items() if count]
