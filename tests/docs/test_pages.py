"""Pages whose examples are made by the code say what the code makes today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_worked_examples_are_up_to_date() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    page = (ROOT / "docs" / "fim.md").read_text(encoding="utf-8")
    assert generate["render"](page) == page
    changed = page.replace("<|fim_prefix|>", "<|prefix|>", 1) if page.count("<|fim_prefix|>") else ""
    assert generate["render"](changed) == page
