"""Writes the report of one run, or the comparison of several: one HTML file that needs nothing else, no network."""

from collections.abc import Sequence
from pathlib import Path

from inlay.config import BadInput
from inlay.config.files import write_atomic
from inlay.config.run_dir import RunDir
from inlay.evaluate.report_compare import Comparison, compare
from inlay.evaluate.report_compare_page import render_comparison
from inlay.evaluate.report_data import load_run
from inlay.evaluate.report_page import render_page
from inlay.evaluate.report_paths import find_runs


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> str:
    """Reads runs and writes one page about them; returns the path of the file. As `report`."""
    return report(runs, out)[0]


def report(runs: Sequence[str | Path], out: str | Path | None = None) -> tuple[str, Comparison]:
    """Reads runs and writes one page about them; returns the path of the file and the numbers that it compares.

    `runs`: run directories, checkpoints of one, or folders of runs such as a sweep; the first is what the others are
    compared with. `out`: the HTML file; None writes `report.html` into a single run, into the one folder of runs that
    was given, or else into the current directory. Raises BadInput for a path that holds no run or an `out` that is a
    folder.
    """
    if not runs:
        raise BadInput("give at least one run directory to report on")
    found = find_runs(runs)
    loaded = [load_run(run, strict=len(found) == 1) for run in found]
    if out is not None:
        target = Path(out)
    elif len(found) == 1:
        target = RunDir(found[0]).report_file
    else:
        target = (Path(runs[0]) if len(runs) == 1 else Path()) / "report.html"
    if target.is_dir():
        raise BadInput(f"'{target}' is a folder: give a file name for the report, such as {target / 'report.html'}")
    comparison = compare(loaded)
    page = render_page(loaded[0], target.parent) if len(loaded) == 1 else render_comparison(comparison)
    write_atomic(target, page)
    return str(target), comparison
