"""Early warnings as pure rules: what was seen goes in, a finding with a name comes out, or None.

A rule stops a run only where no honest run can look like that; what may also be memorising, or odd data, is a warning.
The numbers and their reasons stand beside each rule. `inlay.train.callbacks.guard` applies them while a run trains;
they apply just as well to what a run has logged.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xxhash

from inlay.config import InlayError
from inlay.data.loader import Batch
from inlay.fim.format import Kind, Region

Rule = Literal[
    "nonfinite",
    "impossible_loss",
    "loss_precision",
    "leaking_targets",
    "repeating_rows",
    "leaking_validation",
    "memorising",
]
RULES: tuple[Rule, ...] = get_args(Rule)


class GuardStop(InlayError):
    """A rule ended the run. `rule` is its name."""

    def __init__(self, rule: Rule, text: str) -> None:
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Finding:
    """What a rule found: one line that says what it is and where to look."""

    rule: Rule
    text: str
    stops: bool


# ---- losses ----------------------------------------------------------------------------------------------------------

STOP_SHARE = 0.5
"""Of the validation loss of the same kind, in the first pass over the data, where every row is new. Held-out text may
differ that much from training text all the same (another package, other languages), so more is asked for: see below."""
FLOOR_BITS_PER_BYTE = 0.1
"""In the first pass: large models of code reach a quarter of a bit per byte on text they have not seen. Text that
repeats itself is below that honestly; `Text.floor` knows."""
OPENING_SHARE = 0.25
"""Of the unigram loss, as the mean of a run's first OPENING steps: a model that starts from nothing is near the
logarithm of its vocabulary there."""
OPENING = 20
MEMORISED_SHARE = 0.7
"""Of the validation loss of the same kind. Training loss under it after several passes is learnt by heart ..."""
RISEN = 1.02
"""... and hurts once the validation loss stands so far above its best."""
SMOOTHED = 5
"""Lines of the log (ten steps each) whose training losses are averaged; fewer than three say nothing yet."""
FEWEST = 3
LOOK = "look at the rows (inlay inspect rows), at the attention mask and at the loss"


def nonfinite(values: Mapping[str, Any], step: int) -> Finding | None:
    """Whether a logged loss is not a number or infinite."""
    for name, value in values.items():
        if name.startswith(("train/loss", "validation/")) and isinstance(value, float) and not math.isfinite(value):
            return Finding(
                "nonfinite",
                f"{name} is {value} at step {step}: the weights have diverged; start again from the last checkpoint's"
                " configuration with a smaller learning rate, and look at norms/ and attention_logits/ before it",
                stops=True,
            )
    return None


@dataclass(frozen=True)
class Text:
    """What the training text itself says about the losses that are possible on it (`inlay.train.text_floor`)."""

    bytes_per_token: float
    unigram: float = math.inf
    """Loss of the best model that knows only how often each token comes, nats a token; inf: not measured."""
    compressed: float = math.inf
    """Bits a byte after a general compressor; inf: not measured."""

    @property
    def floor(self) -> float:
        """Bits a byte under which no honest first pass gets: half of what a compressor needs, where text repeats
        itself so much that this is the lower of the two."""
        return min(FLOOR_BITS_PER_BYTE, self.compressed / 2)

    def bits(self, loss: float) -> float:
        """Bits a byte of a loss in nats a token."""
        return loss / (math.log(2.0) * self.bytes_per_token)


def impossible_loss(
    training: Sequence[Mapping[str, Any]],
    validation: Mapping[str, Any],
    *,
    first_pass: bool,
    text: Text,
    like_validation: bool = True,
) -> Finding | None:
    """Whether the training loss is lower than its text allows, which is never so only because held-out text differs.

    `training`: the newest lines of the log with training losses, oldest first; `validation`: the newest with validation
    losses, empty when nothing is held out. `first_pass`: no row was seen twice so far; later anything is possible.
    `like_validation`: training rows are made as validation rows are (at repository level they see more, a run that
    starts from trained weights may have seen them): otherwise the rule only warns.
    """
    recent = training[-SMOOTHED:]
    for kind in Kind if first_pass else ():
        name = kind.name.lower()
        lines = [line for line in recent if f"train/loss_{name}" in line]
        losses = [float(line[f"train/loss_{name}"]) for line in lines]
        if len(losses) < FEWEST:
            continue
        opening = [loss for line, loss in zip(lines, losses, strict=True) if 0 < line.get("step", 0) <= OPENING]
        if like_validation and opening and opening[0] < OPENING_SHARE * text.unigram < math.inf:
            return Finding(
                "impossible_loss",
                f"the training loss of {name} began at {opening[0]:.3f}, where knowing how often each token comes gives"
                f" {text.unigram:.3f}: no model starts there; training sees its targets, or its loss is computed"
                f" otherwise; {LOOK}",
                stops=True,
            )
        loss, held_out = sum(losses) / len(losses), validation.get(f"validation/{name}/loss")
        if text.bits(loss) >= text.floor or (held_out is None and validation):
            continue
        if held_out is None or loss < STOP_SHARE * held_out:
            share = "" if held_out is None else f" ({loss / held_out:.0%} of its validation loss {held_out:.3f})"
            return Finding(
                "impossible_loss",
                f"the training loss of {name} is {loss:.3f} nats a token{share}, {text.bits(loss):.3f} bits a byte, in"
                f" the first pass over the data, where every row is new and under {text.floor:.3f} nothing gets:"
                f" training sees its targets, or its loss is computed otherwise; {LOOK}",
                stops=like_validation,
            )
    return None


def memorising(
    training: Sequence[Mapping[str, Any]], validation: Mapping[str, Any], best: Mapping[str, float]
) -> Finding | None:
    """Whether a run that has seen its rows before learns them by heart: its validation loss is above its `best` by kind
    so far (names as in `validation`) while the training loss is far below. Legitimate, and a waste."""
    for kind in Kind:
        name = kind.name.lower()
        losses = [float(line[f"train/loss_{name}"]) for line in training[-SMOOTHED:] if f"train/loss_{name}" in line]
        held_out, least = validation.get(f"validation/{name}/loss"), best.get(f"validation/{name}/loss")
        if len(losses) < FEWEST or held_out is None or least is None:
            continue
        loss = sum(losses) / len(losses)
        if held_out > RISEN * least and loss < MEMORISED_SHARE * held_out:
            return Finding(
                "memorising",
                f"the model is memorising: the validation loss of {name} has risen from {least:.2f} to {held_out:.2f}"
                f" while its training loss is {loss:.2f}; more data or fewer epochs",
                stops=False,
            )
    return None


# ---- rows ------------------------------------------------------------------------------------------------------------

LONG_MIDDLE = 16
"""Tokens from which a middle that stands word for word in its own context is no coincidence of code."""
FEWEST_MIDDLES = 16
LEAKED_MIDDLES = 0.5
MISPLACED = 0.01

COUNTS = ("followed", "misplaced", "own", "repeated", "long_middles", "readable", "repeating")
"""What `count_leaks` counts, in order: slots that another slot of their document follows; those whose target is not
that slot's token; those whose target is their own token; those whose next token repeats theirs; middles of at least
LONG_MIDDLE tokens; those of them that stand in their own context; and runs of the same lengths at the middle of these
contexts that stand in them a second time, which says how much the text repeats itself."""


def count_leaks(batch: Batch) -> np.ndarray:
    """COUNTS of a batch, int64: sums, to be added over batches and ranks."""
    follows = batch.positions[:, 1:] == batch.positions[:, :-1] + 1
    token, after, target = batch.tokens[:, :-1], batch.tokens[:, 1:], batch.targets[:, :-1]
    found = [follows, follows & (target != after), follows & (target == token), follows & (after == token)]
    return np.array([*(int(each.sum()) for each in found), *_count_readable(batch)], dtype=np.int64)


def _count_readable(batch: Batch) -> tuple[int, int, int]:
    long, readable, repeating = 0, 0, 0
    for tokens, targets, positions, regions in zip(
        batch.tokens, batch.targets, batch.positions, batch.regions, strict=True
    ):
        # A middle is one run of slots in an example, the last before its terminator.
        slots = np.flatnonzero(regions == Region.MIDDLE)
        for run in np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1):
            if len(run) < LONG_MIDDLE:
                continue
            long += 1
            first = int(run[0])
            context = np.ascontiguousarray(tokens[first - int(positions[first]) : first + 1])
            readable += _contains(context, np.ascontiguousarray(targets[run]), 1)
            other = max(0, (len(context) - len(run)) // 2)
            repeating += _contains(context, context[other : other + len(run)], 2)
    return long, readable, repeating


def _contains(context: np.ndarray, part: np.ndarray, times: int) -> bool:
    """Whether `part` stands in `context`, both int32, at least so many times."""
    text, wanted, at = context.tobytes(), part.tobytes(), -1
    while times and (at := text.find(wanted, at + 1)) >= 0:
        times -= at % context.itemsize == 0
    return not times


def leaking_targets(counts: np.ndarray) -> Finding | None:
    """Whether rows show the model what it is asked for: COUNTS of all batches so far [7]."""
    followed, misplaced, own, repeated, long, readable, repeating = (int(count) for count in counts)
    if misplaced > MISPLACED * followed:
        if own - repeated > 0.5 * misplaced:
            what = (
                f"{own / followed:.0%} of targets are the input of their own slot, where {repeated / followed:.1%} of"
                " tokens repeat the one before: targets are not shifted"
            )
        else:
            what = f"{misplaced / followed:.0%} of targets are not the token that follows their slot"
        return Finding("leaking_targets", f"{what}; look at the loader (inlay inspect rows)", stops=True)
    if long >= FEWEST_MIDDLES and readable - repeating > LEAKED_MIDDLES * long:
        return Finding(
            "leaking_targets",
            f"{readable} of {long} middles of {LONG_MIDDLE} tokens or more stand word for word in their own prefix or"
            f" suffix, where {repeating} runs of other text do: the middle was not taken out; look at the rows (inlay"
            " inspect rows)",
            stops=True,
        )
    return None


REMEMBERED = 1 << 16
"""Rows whose hashes are kept: some megabytes."""
HASH_BITS = 52
"""Few enough for a float64, in which ranks exchange them."""
FEWEST_REPEATS = 4
REPEATED = 0.05


def hash_rows(batch: Batch) -> list[int]:
    """A hash of the content of each row, HASH_BITS bits."""
    mask = (1 << HASH_BITS) - 1
    return [
        xxhash.xxh3_64_intdigest(tokens.tobytes() + positions.tobytes()) & mask
        for tokens, positions in zip(batch.tokens, batch.positions, strict=True)
    ]


class RowWatch:
    """Remembers the newest rows of an epoch, in which each row comes once."""

    def __init__(self) -> None:
        self._epoch: object = None
        self._order: deque[int] = deque()
        self._known: set[int] = set()
        self.seen = 0
        self.repeats = 0

    def add(self, hashes: Sequence[int], epoch: object) -> None:
        """Rows of one batch; `epoch` tells epochs apart. A batch that begins another one belongs to both and is not
        counted."""
        if epoch != self._epoch:
            if self._epoch is not None:
                hashes = ()
            self._epoch = epoch
            self._order.clear()
            self._known.clear()
            self.seen = self.repeats = 0
        for value in hashes:
            self.seen += 1
            if value in self._known:
                self.repeats += 1
                continue
            self._known.add(value)
            self._order.append(value)
            if len(self._order) > REMEMBERED:
                self._known.discard(self._order.popleft())


def repeating_rows(repeats: int, seen: int) -> Finding | None:
    """Whether rows come again within an epoch."""
    if not repeats:
        return None
    text = f"{repeats} of {seen} rows of this epoch came more than once"
    if repeats < FEWEST_REPEATS or repeats < REPEATED * seen:
        return Finding("repeating_rows", f"{text}: does the store hold equal documents?", stops=False)
    return Finding(
        "repeating_rows", f"{text}: the loader repeats itself; look at its state, ranks and workers", stops=True
    )
