import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiments.arms import arm
from experiments.benches import DENSE, LONG, SHORT
from experiments.gaps import Category
from experiments.harness import Experiment, main
from experiments.measure import PLAIN
from experiments.tables import Column, against, by_arm, text

from experiments import cuts, harness, lengths, orders, rates, sooner, syntax
from inlay.config import BadInput
from inlay.data.loader import Rows

BENCH = replace(
    SHORT,
    context=(4, 20),
    gaps=(Category("token", 1, 3, 6), Category("inside", 2, 8, 6), Category("line", 1, 30, 6)),
    head=9,
    checkpoints=(0.5,),
    generate=("spm",),
    budget=4,
)
SMALL = [
    "model.width=32",
    "model.layers=1",
    "model.blocks.attention.mixer.heads=2",
    "model.blocks.attention.mixer.kv_heads=1",
    "model.blocks.attention.mixer.head_size=16",
    "model.blocks.attention.mlp.inner=48",
    "train.compile=false",
]
ARMS = (arm("reference", BENCH), arm("rate 0", BENCH, rate=0.0))
TINY = Experiment("tiny", "whether it runs", ARMS, lambda found: rates.tables(found), tokens=20_000)


def options(store: Path, out: Path, *more: str) -> list[str]:
    return [*SMALL, "--store", str(store), "--out", str(out), "--seeds", "0,1", *more]


def test_whole_experiment_and_going_on(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main([TINY], options(store, tmp_path))
    table = capsys.readouterr().out
    assert "Seeds 0, 1; 0.02M tokens each." in table
    assert "| rate 0 |" in table
    file = tmp_path / "runs.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(record["arm"], record["seed"]) for record in records] == [
        ("reference", 0),
        ("rate 0", 0),
        ("reference", 1),
        ("rate 0", 1),
    ]
    first = records[0]
    assert first["tokens"] == 20_480
    assert [point["tokens"] for point in first["curve"]] == [10_240]
    assert first["final"]["forced"]["spm"]["token_1_3"]["n"] == 6.0
    assert first["final"]["generated"]["spm"]["line_1_30"]["n"] == 6.0
    assert sum(first["lengths"]["count"]) > 0
    assert sum(records[1]["lengths"]["count"]) == 0

    # Take one run away: the same command trains that one again and nothing else, to the same numbers.
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines() if json.loads(line) != records[2]))
    trained: list[tuple[str, int]] = []
    real = harness.train
    monkeypatch.setattr(
        harness, "train", lambda arm, seed, *rest: (trained.append((arm.name, seed)), real(arm, seed, *rest))[1]
    )
    main([TINY], options(store, tmp_path))
    assert trained == [("reference", 1)]
    assert json.loads(file.read_text().splitlines()[-1])["final"] == records[2]["final"]
    again = capsys.readouterr().out
    assert again == table

    # A run of another length is another run; a report shows what is there, and says when nothing is.
    main([TINY], options(store, tmp_path, "--report"))
    assert capsys.readouterr().out == table
    with pytest.raises(BadInput, match="no finished run"):
        main([TINY], options(store, tmp_path, "--report", "--tokens", "9"))
    main([TINY], options(store, tmp_path, "--minutes", "0", "--seeds", "0,1,2"))
    assert len(trained) == 1


def test_arms_of_one_seed_see_the_same_pieces(store: Path) -> None:
    def pieces(one: Any, seed: int) -> list[tuple[int, int, int]]:
        config = harness.configure(one, seed, 4096, SMALL, str(store))
        rows = Rows(
            str(store), "train", config.fim, config.train.sequence_length, config.seed, config.data.shortest_piece
        )
        plan = rows.plan(0)
        found = (placed for row in range(plan.row_count) for placed in rows.maker.examples(plan, 0, row))
        return [(placed.document, placed.start, placed.stop) for placed in found]

    assert pieces(ARMS[0], 0) == pieces(ARMS[1], 0)
    assert pieces(ARMS[0], 0) != pieces(ARMS[0], 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arms", "referense"], "'reference'"),
        (["--seeds", "0,x"], "whole numbers"),
        (["--threads", "0"], "at least 1"),
        (["modle.width=3"], "model"),
    ],
)
def test_bad_options(store: Path, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        main([TINY], options(store, tmp_path, *more))


def test_a_damaged_file_of_runs_is_not_overwritten(store: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("{")
    with pytest.raises(BadInput, match="not a file of runs"):
        main([TINY], options(store, tmp_path))
    assert (tmp_path / "runs.jsonl").read_text() == "{"


def made_up(bench: Any, scale: float) -> dict[str, Any]:
    names = ("bytes", "nats", "first_nats", "first_right", "end_nats", "ends", "early", "right", "tokens")
    forced = {
        order: {category.name: {"n": 10.0, **dict.fromkeys(names, 10.0 * scale)} for category in bench.gaps}
        for order in (*bench.orders, PLAIN)
    }
    counted = ("stopped", "length_right", "length_near", "overrun", "short", "exact", "judged", "valid")
    free = {
        order: {category.name: {"n": 10.0, **dict.fromkeys(counted, 5.0)} for category in bench.gaps}
        for order in ("psm", "spm")
    }
    l2r = {"nats": 30.0 * scale, "bytes": 10.0}
    point = {"tokens": 100_000, "forced": forced, "l2r": l2r}
    return {
        "tokens": 200_000,
        "seed": 0,
        "final": {"forced": forced, "generated": free, "l2r": l2r},
        "curve": [point],
        "lengths": {"count": [0, 1, 2, 3, 4, 5, 6, 7, 8], "tokens": 36, "open": 3, "slots": 360},
    }


@pytest.mark.parametrize("module", [rates, orders, sooner, cuts, lengths, syntax])
def test_every_report_is_a_table_of_its_arms(module: Any) -> None:
    experiment: Experiment = module.EXPERIMENT
    bench = experiment.arms[0].bench
    assert {one.bench for one in experiment.arms} == {bench}
    assert bench in (SHORT, DENSE, LONG)
    found = {one.name: [made_up(bench, 1.0 + index)] * 2 for index, one in enumerate(experiment.arms)}
    told = experiment.report(found)
    tables = [block.splitlines() for block in told.split("\n\n") if block.startswith("|")]
    assert tables
    for lines in tables:
        assert len({line.count(" | ") for line in lines}) == 1
    for one in experiment.arms:
        assert f"| {one.name}" in told
    assert "nan" not in told


def test_numbers_of_a_table() -> None:
    found = {"one": [{"x": 1.0}, {"x": 3.0}], "two": [{"x": 1.5}, {"x": 3.0}]}
    column = Column("x", lambda record: record["x"], 1)
    assert by_arm(found, [column]).splitlines()[-1] == "| two | 2.2 (1.5 to 3.0) |"
    assert against(found, "one", [column]).splitlines()[2:] == ["| two | +0.2 (+0.0 to +0.5) |"]
    assert text([0.5], 0, percent=True) == "50 %"
