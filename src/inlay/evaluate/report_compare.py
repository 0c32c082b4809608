"""The numbers of a comparison: final losses with intervals and differences to the first entry, speed, what differs.

What may be compared is decided here. Nats per token need the same tokenizer and store; a difference needs the same
validation rows, by digest of what was asked or, for runs without sums by document, by configuration; an interval needs
the sums. What cannot be had is None, with a notice that says why. The page and `--json` show the same `Comparison`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inlay.evaluate.report_bootstrap import Interval, difference_interval, loss_interval, mean_of
from inlay.evaluate.report_configs import split_keys, validation_rows
from inlay.evaluate.report_data import RunData
from inlay.evaluate.report_entries import Entry, entries_of, value_at
from inlay.evaluate.report_sums import Sums

KINDS = (
    ("l2r", "left to right"),
    ("spm_middle", "middle, SPM"),
    ("psm_middle", "middle, PSM"),
    ("spm_v2_middle", "middle, SPM v2"),
    ("spm", "whole row, SPM"),
    ("psm", "whole row, PSM"),
    ("spm_v2", "whole row, SPM v2"),
)
"""Kinds of validation rows in the order they are shown."""
LOGGED = {"nats": "loss", "bits_per_byte": "bpb"}
"""The name of a unit in the log."""
TOKENS_APART = 0.01
"""Runs whose training tokens differ by more than this share are not at the same point of training."""


@dataclass(frozen=True)
class Difference:
    """An entry minus another; negative is better. `interval` where rows are the same and sums are there; `seeds` one
    difference for each seed that both have."""

    value: float
    interval: Interval | None
    seeds: tuple[float, ...] = ()

    @property
    def clear(self) -> bool | None:
        """Whether the interval leaves out zero; None without one."""
        return None if self.interval is None else self.interval.clear


@dataclass(frozen=True)
class Loss:
    """The final loss of an entry: the mean of its seeds, `seeds` their values when there are several."""

    value: float
    interval: Interval | None
    seeds: tuple[float, ...]
    difference: Difference | None
    """To the first entry; None for the first and where losses do not compare."""


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared; `losses` by kind, unit and the entry's letter."""

    entries: list[Entry]
    kinds: list[tuple[str, str]]
    losses: dict[str, dict[str, dict[str, Loss]]]
    same_text: bool
    """Whether nats per token compare: one tokenizer and one store."""
    notices: list[str]
    differing: list[tuple[str, list[str]]]
    shared: list[tuple[str, str]]
    at_equal: dict[str, tuple[float, dict[str, dict[str, float]]]]
    """By `tokens` and `seconds`: the most that all entries have, and bits per byte there by kind and letter."""


def compare(runs: Sequence[RunData]) -> Comparison:
    """Compares runs; the first is what the others are compared with."""
    entries = entries_of(runs)
    kinds = _kinds(runs)
    alike = same_text(runs)
    losses = {kind: {unit: _losses(entries, kind, unit) for unit in LOGGED} for kind, _ in kinds}
    differing, shared = split_keys([entry.runs[0].config for entry in entries if not entry.runs[0].unreadable])
    readable = [not entry.runs[0].unreadable for entry in entries]
    differing = [(key, _spread(texts, readable)) for key, texts in differing]
    return Comparison(
        entries=entries,
        kinds=kinds,
        losses=losses,
        same_text=alike,
        notices=_notices(runs, entries, kinds),
        differing=_with_seeds(differing, entries),
        shared=[(key, text) for key, text in shared if key != "seed" or not any(e.several for e in entries)],
        at_equal={axis: found for axis in ("tokens", "seconds") if (found := _at_equal(entries, kinds, axis))},
    )


def difference(entry: Entry, other: Entry, kind: str, unit: str) -> Difference | None:
    """`entry` minus `other` at the end of training; None where their losses do not compare."""
    own, others = final(entry, kind, unit), final(other, kind, unit)
    if own is None or others is None or not same_rows(entry, other, kind):
        return None
    first, second = _sums(entry, kind), _sums(other, kind)
    interval = None
    if first and second and first[0].digest == second[0].digest:
        interval = difference_interval(mean_of(first), mean_of(second), unit)
    by_seed = {str(run.config.get("seed")): run for run in other.complete}
    seeds = []
    for run in entry.complete if entry.several and other.several else ():
        pair = by_seed.get(str(run.config.get("seed")))
        mine, theirs = _last(run, kind, unit), _last(pair, kind, unit) if pair else None
        if mine is not None and theirs is not None:
            seeds.append(mine - theirs)
    return Difference(own - others, interval, tuple(seeds))


def final(entry: Entry, kind: str, unit: str) -> float | None:
    """The last logged loss, the mean of the entry's seeds."""
    return entry.mean(lambda run: _last(run, kind, unit))


def same_text(runs: Sequence[RunData]) -> bool:
    """Whether nothing says that runs have different tokenizers or stores."""
    return _same(runs, lambda run: run.tokenizer) and _same(runs, lambda run: run.store)


def same_rows(entry: Entry, other: Entry, kind: str) -> bool:
    """Whether two entries were validated on the same tokens of the same documents."""
    runs = [*entry.complete, *other.complete]
    if not same_text(runs):
        return False
    digests = {run.validated.kinds[kind].digest for run in runs if run.validated and kind in run.validated.kinds}
    if all(run.validated and kind in run.validated.kinds for run in runs):
        return len(digests) == 1
    # A run without a store or tokenizer that can be named is never taken to be the same.
    known = [(run.store, run.tokenizer) for run in runs]
    by_config = {validation_rows(run.config) for run in runs}
    return len(digests) <= 1 and len(by_config) == 1 and len(set(known)) == 1 and all(map(all, known))


def best(comparison: Comparison, kind: str) -> list[Entry]:
    """Entries that have a loss of `kind`, lowest bits per byte first."""
    found = comparison.losses[kind]["bits_per_byte"]
    having = [entry for entry in comparison.entries if entry.letter in found]
    return sorted(having, key=lambda entry: found[entry.letter].value)


def _losses(entries: list[Entry], kind: str, unit: str) -> dict[str, Loss]:
    found: dict[str, Loss] = {}
    for entry in entries:
        value = final(entry, kind, unit)
        if value is None:
            continue
        sums = _sums(entry, kind)
        alike = sums and len({one.digest for one in sums}) == 1
        values = entry.values(lambda run: _last(run, kind, unit))
        found[entry.letter] = Loss(
            value,
            loss_interval(mean_of(sums), unit) if alike else None,
            tuple(values) if entry.several else (),
            difference(entry, entries[0], kind, unit) if entry is not entries[0] else None,
        )
    return found


def _sums(entry: Entry, kind: str) -> list[Sums]:
    """Of every complete run of the entry that has this kind; empty when one of them lacks its sums."""
    runs = [run for run in entry.complete if _last(run, kind, "nats") is not None]
    found = [run.validated.kinds[kind] for run in runs if run.validated and kind in run.validated.kinds]
    return found if len(found) == len(runs) else []


def _last(run: RunData, kind: str, unit: str) -> float | None:
    return run.last(f"validation/{kind}/{LOGGED[unit]}")


def _kinds(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    """The kinds that some run has logged, known ones first."""
    names = dict.fromkeys(
        name.removeprefix("validation/").removesuffix("/loss")
        for run in runs
        for name in run.curves
        if name.startswith("validation/") and name.endswith("/loss")
    )
    known = dict(KINDS)
    ordered = [name for name in known if name in names]
    others = [name for name in names if name not in known and not name.endswith("_terminator")]
    return [(name, _kind_title(name)) for name in [*ordered, *others]]


def _kind_title(name: str) -> str:
    """A kind as people know it; those of a mixture's further sources have the source in front."""
    source, _, kind = name.rpartition("/")
    title = dict(KINDS).get(kind, kind)
    return f"{source}: {title}" if source else title


def _same(runs: Sequence[RunData], of: Callable[[RunData], str | None]) -> bool:
    """Whether runs agree in what they say; one that says nothing is taken to agree."""
    return len({value for run in runs if (value := of(run)) is not None}) <= 1


def _spread(texts: list[str], readable: list[bool]) -> list[str]:
    """Texts of the readable configurations at their places among all."""
    given = iter(texts)
    return [next(given) if fine else "?" for fine in readable]


def _with_seeds(differing: list[tuple[str, list[str]]], entries: list[Entry]) -> list[tuple[str, list[str]]]:
    """The row of the seed says every seed of a group."""
    if not any(entry.several for entry in entries):
        return differing
    seeds = [", ".join(str(run.config.get("seed", "?")) for run in entry.runs) for entry in entries]
    rest = [(key, texts) for key, texts in differing if key != "seed"]
    return rest if len(set(seeds)) == 1 else [("seed", seeds), *rest]


def _at_equal(
    entries: list[Entry], kinds: list[tuple[str, str]], axis: str
) -> tuple[float, dict[str, dict[str, float]]] | None:
    """Bits per byte at the largest number of tokens (or seconds) that every entry has been validated at."""

    def curves(entry: Entry, kind: str) -> list[Any]:
        name = f"validation/{kind}/bpb"
        return [(run.curves if axis == "tokens" else run.times).get(name, []) for run in entry.complete]

    if not kinds:
        return None
    ends = [min((curve[-1][0] for curve in curves(entry, kinds[0][0]) if curve), default=0.0) for entry in entries]
    ends = [end for end in ends if end > 0.0]
    if len(ends) < 2 or max(ends) - min(ends) <= TOKENS_APART * max(ends):
        return None  # the final losses are at equal tokens (or time) already
    limit = min(ends)
    found: dict[str, dict[str, float]] = {}
    for kind, _ in kinds:
        for entry in entries:
            values = [value_at(curve, limit) for curve in curves(entry, kind) if curve]
            if values:
                found.setdefault(kind, {})[entry.letter] = sum(values) / len(values)
    return limit, found


def _notices(runs: Sequence[RunData], entries: list[Entry], kinds: list[tuple[str, str]]) -> list[str]:
    found = []
    if not _same(runs, lambda run: run.tokenizer):
        found.append(
            "The runs have different tokenizers: a token is not the same amount of text, so losses are compared in bits"
            " per byte only, and differences have no interval."
        )
    elif not _same(runs, lambda run: run.store):
        found.append(
            "The runs were trained on different stores: their held-out text is not the same, so only bits per byte are"
            " side by side, and a difference may be one of the texts."
        )
    elif kinds and any(not same_rows(entry, entries[0], kinds[0][0]) for entry in entries if _has(entry, kinds[0][0])):
        found.append(
            "The runs were not validated on the same rows (their number, length or cuts differ, or nothing tells that"
            " they are the same): losses do not compare exactly, and no differences are given for those."
        )
    ends = {entry.letter: max((run.tokens or 0) for run in entry.runs) for entry in entries if _has(entry, "l2r")}
    if ends and max(ends.values()) - min(ends.values()) > TOKENS_APART * max(ends.values()):
        found.append(
            "The runs saw different numbers of tokens: final losses are not at the same point of training; see the"
            " table at equal tokens."
        )
    reasons: dict[str, list[str]] = {}
    for run in runs:
        if run.no_intervals:
            reasons.setdefault(run.no_intervals, []).append(_who(entries, run))
    for reason, names in reasons.items():
        whose = "any of these runs" if len(names) == len(runs) else ", ".join(names)
        found.append(f"No intervals can be had for {whose}: {reason}.")
    found += [
        f"{_who(entries, run)}: {run.unreadable}; it is compared without its configuration."
        for run in runs
        if run.unreadable
    ]
    for entry in entries:
        found += [
            f"{_who(entries, run)} ended at step {run.step or 0} and is not in the mean of {entry.letter}."
            for run in entry.left_out
        ]
    return found


def _has(entry: Entry, kind: str) -> bool:
    return final(entry, kind, "nats") is not None


def _who(entries: list[Entry], run: RunData) -> str:
    entry = next(entry for entry in entries if run in entry.runs)
    return f"{entry.letter} ({run.name})"
