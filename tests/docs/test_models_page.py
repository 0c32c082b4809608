"""docs/models.md says what the presets count today, and names nothing that is not there."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from tests.model.presets import PRESETS

from inlay.train.sweep import SweepConfig

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate_models.py"))


def test_the_tables_are_up_to_date(generate: dict[str, Any]) -> None:
    assert generate["render"](PAGE) == PAGE
    changed = PAGE.replace("1,229,000,320", "1,229,000,321")
    assert changed != PAGE
    assert generate["render"](changed) == PAGE


def test_every_family_stands_in_the_table(generate: dict[str, Any]) -> None:
    families = {name.rsplit("-", 1)[0] for name in PRESETS if name.endswith(("-1b", "-nano"))}
    assert set(generate["FAMILIES"]) == families
    for family in families:
        assert f"`{family}`" in PAGE


def test_the_page_names_presets_and_keys_that_exist() -> None:
    for name in re.findall(r"model=([a-z0-9.-]+)", PAGE) + re.findall(r"inspect model ([a-z0-9.-]+)", PAGE):
        assert name in PRESETS
    assert len(SweepConfig.model_fields) == 9  # "the same nine keys"
