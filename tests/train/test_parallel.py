"""One run on 1, 2 and 4 processes is one run: the same curve, the same weights, the same rows."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train import ranks
from tests.train.parallel_cases import BOTH, CHECKPOINTS, MIXED, agreements, all_of, assert_close, case, train

from inlay.config import BadInput, ConfigError, validate
from inlay.train.compiler import why_not_compiled
from inlay.train.config import TrainRun
from inlay.train.parallel import Parallel, ParallelConfig

# "The same" is 1e-5 here, which holds in fp32 alone.
pytestmark = pytest.mark.usefixtures("fp32_products")
MUON: dict[str, Any] = {"kind": "muon", "momentum_warmup": 10}
ADAMW: dict[str, Any] = {"kind": "adamw"}
Cases = dict[str, tuple[TrainRun, dict[str, Any]]]


def quick_cases(store: Path) -> Cases:
    """Names begin with the strategy."""
    two = {"accumulation": 2}
    return {
        "ddp-adamw": (case(store, optim=ADAMW, train=two, parallel={"strategy": "ddp"}), {}),
        "fsdp-muon": (case(store, optim=MUON, model=BOTH, train=two, parallel={"strategy": "fsdp"}), {}),
        "ddp-one-rank-untrained": (case(store, optim=ADAMW, model=BOTH), {"without": "odd"}),
        "fsdp-one-rank-untrained": (
            case(store, optim=ADAMW, model=BOTH, parallel={"strategy": "fsdp", "shard": "grad"}),
            {"without": "odd"},
        ),
        "ddp-stopped": (case(store, steps=9, callbacks=CHECKPOINTS), {"until": 4}),
    }


def alone(cases: Cases) -> Cases:
    """The same runs for one plain process."""
    return {
        name: (run.model_copy(update={"parallel": ParallelConfig()}), options) for name, (run, options) in cases.items()
    }


@pytest.fixture(scope="module")
def single(fp32_products: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return all_of(alone(quick_cases(store)), tmp_path_factory.mktemp("single"))


def both(cases: Cases, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return agreements(), all_of(cases, out)


@pytest.fixture(scope="module")
def pair(
    fp32_products: None, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What two processes found, by rank."""
    folder = tmp_path_factory.mktemp("pair")
    return ranks.run(2, both, quick_cases(store), folder / "runs", out=folder / "found")


@pytest.mark.parametrize("name", ["ddp-adamw", "fsdp-muon", "ddp-one-rank-untrained", "fsdp-one-rank-untrained"])
def test_two_processes_train_as_one(
    name: str, pair: list[tuple[dict[str, Any], dict[str, Any]]], single: dict[str, Any]
) -> None:
    expected = single[name]
    assert expected["logged"][0]["train/loss"] > expected["logged"][-1]["train/loss"]
    for _, found in pair:
        assert_close(found[name], expected)
    rows = [found[name]["rows"] for _, found in pair]
    # Rank r has rows r, r + 2, ...: dealt back in turns they are the rows of one process.
    assert [[row for pairs in zip(*parts, strict=True) for row in pairs] for parts in zip(*rows, strict=True)] == (
        expected["rows"]
    )


def test_copies_have_the_same_bits(pair: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for name, first in pair[0][1].items():
        second = pair[1][1][name]
        assert all(value.equal(second["weights"][key]) for key, value in first["weights"].items()), name


def test_a_signal_to_one_process_stops_all_behind_the_same_step(
    pair: list[tuple[dict[str, Any], dict[str, Any]]], single: dict[str, Any]
) -> None:
    for _, found in pair:
        assert found["ddp-stopped"]["step"] == 4
        assert "SIGTERM at step 4; go on with: inlay train resume=" in found["ddp-stopped"]["said"]
        assert_close(found["ddp-stopped"], single["ddp-stopped"])


def test_ranks_agree(pair: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for rank, (found, _) in enumerate(pair):
        assert found["strategy"] == "ddp"
        assert found["sum"] == [2.0, 1.0]
        assert found["first"] == 0.1
        assert found["gather"] == [{"rank": 0}, {"rank": 1}]
        silent = ("Reported", "", 1)
        assert found["all"] == (("InlayError", "rank 0 failed", 1) if rank == 0 else silent)
        assert found["last"] == (("InlayError", "rank 1 failed", 1) if rank == 1 else silent)


# ---- one process, bad input ------------------------------------------------------------------------------------------


def test_without_torchrun_there_is_one_process() -> None:
    parallel = Parallel.join(ParallelConfig())
    assert (parallel.rank, parallel.world, parallel.strategy, parallel.main) == (0, 1, "none", True)
    assert parallel.first(0.1) == 0.1
    assert parallel.gather("a") == ["a"]
    with pytest.raises(BadInput, match="no such store"), parallel.together():
        raise BadInput("no such store")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_are_not_there_are_refused(strategy: str) -> None:
    with pytest.raises(
        BadInput, match=rf"parallel\.strategy={strategy} needs .* torchrun --nproc-per-node N"
    ) as caught:
        Parallel.join(validate(ParallelConfig, {"strategy": strategy}))
    assert "\n" not in str(caught.value)


def test_half_of_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(BadInput, match=r"WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT missing.*torchrun"):
        Parallel.join(ParallelConfig())


def test_one_process_of_torchrun_is_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ranks.environment(0, 1, 1).items():
        monkeypatch.setenv(name, value)
    assert Parallel.join(ParallelConfig()).strategy == "none"


def test_rows_that_cannot_be_shared_are_refused() -> None:
    parallel = Parallel(Parallel.join(ParallelConfig()).device, rank=0, world=4)
    parallel.check_rows(24, 3)
    with pytest.raises(BadInput, match=r"train\.rows 12 .*4 processes x 2 micro-batches = 8.*multiple of 8"):
        parallel.check_rows(12, 2)


def test_an_option_of_the_other_strategy_is_refused() -> None:
    with pytest.raises(BadInput, match=r"reduce=each is for parallel\.strategy=fsdp"):
        Parallel.join(validate(ParallelConfig, {"strategy": "ddp", "reduce": "each"}))
    with pytest.raises(ConfigError, match="strategy"):
        validate(ParallelConfig, {"strategy": "zero"})


# ---- the whole table, in many processes ------------------------------------------------------------------------------


def table(store: Path) -> Cases:
    cases: Cases = {}
    for strategy in ("ddp", "fsdp"):
        for kind, optim in (("adamw", ADAMW), ("muon", MUON)):
            for accumulation in (1, 2):
                name = f"{strategy}-{kind}-{accumulation}"
                run = case(
                    store, optim=optim, model=BOTH, train={"accumulation": accumulation, "rows": 8},
                    parallel={"strategy": strategy},
                )  # fmt: skip
                cases[name] = (run, {})
    return cases


def special(store: Path) -> Cases:
    """What blocks may be made of, and what is done to them."""
    fsdp, ddp = {"strategy": "fsdp"}, {"strategy": "ddp"}
    each = {"strategy": "fsdp", "reduce": "each"}
    two: dict[str, Any] = {"accumulation": 2, "rows": 8}
    kept = {"activation_checkpointing": True, **two}
    return {
        "ddp-mixed": (case(store, model=MIXED, train=two, parallel=ddp), {}),
        "fsdp-mixed": (case(store, model=MIXED, train=two, parallel=fsdp), {}),
        "fsdp-mixed-each": (case(store, model=MIXED, train=two, parallel=each), {}),
        "ddp-mixed-recomputed": (case(store, model=MIXED, train=kept, parallel=ddp), {}),
        "fsdp-mixed-recomputed": (case(store, model=MIXED, train=kept, parallel=fsdp), {}),
        "fsdp-layer-norm": (case(store, model={**BOTH, "norm": "layer"}, train=two, parallel=fsdp), {}),
        "ddp-nobody-trains": (case(store, optim=ADAMW, model=BOTH, train=two, parallel=ddp), {"without": "all"}),
        "fsdp-nobody-trains": (case(store, optim=ADAMW, model=BOTH, train=two, parallel=fsdp), {"without": "all"}),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("cases", [table, special])
def test_every_case_is_the_same_on_many_processes(cases: Any, world: int, store: Path, tmp_path: Path) -> None:
    expected = all_of(alone(cases(store)), tmp_path / "single")
    for found in ranks.run(world, all_of, cases(store), tmp_path / "runs", out=tmp_path / "found"):
        for name, single in expected.items():
            assert_close(found[name], single)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bfloat16_is_close_under_every_strategy(store: Path, tmp_path: Path) -> None:
    """Sharded blocks travel in bf16; each weight is cast to it where it is used in any case, so the curve stays."""
    half: dict[str, Any] = {"precision": "bfloat16", "rows": 8, "accumulation": 2}
    cases: Cases = {
        f"{strategy}-{norm}": (
            case(store, model={**MIXED, "norm": norm}, train=half, parallel={"strategy": strategy}),
            {},
        )
        for strategy in ("ddp", "fsdp")
        for norm in ("rms", "layer")
    }
    expected = all_of(alone(cases), tmp_path / "single")
    for found in ranks.run(2, all_of, cases, tmp_path / "runs", out=tmp_path / "found"):
        for name, single in expected.items():
            for ours, theirs in zip(found[name]["logged"], single["logged"], strict=True):
                assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_saved_on_two_it_goes_on_on_any_number(strategy: str, store: Path, tmp_path: Path) -> None:
    """Six steps on two processes, four more on 1, 2 and 4: the same rows and the curve of ten straight steps."""
    options = {"train": {"rows": 8}, "callbacks": CHECKPOINTS, "model": BOTH, "optim": MUON}
    straight = train(case(store, steps=10, **options), tmp_path / "straight")
    run = case(store, steps=10, parallel={"strategy": strategy}, **options)
    ranks.run(2, train_until, run, tmp_path / "run", 6, out=tmp_path / "first")
    finals = {}
    for world in (1, 2, 4):
        out = tmp_path / f"on{world}"
        shutil.copytree(tmp_path / "run", out)
        if world == 1:
            found = [train(run.model_copy(update={"parallel": ParallelConfig()}), out, resumed=True)]
        else:
            found = ranks.run(world, train_resumed, run, out, out=tmp_path / f"found{world}")
        rows = [
            [row for group in zip(*parts, strict=True) for row in group]
            for parts in zip(*(part["rows"] for part in found), strict=True)
        ]
        assert rows == straight["rows"][6:]
        rest = {"logged": straight["logged"][6:], "weights": straight["weights"]}
        for part in found:
            assert_close(part, rest)
        finals[world] = found[0]["weights"]
    undisturbed = ranks.run(2, train_until, run, tmp_path / "whole", 0, out=tmp_path / "found")
    for name, value in undisturbed[0]["weights"].items():  # the same number of processes: the same bits
        assert value.equal(finals[2][name]), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_processes_go_on_to_the_same_bits(store: Path, tmp_path: Path) -> None:
    """The sums of three ranks and more round by the order in which DDP sends, which it chooses in its first step."""
    run = case(
        store, steps=8, model=MIXED, optim=MUON, train={"rows": 8}, callbacks=CHECKPOINTS, parallel={"strategy": "ddp"}
    )
    straight = ranks.run(4, train_until, run, tmp_path / "straight", 0, out=tmp_path / "first")
    ranks.run(4, train_until, run, tmp_path / "run", 4, out=tmp_path / "second")
    resumed = ranks.run(4, train_resumed, run, tmp_path / "run", out=tmp_path / "third")
    for name, value in straight[0]["weights"].items():
        assert value.equal(resumed[0]["weights"][name]), name


def train_until(run: TrainRun, out: Path, until: int) -> dict[str, Any]:
    return train(run, out, until=until)


def train_resumed(run: TrainRun, out: Path) -> dict[str, Any]:
    return train(run, out, resumed=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_blocks_train_alike_under_every_strategy(store: Path, tmp_path: Path) -> None:
    """Also recomputed: the hooks that gather weights are outside of what is compiled and of what is run again."""
    reason = why_not_compiled(torch.device("cpu"))
    if reason is not None:
        pytest.skip(reason)
    cases: Cases = {
        f"{strategy}-{kept}": (
            case(
                store, model=BOTH, parallel={"strategy": strategy},
                train={"compile": True, "accumulation": 2, "activation_checkpointing": kept},
            ),
            {},
        )
        for strategy in ("ddp", "fsdp")
        for kept in (False, True)
    }  # fmt: skip
    eager = {name: (run.model_copy(update={"train": run.train.model_copy(update={"compile": False})}), options)
             for name, (run, options) in alone(cases).items()}  # fmt: skip
    expected = all_of(eager, tmp_path / "single")
    for found, graphs in ranks.run(2, counted, cases, tmp_path / "runs", out=tmp_path / "found"):
        assert graphs > 0, "nothing was compiled"
        for name, single in expected.items():
            for ours, theirs in zip(found[name]["logged"], single["logged"], strict=True):
                assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-3)


def counted(cases: Cases, out: Path) -> tuple[dict[str, Any], int]:
    found = all_of(cases, out)
    return found, int(torch._dynamo.utils.counters["frames"]["ok"])
