"""Validation on fixed rows: the same held-out pieces as plain text and in each order, so that kinds can be compared.

For each kind it reports nats per token over every target, bits per byte over the targets that are text, and for orders
the middle alone and the terminator alone. Sums travel as (sum, weight) and are divided once; they are kept by document
too, so that a report can give intervals (`inlay.evaluate.report_sums`). The main source of a
mixture has the names that a single store has, so that such runs can be compared; the others have theirs in front.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inlay.data.loader import LoaderState, Rows, stack
from inlay.evaluate.report_sums import sums_by_document, validation_record
from inlay.fim.family import Order
from inlay.fim.format import Region
from inlay.fim.transform import FimConfig
from inlay.model import Transformer
from inlay.train.loss import token_losses

if TYPE_CHECKING:
    from inlay.train.config import TrainRun

ROWS_AT_ONCE = 4


class Validator:
    """Holds the validation rows of a run; `measure` scores a model on them."""

    def __init__(self, config: "TrainRun", rows: int) -> None:
        """`rows`: at most so many of each kind and source. Raises BadInput for a source without held-out text."""
        self._batches = {}
        self._documents: dict[str, np.ndarray] = {}
        self._ids: dict[str, int] = {}
        self._sums: dict[str, dict[str, Any]] = {}
        self._length, self._rows = config.train.sequence_length, rows
        for name, source in _sources(config):
            pairs = [(0, row) for row in range(min(rows, source.plan(0).row_count))]
            self._batches[name] = stack([source.row(*pair) for pair in pairs], LoaderState())
            self._bytes = source.tokenizer.token_lengths
            self._documents[name] = self._of_documents(source, pairs)

    @torch.no_grad()
    def measure(self, model: Transformer) -> dict[str, float]:
        """Losses by kind: `validation/KIND/loss` in nats per token and `validation/KIND/bpb` in bits per byte; of the
        other sources of a mixture `validation/SOURCE/KIND/...`."""
        training = model.training
        model.eval()
        values: dict[str, float] = {}
        device = model.head_weight.device
        for name, batch in self._batches.items():
            losses = []
            for begin in range(0, len(batch.tokens), ROWS_AT_ONCE):
                part = slice(begin, begin + ROWS_AT_ONCE)
                tokens, targets, positions = (
                    torch.from_numpy(array[part]).long().to(device)
                    for array in (batch.tokens, batch.targets, batch.positions)
                )
                hidden = model(tokens, positions).flatten(0, 1)
                each = token_losses(hidden, model.head_weight, targets.flatten(), model.config.head_softcap)
                losses.append(each.double().cpu().numpy())
            loss, regions = np.concatenate(losses), batch.regions.reshape(-1)
            size = self._bytes[batch.targets.reshape(-1)]
            targets, text = batch.targets.reshape(-1), (regions != Region.SENTINEL) & (regions != Region.TERMINATOR)
            plain = name.rpartition("/")[2] == "l2r"
            kinds = {name: regions != Region.PADDING} | ({} if plain else {f"{name}_middle": regions == Region.MIDDLE})
            for kind, chosen in kinds.items():
                values |= _summarise(f"validation/{kind}", loss, size, chosen, regions)
                if chosen.any():
                    documents = self._documents[name]
                    self._sums[kind] = sums_by_document(documents, targets, loss, size, chosen, text)
            if not plain:
                ends = regions == Region.TERMINATOR
                if ends.any():
                    values[f"validation/{name}_terminator/loss"] = float(loss[ends].mean())
        model.train(training)
        return values

    def record(self, step: int, tokens: int, store: str) -> dict[str, Any]:
        """What the last `measure` found, by document: the content of the run's validation.json."""
        return validation_record(step, tokens, store, self._length, self._rows, list(self._ids), self._sums)

    def _of_documents(self, source: Rows, pairs: list[tuple[int, int]]) -> np.ndarray:
        """[B T] flattened: for each slot the place in `_ids` of the document it is a piece of; -1 for padding."""
        found = np.full((len(pairs), source.maker.length), -1, dtype=np.int64)
        for line, (epoch, row) in zip(found, pairs, strict=True):
            for placed in source.maker.examples(source.plan(epoch), epoch, row):
                place = self._ids.setdefault(source.maker.split.document(placed.document).id, len(self._ids))
                line[placed.slot : placed.slot + len(placed.example.row.tokens) - 1] = place
        return found.reshape(-1)


def _sources(config: "TrainRun") -> Iterator[tuple[str, Rows]]:
    """The held-out rows to measure by name: those of each kind, and of each source of a mixture."""
    # Seed 0 always: runs that differ in seed are compared on the same rows.
    data, length = config.data, config.train.sequence_length
    if data.path is not None:
        for kind, fim in _variants(config.fim).items():
            yield kind, Rows(data.path, "validation", fim, length, 0, data.shortest_piece)
    for name in data.sources:
        prefix = "" if name == data.main_source else f"{name}/"
        for kind, fim in _variants(data.fim_of(name, config.fim)).items():
            yield f"{prefix}{kind}", data.open_source(name, "validation", fim, length, 0)


def _variants(fim: FimConfig) -> dict[str, FimConfig]:
    # Whatever the level of training, everyone is judged on pieces that hold all three parts: losses can be compared.
    fim = fim.model_copy(update={"level": "context"})
    plain = fim.model_copy(update={"rate": 0.0})
    orders: list[Order] = [order for order, share in fim.orders.items() if share > 0.0] if fim.rate > 0.0 else []
    return {"l2r": plain} | {order: fim.model_copy(update={"rate": 1.0, "orders": {order: 1.0}}) for order in orders}


def _summarise(
    name: str, loss: np.ndarray, size: np.ndarray, chosen: np.ndarray, regions: np.ndarray
) -> dict[str, float]:
    if not chosen.any():
        return {}
    text = chosen & (regions != Region.SENTINEL) & (regions != Region.TERMINATOR)
    values = {f"{name}/loss": float(loss[chosen].mean())}
    if size[text].sum():
        values[f"{name}/bpb"] = float(loss[text].sum() / (math.log(2.0) * size[text].sum()))
    return values
