import json
from pathlib import Path

import pytest
from benchmarks.prepare_speed import main
from tests.text.corpus import write_corpus


def test_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_corpus(tmp_path / "code", repos=8, files=6)
    file = tmp_path / "result.json"
    main(["--data", str(data), "--processes", "1", "--rounds", "1", "--vocab", "400", "--json", str(file)])
    assert json.loads(file.read_text())
    assert "goal" in capsys.readouterr().out
