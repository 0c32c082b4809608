"""Whatever stands behind an equals sign, the answer is a configuration or one line: never a traceback, never silence.

Every key of every shipped configuration gets values of all the wrong sorts; so do the configurations of every member of
every registry. The cases are counted, not drawn, so that a failure names itself.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.test_contracts import CHOICES, NEEDED, composed, registries, schema_of

from inlay.config import BadInput, ConfigError, validate
from inlay.config.compose import apply_overrides, compose_choice
from inlay.config.errors import MOST_CHARACTERS

HOSTILE = (
    "null", "true", "nan", "inf", "-inf", "-1", "0", "1e308", "1e400", "18446744073709551616", "-9223372036854775809",
    "9" * 400, "''", "x", "'é\u202e\U0001f600'", "'" + "a" * 5000 + "'", "[]", "[[]]", "[1,2,3,4,5,6,7,8]", "{}",
    "{a: {b: {c: 1}}}", "{kind: x}", "{kind: 7}", "0x10", "1_000", "2024-01-01", "'${x}'", "'\\n'", "[null]", "1.5",
)  # fmt: skip
SECONDS = 5.0


def paths(data: Any, prefix: str = "") -> Iterator[str]:
    """Every key, groups included."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{prefix}{key}"
            yield from paths(value, f"{prefix}{key}.")


def outcome(data: dict[str, Any], override: str, schema: type) -> str:
    """What becomes of an override, in a word; anything but a configuration or a line of ours is raised."""
    began = time.monotonic()
    try:
        validate(schema, apply_overrides(data, [override]), where="command line")
        found = "taken"
    except (ConfigError, BadInput) as error:
        assert "\n" not in str(error), override
        assert len(str(error)) <= MOST_CHARACTERS, override
        found = "refused"
    assert time.monotonic() - began < SECONDS, override
    return found


def cases(name: str) -> list[str]:
    data = composed(name)
    return [f"{path}={value}" for path in paths(data) for value in HOSTILE]


ROOTS = ("train", "prepare")
UNDER_A_ROOT = ("callbacks", "data")
"""Groups that are no configuration by themselves; their keys are tried in the roots."""


@pytest.mark.parametrize("name", ROOTS)
def test_a_part_of_all_keys_and_values(name: str) -> None:
    data = composed(name)
    schema = schema_of(data, name)
    # A step that shares no factor with the number of values meets each of them.
    found = [outcome(data, override, schema) for override in cases(name)[::37]]
    assert {"taken", "refused"} == set(found)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ROOTS)
def test_all_keys_and_values(name: str) -> None:
    data = composed(name)
    schema = schema_of(data, name)
    for override in cases(name):
        outcome(data, override, schema)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] not in UNDER_A_ROOT])
def test_all_choices(group: str, choice: str) -> None:
    data = compose_choice(group, choice)
    schema = schema_of(data, f"{group}/{choice}")
    for path in paths(data):
        for value in HOSTILE:
            outcome(data, f"{path}={value}", schema)


def test_every_member_of_every_registry_refuses_what_is_no_value() -> None:
    for registry in registries().values():
        for kind, cls in registry.members().items():
            for name in cls.model_fields:
                for value in (None, True, -1, 1e308, 1 << 64, "x", [], {}, [[1]], {"a": 1}, "a" * 5000):
                    try:
                        validate(cls, {"kind": kind, name: value}, where="x")
                    except (ConfigError, BadInput) as error:
                        assert "\n" not in str(error)


def test_there_is_something_to_try() -> None:
    assert NEEDED
    assert len(cases("train")) > 1000
