import json
from pathlib import Path

import pytest
from benchmarks.speedrun import Curve, Job, jobs, main, passes, summary

from benchmarks import speedrun
from inlay.config import BadInput

SMALL = [
    "run.model.width=32",
    "run.model.layers=1",
    "run.model.blocks.attention.mixer.heads=2",
    "run.model.blocks.attention.mixer.kv_heads=1",
    "run.model.blocks.attention.mixer.head_size=16",
    "run.model.blocks.attention.mlp.inner=48",
    "run.train.rows=2",
    "run.train.sequence_length=128",
    "run.train.compile=false",
]


def arguments(store: Path, work: Path, *more: str) -> list[str]:
    options = ["--store", str(store), "--work", str(work), "--minutes", "0.01", "--rows", "4", "--l2r", "--half"]
    return [*SMALL, *options, "--peer-lr", "1e-3,1e-2", "--peer-setting", "autocast-sdpa", *more]


def test_whole_benchmark_and_going_on(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, file = tmp_path / "work", tmp_path / "result.json"
    main(arguments(store, work, "--json", str(file)))
    first = json.loads(file.read_text())
    (entry,) = first["summary"]
    assert set(entry["bits_per_byte"]) == {"ours", "ours-l2r", "peer at 0.001", "peer at 0.01"}
    best = min(("peer at 0.001", "peer at 0.01"), key=lambda name: entry["bits_per_byte"][name]["median"])
    assert entry["best_peer"] == best
    # How far so few steps come depends on the machine: the toy corpus can be learned by heart.
    assert all(0.0 < value["median"] < 9.0 for value in entry["bits_per_byte"].values())
    assert all(
        result["steps"] >= 8 and result["tokens"] == 256 * result["steps"] for result in first["results"].values()
    )
    for name, result in first["results"].items():
        times = [seconds for seconds, _ in result["curve"]]
        assert times == sorted(times)
        assert 1 <= len(times) <= 10
        assert result["curve"][-1] == [result["seconds"], result["bits_per_byte"]], name
    goals = entry["half_of_the_time"]
    assert set(goals) == {"ours", "ours-l2r"}
    assert goals["ours"]["bits_per_byte"]["median"] == first["results"][Job("ours", 0.005, 0).key]["bits_per_byte"]
    assert all(goal["reached"] in (0, 1) for goal in goals.values())
    out = capsys.readouterr().out
    assert "its best" in out
    assert "ours-l2r in 0.005 minutes" in out

    # Take one result away: the same command measures that one again, and nothing else.
    results = work / "results.json"
    kept = json.loads(results.read_text())
    lost = Job("ours", 0.01, 0).key
    del kept["results"][lost]
    results.write_text(json.dumps(kept))
    measured: list[str] = []
    real = speedrun.train
    monkeypatch.setattr(speedrun, "train", lambda job, *rest: (measured.append(job.key), real(job, *rest))[1])
    main(arguments(store, work, "--json", str(file)))
    assert measured == [lost]

    with pytest.raises(BadInput, match="another set-up"):
        main(arguments(store, work, "--rows", "5"))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--minutes", "1,,2", "give numbers"),
        ("--minutes", "0", "above zero"),
        ("--peer-lr", "1e-3,1e-3", "different"),
        ("--peer-setting", "float16", "autocast-sdpa"),
        ("--repetitions", "0", "at least 1"),
        ("--points", "0", "at least 1"),
    ],
)
def test_bad_options(store: Path, tmp_path: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        main([*arguments(store, tmp_path), option, value])


def test_damaged_results_are_not_overwritten(store: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(BadInput, match="not a file of results"):
        main(arguments(store, tmp_path))
    assert (tmp_path / "results.json").read_text() == "{"


def test_contenders_take_turns() -> None:
    planned = list(jobs(["ours", "peer at 0.1"], [1.0, 2.0], 2))
    assert [job.contender for job in planned] == ["ours", "peer at 0.1"] * 4
    assert len({job.key for job in planned}) == 8
    halved = list(jobs(["ours", "peer at 0.1"], [1.0, 2.0], 2, half=True))
    assert [(job.contender, job.minutes) for job in halved[:6]] == [
        ("ours", 0.5),
        ("ours", 1.0),
        ("peer at 0.1", 1.0),
        ("ours", 2.0),  # half of its time has had its turn
        ("peer at 0.1", 2.0),
        ("ours", 0.5),
    ]
    assert len({job.key for job in halved}) == len(halved) == 10


def test_when_a_curve_passes_a_number() -> None:
    curve = [(10.0, 3.0), (20.0, 2.0), (30.0, 1.0)]
    assert passes(curve, 2.5) == 15.0
    assert passes(curve, 1.0) == 30.0
    assert passes(curve, 0.9) is None
    assert passes(curve, 3.5) == 10.0
    assert passes([], 1.0) is None
    assert passes([(1.0, 3.0), (2.0, 1.5), (3.0, 2.5)], 1.5) == 2.0  # the first time counts


def test_the_clock_of_a_curve_stands_still_while_it_measures(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    class Slow:
        def __init__(self, *_: object) -> None: ...

        def measure(self, _: object) -> dict[str, float]:
            now[0] += 1000.0
            return {speedrun.MEASURE: float("nan") if now[0] > 3000.0 else 2.0}

    monkeypatch.setattr(speedrun, "Validator", Slow)
    monkeypatch.setattr(speedrun.time, "monotonic", lambda: now[0])
    curve = Curve(speedrun.demo_run(tmp_path, str(store), SMALL), rows=4, points=3)
    for step in range(1, 10):
        now[0] += 50.0 if step == 1 else 1.0  # the first one compiles
        curve.note(step, None if step < 3 else 9, None)  # type: ignore[arg-type]
    assert curve.values == [(2.0, 2.0), (5.0, 2.0), (8.0, speedrun.DIVERGED)]
    assert curve.result(7, 9)["bits_per_byte"] == speedrun.DIVERGED


def test_peer_is_judged_at_its_best_rate() -> None:
    bits = {"ours": [1.0, 1.2], "peer at 0.1": [2.0, 2.4], "peer at 0.2": [1.5, 1.2]}
    results = {
        Job(name, 1.0, number).key: {"bits_per_byte": value, "tokens": 10}
        for name, values in bits.items()
        for number, value in enumerate(values)
    }
    (entry,) = summary(results, list(bits), [1.0], 2)
    assert entry["best_peer"] == "peer at 0.2"
    ratio = entry["against_best_peer"]["ours"]["ratio"]
    assert (ratio["low"], ratio["high"]) == (1.0, 1.5)
    assert entry["against_best_peer"]["ours"]["difference"]["median"] == pytest.approx(-0.25)


def test_the_goal_is_judged_by_repetition() -> None:
    def result(bits: float, *curve: tuple[float, float]) -> dict[str, object]:
        return {"bits_per_byte": bits, "tokens": 10, "curve": curve}

    halves, ends, peer = (1.9, 2.1), (1.5, 1.6), (2.0, 2.0)
    results = {Job("peer at 0.1", 2.0, number).key: result(bits) for number, bits in enumerate(peer)}
    results |= {Job("ours", 1.0, number).key: result(bits) for number, bits in enumerate(halves)}
    results |= {
        Job("ours", 2.0, number).key: result(bits, (60.0, 3.0), (120.0, bits)) for number, bits in enumerate(ends)
    }
    (entry,) = summary(results, ["ours", "peer at 0.1"], [2.0], 2, half=True)
    goal = entry["half_of_the_time"]["ours"]
    assert (goal["reached"], goal["repetitions"]) == (1, 2)
    assert goal["difference"]["median"] == pytest.approx(0.0)
    assert goal["passes_after_minutes"]["low"] == pytest.approx(1 + 1.0 / 1.5)
    assert summary(results, ["ours", "peer at 0.1"], [2.0], 2)[0]["half_of_the_time"] == {}
