"""Registries: discovery of a package's modules, and the names of what is not there."""

from pathlib import Path
from typing import Literal

import pytest

from inlay.config import Config, ConfigError, Registry, validate

MEMBER = """
from typing import Literal
from inlay.config import Config
from {package}.door import things

@things.register
class Member(Config):
    '''One.'''
    kind: Literal["{kind}"] = "{kind}"
    size: int = 1
"""


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    import importlib

    package = "registry_for_a_test"
    folder = tmp_path / package
    (folder / "members").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "members" / "__init__.py").touch()
    (folder / "door.py").write_text(
        f"from inlay.config import Registry\nthings = Registry('thing', '{package}.members')\n"
    )
    for kind in ("big", "able"):
        (folder / "members" / f"{kind}.py").write_text(MEMBER.format(package=package, kind=kind))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("door", "members", "members.big", "members.able"):
        monkeypatch.delitem(__import__("sys").modules, f"{package}.{name}", raising=False)
    monkeypatch.delitem(__import__("sys").modules, package, raising=False)
    return importlib.import_module(f"{package}.door").things


def test_members_are_found_sorted_and_chosen_by_kind(things: Registry) -> None:
    assert list(things.members()) == ["able", "big"]
    assert things.get("big").model_fields["kind"].default == "big"
    with pytest.raises(ConfigError, match=r"unknown thing 'bigg'; did you mean 'big'\?"):
        things.get("bigg")

    class Holder(Config):
        thing: things.union()  # type: ignore[valid-type]

    assert validate(Holder, {"thing": {"kind": "big", "size": 3}}).thing.size == 3
    with pytest.raises(ConfigError, match=r"unknown key 'thing\.sise'; did you mean 'size'\?"):
        validate(Holder, {"thing": {"kind": "big", "sise": 3}})


def test_two_of_one_kind_are_refused(things: Registry) -> None:
    things.members()

    class Another(Config):
        kind: Literal["big"] = "big"

    with pytest.raises(ConfigError, match="two things are called 'big'"):
        things.register(Another)
