"""Runs a command line in this process, and stands in for the packages that a verb calls."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from inlay.cli.main import main


class Outcome(NamedTuple):
    """What a command line did."""

    status: int
    out: str
    err: str


@pytest.fixture
def inlay(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`inlay("train", "seed=1")` runs that command line."""

    def run(*words: str) -> Outcome:
        status = main(words)
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stand_in("inlay.train.run", train=function)` puts a module with these names in place of the real one."""

    def put(name: str, **members: Any) -> None:
        module = ModuleType(name)
        for key, value in members.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def calls(stand_in: Callable[..., None]) -> Callable[..., list[tuple[Any, ...]]]:
    """`calls("inlay.train.run", "resume", result)` stands in for one function and returns the list of its calls."""

    def record(name: str, *functions: str, result: Any = None, **members: Any) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []

        def function(*arguments: Any, **options: Any) -> Any:
            seen.append((*arguments, options) if options else arguments)
            if isinstance(result, BaseException):
                raise result
            return result

        stand_in(name, **dict.fromkeys(functions, function), **members)
        return seen

    return record
