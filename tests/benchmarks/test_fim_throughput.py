import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.fim_throughput import Common, contenders_of, jobs_of, main, options, verify

from inlay.config import InlayError
from inlay.data.loader import Rows
from inlay.fim.format import FimTokens


def test_whole_benchmark(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    main(["--store", str(store), "--length", "256", "--rows", "6", "--rounds", "2", "--json", str(file)])
    result = json.loads(file.read_text())
    for corpus in ("chunks", "pieces"):
        found = result[corpus]
        assert found["rows"] == 6
        assert 0.4 < found["fim_share"] < 1.0
        assert set(found["tokens_per_second"]) == {"hf", "tiktoken", "ours", "rows"}
        assert all(0.0 < value["low"] <= value["median"] <= value["high"] for value in found["times_faster"].values())
    assert result["pieces"]["examples"] > result["chunks"]["examples"]
    assert capsys.readouterr().out.count("goal") == 4


def test_another_answer_is_not_timed(store: Path) -> None:
    """The ratio means something only where every example is the same."""
    rows = Rows(str(store), "train", options(["fim=characters", "fim.rate=1.0"]), 256, 0, None)
    jobs = [job for row in jobs_of(rows, rows.plan(0), 3) for job in row]
    contender = contenders_of(rows)["hf"]
    verify(jobs, {"hf": contender})

    class Wrong(Common):
        def __call__(self, job: Any) -> FimTokens:
            made = super().__call__(job)
            return FimTokens(np.roll(made.tokens, 1), made.regions, made.kind)

    with pytest.raises(InlayError, match="differ"):
        verify(jobs, {"wrong": Wrong(rows, contender._decode, contender._encode)})
