"""What tests of tasks that read a file share: rows written down, and a known program run."""

import json
from pathlib import Path
from typing import Any

from inlay.evaluate.sandbox.program import Program
from inlay.evaluate.task import Place


def place(folder: Path, *rows: dict[str, Any], name: str = "rows.jsonl") -> Place:
    """`rows` as JSON lines."""
    (folder / name).write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    return Place(data=str(folder / name))


def runs(program: Program | None) -> bool:
    """Runs a known Python program in this process: the witness for what a task puts together."""
    assert program is not None
    try:
        exec(program.source, {})
    except Exception:
        return False
    return True
