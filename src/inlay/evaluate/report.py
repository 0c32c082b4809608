"""Writes the report of one or several runs: one HTML file that needs nothing else, not even a network."""

from collections.abc import Sequence
from pathlib import Path

from inlay.config import BadInput
from inlay.config.files import write_atomic
from inlay.config.run_dir import RunDir
from inlay.evaluate.report_data import load_run
from inlay.evaluate.report_page import render_page


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> str:
    """Reads the run directories and writes one page about them; returns the path of the file.

    `out`: the HTML file; None writes `report.html` into the run, or into the current directory when there are several.
    Raises BadInput for a path that is no run or an `out` that is a folder.
    """
    if not runs:
        raise BadInput("give at least one run directory to report on")
    loaded = [load_run(run) for run in runs]
    single = RunDir(Path(runs[0])).report_file if len(loaded) == 1 else Path("report.html")
    target = single if out is None else Path(out)
    if target.is_dir():
        raise BadInput(f"'{target}' is a folder: give a file name for the report, such as {target / 'report.html'}")
    write_atomic(target, render_page(loaded))
    return str(target)
