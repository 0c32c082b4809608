"""What a model makes of a list of gaps: teacher-forced, and by free greedy generation.

It keeps sums and never means, so that a report may pool categories as it likes. Teacher-forced numbers are cheap and
say something of a model that cannot yet fill a gap: the loss of the gold middle and of its terminator, whether the
greedy choice behind the middle is a stop, and whether it would have been one earlier.

The order `none` is plain text: prefix and middle without any sentinel and without the suffix. It says what the middle
costs a left-to-right reader.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
import torch

from experiments.gaps import Gap
from inlay.data.loader import LoaderState, Rows, stack
from inlay.evaluate.validity_worker import compiles
from inlay.fim.family import Order
from inlay.fim.format import FimFormat, Region
from inlay.infer.engine import Engine
from inlay.infer.open import Opened
from inlay.model import Transformer
from inlay.text.store import StoreSplit
from inlay.train.loss import token_losses

Sums = dict[str, float]
ORDERS: tuple[Order, ...] = ("psm", "spm", "spm_v2")
"""The orders that are compared: those in which the middle has the same tokens."""
PLAIN = "none"
"""The order that has no sentinels and no suffix."""
BATCH_TOKENS = 8192


@torch.no_grad()
def teacher_forced(
    model: Transformer, form: FimFormat, gaps: Sequence[Gap], orders: Sequence[str]
) -> dict[str, dict[str, Sums]]:
    """Sums by order and category: `n`, `bytes` and `tokens` of the middles, `nats` of middles, `first_nats` and
    `first_right` of their first tokens, `end_nats` of terminators, `ends` (greedy choice behind the middle is a stop),
    `early` (it is one before), `right` (the first and not the second)."""
    stops = torch.tensor(sorted(form.stop_ids))
    found: dict[str, dict[str, Sums]] = {}
    for order in orders:
        found[order] = {}
        ranked = sorted(gaps, key=lambda gap: len(gap.prefix) + len(gap.middle) + len(gap.suffix))
        for batch in _batches(ranked):
            for gap, sums in zip(batch, _score(model, form, batch, order, stops), strict=True):
                _add(found[order].setdefault(gap.category, {}), sums)
    return found


def _batches(gaps: Sequence[Gap]) -> Iterable[Sequence[Gap]]:
    """Runs of gaps sorted by length, of about BATCH_TOKENS slots."""
    begin = 0
    while begin < len(gaps):
        longest = len(gaps[begin].prefix) + len(gaps[begin].middle) + len(gaps[begin].suffix) + 4
        size = max(1, BATCH_TOKENS // longest)
        yield gaps[begin : begin + size]
        begin += size


def layout(form: FimFormat, gap: Gap, order: str) -> tuple[np.ndarray, np.ndarray]:
    """A gap as a whole example: ids and regions [n]. `PLAIN` is the prefix and the middle as bare text."""
    if order != PLAIN:
        row = form.render(gap.prefix, gap.middle, gap.suffix, cast(Order, order))
        return row.tokens, row.regions
    tokens = np.array([*gap.prefix, *gap.middle, form.eot])
    sizes = [len(gap.prefix), len(gap.middle), 1]
    return tokens, np.repeat(np.array([Region.PREFIX, Region.MIDDLE, Region.TERMINATOR], dtype=np.uint8), sizes)


def _score(model: Transformer, form: FimFormat, gaps: Sequence[Gap], order: str, stops: torch.Tensor) -> Iterable[Sums]:
    rows = [layout(form, gap, order) for gap in gaps]
    width = max(len(tokens) for tokens, _ in rows) - 1
    ids = torch.full((len(rows), width + 1), form.pad, dtype=torch.int64)
    wanted = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, (tokens, regions) in enumerate(rows):
        ids[index, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        asked = np.isin(regions[1:], (Region.MIDDLE, Region.TERMINATOR))
        wanted[index, : len(asked)] = torch.from_numpy(asked)
    # Attention is causal, so padding behind an example changes nothing in it.
    positions = torch.arange(width).expand(len(rows), width)
    device = model.head_weight.device
    hidden = model(ids[:, :-1].to(device), positions.to(device))[wanted.to(device)]
    logits = torch.nn.functional.linear(hidden.float(), model.head_weight).cpu()
    targets = ids[:, 1:][wanted]
    nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double().numpy()
    choice = logits.argmax(dim=-1)
    right, stop = (choice == targets).numpy(), torch.isin(choice, stops).numpy()
    at = 0
    for gap in gaps:
        end = at + len(gap.middle)
        early, ends = bool(stop[at:end].any()), bool(stop[end])
        yield {
            "n": 1.0,
            "bytes": float(gap.size),
            "tokens": float(len(gap.middle)),
            "nats": float(nats[at:end].sum()),
            "first_nats": float(nats[at]),
            "first_right": float(right[at]),
            "end_nats": float(nats[end]),
            "ends": float(ends),
            "early": float(early),
            "right": float(ends and not early),
        }
        at = end + 1


def generated(
    opened: Opened, split: StoreSplit, gaps: Sequence[Gap], orders: Sequence[Order], max_tokens: int
) -> dict[str, dict[str, Sums]]:
    """Sums of greedy completions by order and category: `n`, `stopped` (by its terminator inside the budget),
    `length_right` and `length_near` (stopped at the gold's length, or within 2 tokens), `overrun` (tokens beyond it),
    `short` (stopped more than 2 tokens before it), `exact`, and `valid` of `judged` whole Python files that compile."""
    engine = Engine(opened)
    found: dict[str, dict[str, Sums]] = {}
    for order in orders:
        found[order] = {}
        prompts = [opened.fim_format.prompt(gap.prefix, gap.suffix, order) for gap in gaps]
        for gap, made in zip(gaps, engine.generate(prompts, max_tokens=max_tokens), strict=True):
            stopped, excess = made.stopped == "eot", len(made.ids) - len(gap.middle)
            before, gold, after = _parts(split, gap.document, gap.start, gap.end)
            path = split.document(gap.document).path
            judged = path.endswith((".py", ".pyi")) and compiles(before + gold + after)
            _add(
                found[order].setdefault(gap.category, {}),
                {
                    "n": 1.0,
                    "stopped": float(stopped),
                    "length_right": float(stopped and excess == 0),
                    "length_near": float(stopped and abs(excess) <= 2),
                    "overrun": float(max(0, excess)),
                    "short": float(stopped and excess < -2),
                    "exact": float(stopped and made.text == gold),
                    "judged": float(judged),
                    "valid": float(judged and compiles(before + made.text + after)),
                },
            )
    return found


@lru_cache(maxsize=256)
def _bytes(split: StoreSplit, document: int) -> bytes:
    return split.text(document).encode()


def _parts(split: StoreSplit, document: int, start: int, end: int) -> tuple[str, str, str]:
    data = _bytes(split, document)
    return data[:start].decode(), data[start:end].decode(), data[end:].decode()


@torch.no_grad()
def left_to_right(model: Transformer, rows: Rows, count: int) -> Sums:
    """`nats` and `bytes` of held-out text in plain rows, sentinels and terminators left out; `rows` has rate 0."""
    count = min(count, rows.plan(0).row_count)
    batch = stack([rows.row(0, row) for row in range(count)], LoaderState())
    sizes = rows.maker.transform.format.tokenizer.token_lengths[batch.targets]
    device, nats, text = model.head_weight.device, 0.0, batch.regions == Region.TEXT
    for begin in range(0, count, 32):
        part = slice(begin, begin + 32)
        tokens, targets, positions = (
            torch.from_numpy(array[part]).long().to(device) for array in (batch.tokens, batch.targets, batch.positions)
        )
        losses = token_losses(model(tokens, positions).flatten(0, 1), model.head_weight, targets.flatten())
        nats += float(losses.double().cpu().numpy()[text[part].reshape(-1)].sum())
    return {"nats": nats, "bytes": float(sizes[text].sum())}


def _add(into: Sums, more: Sums) -> None:
    for name, value in more.items():
        into[name] = into.get(name, 0.0) + value


def pool(found: dict[str, dict[str, Sums]], order: str, prefix: str = "") -> Sums:
    """The sums of one order over all categories whose name starts with `prefix`."""
    total: Sums = {}
    for category, sums in found[order].items():
        if category.startswith(prefix):
            _add(total, sums)
    return total


def bits_per_byte(sums: Sums) -> float:
    """Bits per byte from sums of `nats` and `bytes`."""
    return sums["nats"] / (math.log(2.0) * sums["bytes"])
