"""Optimizers on parameters that several processes hold: each step is that of one process.

Orthogonalising the rows that a rank holds would be another optimizer, and nothing would say so.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train import muon_ranks
from tests.train.muon_ranks import CONFIGS, STEPS, config, model, train
from tests.train.muon_reference import flattened, weights
from torch import Tensor, multiprocessing

from inlay.train import blocks
from inlay.train.optimizer import route
from inlay.train.shards import share_out

Found = list[dict[str, Any]]


def spawn(folder: Path, world: int, cases: str) -> Found:
    context = multiprocessing.spawn(muon_ranks.run, (world, str(folder), cases), nprocs=world, join=False)
    assert context is not None
    try:
        while not context.join():
            pass
    finally:
        for process in context.processes:
            process.kill()  # of a test that ran out of time
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(world)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Both processes did all of `sharded` once."""
    return spawn(tmp_path_factory.mktemp("two"), 2, "sharded")


Run = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Weights and optimizer state at the end."""


def alone(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same steps in this one process."""
    monkeypatch.setattr(blocks, "multiplies_bfloat16", lambda device: dtype == torch.bfloat16)
    module = model()
    optimizer = config(name).build(module)
    train(optimizer, module, range(STEPS))
    return weights(module), optimizer.state()


def assert_equal(found: Any, expected: Any, tolerance: float) -> None:
    """(weights, state) of a rank against those of one process; no tolerance asks for the same bits."""
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if tolerance:
                torch.testing.assert_close(one[name], value.detach(), atol=tolerance, rtol=tolerance, msg=name)
            else:
                assert torch.equal(one[name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("arrangement", ["sharded", "replicated"])
def test_the_step_of_two_ranks_is_that_of_one_process(
    two: Found, arrangement: str, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacks of other heights may round their products otherwise: 1e-6, and 1e-3 in bf16. Both ranks: the same bits."""
    key = f"{arrangement} {name} {dtype}"
    assert_equal(two[0][key], alone(name, dtype, monkeypatch), 1e-6 if dtype == torch.float32 else 1e-3)
    assert_equal(two[1][key], two[0][key], 0.0)


@pytest.mark.parametrize("arrangement", ["sharded", "replicated"])
@pytest.mark.parametrize("name", ["muon", "muon-heads"])
def test_each_matrix_is_worked_on_by_one_rank_whole(two: Found, arrangement: str, name: str) -> None:
    steps = [found[f"work {arrangement} {name} torch.float32"] for found in two]
    assert [len(step) for step in steps] == [STEPS, STEPS]
    expected = sorted(tuple(parameter.shape) for parameter in route(model())["matrix"].values())
    for step in range(STEPS):
        assert sorted(itertools.chain(*(found[step] for found in steps))) == expected
        assert all(found[step] for found in steps)


def test_flattening_the_rows_of_a_rank_alone_is_something_else(two: Found) -> None:
    """The mistake and ours side by side, against float64: a rank's own rows come out a third off and more."""
    update = torch.randn(32, 24, generator=torch.Generator().manual_seed(0))
    expected = flattened(update.double())
    ours = torch.cat([found["rows of the whole"] for found in two])
    mistaken = torch.cat([found["rows alone"] for found in two])
    assert float((ours - expected).norm() / expected.norm()) < 1e-5
    assert float((mistaken - expected).norm() / expected.norm()) > 0.3


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_state_is_sharded_where_parameters_are(two: Found, name: str) -> None:
    shapes = {key: parameter.shape for key, parameter in model().named_parameters()}
    for found in two:
        for key, (shape, is_sharded) in found[f"state {name}"].items():
            parameter, quantity = key.split("|")
            assert is_sharded == (quantity != "step"), key
            assert shape == (() if quantity == "step" else shapes[parameter]), key


@pytest.mark.parametrize("form", ["whole", "own"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_sharded_run_goes_on_from_its_state(two: Found, name: str, form: str) -> None:
    """From whole tensors, of which each rank takes its rows, and from its own shards: bit for bit."""
    for found in two:
        assert_equal(found[f"resumed {form} {name}"], two[0][f"sharded {name} torch.float32"], 0.0)


def test_another_layout_is_refused(two: Found) -> None:
    for found in two:
        refusals = [text for key, text in found.items() if key.startswith("refused")]
        assert len(refusals) == 2
        assert all("Muon cannot put 'up.weight' together" in text and "\n" not in text for text in refusals)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", [3, 4])
def test_uneven_rows_and_empty_shards(world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that ranks share unevenly, a parameter of one row, and ranks that hold none of it."""
    found = spawn(tmp_path, world, "sharded")
    for name, arrangement in itertools.product(CONFIGS, ("sharded", "replicated")):
        key = f"{arrangement} {name} torch.float32"
        expected = alone(name, torch.float32, monkeypatch)
        for rank in range(world):
            assert_equal(found[rank][key], expected, 1e-6)
            assert_equal(found[rank][key], found[0][key], 0.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", [2, 3, 4])
def test_fsdp_and_replicas_of_shards(world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that `fully_shard` makes, and a mesh of two copies of two shards."""
    found = spawn(tmp_path, world, "fsdp")
    for rank in range(world):
        for name in CONFIGS:
            assert_equal(found[rank][f"fsdp {name}"], alone(name, torch.float32, monkeypatch), 1e-6)
    if world == 4:
        expected = alone("muon", torch.float32, monkeypatch)
        for rank in range(world):
            assert_equal(found[rank]["grid muon"], expected, 1e-6)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_work_is_shared_by_cost(ranks: int) -> None:
    """Everything once, and no rank has more than another by more than one matrix."""
    costs = [7, 7, 7, 7, 3, 3, 3, 1, 1, 1, 1, 0]
    owned = share_out(costs, ranks)
    assert sorted(itertools.chain(*owned)) == list(range(len(costs)))
    loads = [sum(costs[index] for index in indices) for indices in owned]
    assert max(loads) - min(loads) <= max(costs)
