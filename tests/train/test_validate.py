"""Validation losses against a loop over documents, one at a time, unpacked, in fp32, from token ids alone."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.tiny_training import config
from torch.nn import functional

from inlay.data.loader import Rows
from inlay.fim.format import Region
from inlay.model import build
from inlay.train.config import TrainRun
from inlay.train.validate import Validator

LENGTH = 128


def naive(run: TrainRun, rows: int) -> dict[str, float]:
    """What `Validator.measure` reports, for `run`'s initial model."""
    values: dict[str, float] = {}
    for name, change in {
        "l2r": {"rate": 0.0},
        "psm": {"rate": 1.0, "orders": {"psm": 1.0}},
        "spm": {"rate": 1.0, "orders": {"spm": 1.0}},
    }.items():
        fim = run.fim.model_copy(update=change)
        source = Rows(run.data.path, "validation", fim, LENGTH, 0, run.data.shortest_piece)
        tokenizer = source.maker.transform.format.tokenizer
        model = build(run.model, tokenizer.vocab_size, seed=run.seed)
        losses: dict[Region, list[float]] = defaultdict(list)
        sizes: dict[Region, int] = defaultdict(int)
        for row in range(min(rows, source.plan(0).row_count)):
            for placed in source.maker.examples(source.plan(0), 0, row):
                ids = torch.from_numpy(placed.example.row.tokens.astype(np.int64))
                with torch.no_grad():
                    logits = model.logits(model(ids[None, :-1], torch.arange(len(ids) - 1)[None]))[0]
                each = functional.cross_entropy(logits, ids[1:], reduction="none")
                for loss, target, region in zip(each, ids[1:], placed.example.row.regions[1:], strict=True):
                    losses[Region(region)].append(float(loss))
                    sizes[Region(region)] += len(tokenizer.decode_bytes([int(target)]))
        text = (Region.TEXT, Region.PREFIX, Region.SUFFIX, Region.MIDDLE)
        every = [loss for region in losses.values() for loss in region]
        values[f"validation/{name}/loss"] = sum(every) / len(every)
        nats, count = (sum(sum(losses[r]) for r in text), sum(sizes[r] for r in text))
        values[f"validation/{name}/bpb"] = nats / math.log(2) / count
        if name != "l2r":
            assert losses[Region.MIDDLE]
            middle = losses[Region.MIDDLE]
            values[f"validation/{name}_middle/loss"] = sum(middle) / len(middle)
            values[f"validation/{name}_middle/bpb"] = sum(middle) / math.log(2) / sizes[Region.MIDDLE]
            ends = losses[Region.TERMINATOR]
            values[f"validation/{name}_terminator/loss"] = sum(ends) / len(ends)
    return values


@pytest.mark.parametrize("rows", [1, 5])
def test_measures_equal_a_naive_loop(store: Path, rows: int) -> None:
    run = config(store, model={"embedding_std": 0.3, "init_std": 0.2, "tie_embeddings": False})
    validator = Validator(run, rows)
    model = build(
        run.model, Rows(str(store), "train", run.fim, LENGTH, 0).maker.transform.format.tokenizer.vocab_size, 0
    )
    found = validator.measure(model)
    expected = naive(run, rows)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert validator.measure(model) == found
    assert model.training  # put back as it was


def test_runs_that_differ_in_seed_are_compared_on_the_same_rows(store: Path) -> None:
    model = build(config(store).model, 400, seed=3)
    values = [Validator(config(store, seed=seed), 3).measure(model) for seed in (0, 5)]
    assert values[0] == values[1]


def test_only_trained_orders_are_measured(store: Path) -> None:
    model = build(config(store).model, 400, seed=0)
    assert set(Validator(config(store, fim={"rate": 0.0}), 1).measure(model)) == {
        "validation/l2r/loss",
        "validation/l2r/bpb",
    }
    kinds = {
        name.split("/")[1]
        for name in Validator(config(store, fim={"orders": {"spm": 1.0, "psm": 0.0}}), 1).measure(model)
    }
    assert kinds == {"l2r", "spm", "spm_middle", "spm_terminator"}


def test_activations_in_bfloat16_move_it_little(store: Path) -> None:
    model = build(config(store).model, 400, seed=0)
    validator = Validator(config(store), 3)
    wide = validator.measure(model)
    model.compute_dtype = torch.bfloat16
    for name, value in validator.measure(model).items():
        assert value == pytest.approx(wide[name], abs=0.02), name
