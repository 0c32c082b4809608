import json
from pathlib import Path

import pytest
from benchmarks.common import Turn

from benchmarks import sandbox as benchmark
from inlay.config import BadInput
from inlay.evaluate.sandbox import open_sandbox


@pytest.fixture
def bubblewrap() -> None:
    try:
        open_sandbox(workers=1).close()
    except BadInput as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("bubblewrap")
def test_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    benchmark.main(["--rounds", "1", "--per-turn", "1", "--tests", "3", "--json", str(file)])
    result = json.loads(file.read_text())
    told = {name: entry for name, entry in result.items() if isinstance(entry, dict) and "ms" in entry}
    assert list(told)[:2] == ["bare process", "bubblewrap"]
    assert all(entry["ms"]["median"] > 0 for entry in told.values())
    assert told["bubblewrap"]["tests_per_second"]["median"] > 0
    assert capsys.readouterr().out.count("\n") == 3


def test_an_overhead_is_taken_inside_a_round() -> None:
    turns = {"bare process": [Turn(0.010, 0.0), Turn(0.020, 0.0)], "x": [Turn(0.013, 0.0), Turn(0.024, 0.0)]}
    assert benchmark.overheads(turns, "x") == pytest.approx([3.0, 4.0])


def test_programs_differ() -> None:
    assert len({one.source for one in benchmark.programs(5)}) == 5


def test_counts_below_one() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        benchmark.main(["--rounds", "0"])
