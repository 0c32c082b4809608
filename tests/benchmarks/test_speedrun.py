import json
from pathlib import Path

import pytest
from benchmarks.speedrun import Job, jobs, main, summary

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
    options = ["--store", str(store), "--work", str(work), "--minutes", "0.005", "--rows", "4", "--l2r"]
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
    assert "its best" in capsys.readouterr().out

    # Take one result away: the same command measures that one again, and nothing else.
    results = work / "results.json"
    kept = json.loads(results.read_text())
    lost = Job("ours", 0.005, 0).key
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
