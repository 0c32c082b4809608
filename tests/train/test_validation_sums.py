from pathlib import Path

import pytest
from tests.train.tiny_training import config, write_store

from inlay.evaluate.report_data import load_run
from inlay.train.run import train


def test_sums_of_a_real_run(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store")
    for seed in (0, 1):
        train(config(store, seed=seed, train={"steps": 6}), str(tmp_path / f"r-seed{seed}"))
    runs = [load_run(tmp_path / f"r-seed{seed}") for seed in (0, 1)]
    assert [run.no_intervals for run in runs] == ["", ""]
    a, b = (run.validated for run in runs)
    assert set(a.kinds) == {"l2r", "psm", "spm", "psm_middle", "spm_middle"}
    for kind in a.kinds:
        assert a.kinds[kind].digest == b.kinds[kind].digest
        assert a.kinds[kind].nats_per_token == pytest.approx(runs[0].last(f"validation/{kind}/loss"), rel=1e-6)
        assert a.kinds[kind].bits_per_byte == pytest.approx(runs[0].last(f"validation/{kind}/bpb"), rel=1e-6)
