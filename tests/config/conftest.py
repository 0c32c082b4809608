"""A small tree of YAML groups, as an importable package, for the composition tests."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

FILES = {
    "train.yaml": """
        # a run
        defaults:
          - source: python
          - model: nano
          - _self_
        seed: 1
        named: {}
        list: [{a: 1}]
        data:
          path: unset
          double: ${..seed}
        """,
    "whole.yaml": """
        defaults:
          - /train@run
          - override /model@run.model: small
          - _self_
        other: 1
        """,
    "needy.yaml": "data:\n  path: ???\nseed: 1\n",
    "values.yaml": """
        nothing: null
        outer:
          inner: null
          full: {a: 1, b: {c: 2}}
          items: [{a: 1}, null, 3]
        """,
    "model/nano.yaml": "width: 3\nblocks: {a: {heads: 2}}\n",
    "model/small.yaml": "width: 4\nblocks: {b: {heads: 4}}\n",
    "source/python.yaml": "kind: python\nexclude: null\n",
    "source/folder.yaml": "kind: folder\npath: unset\n",
}


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the package that holds FILES."""
    name = "conf_for_a_test"
    for path, text in FILES.items():
        target = tmp_path / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
