"""The one-line errors of validation, at every place where a union, a mapping or a list may stand."""

from typing import Annotated, Any, Literal, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from inlay.config import Config, ConfigError, nearest, validate


class Inner(Config):
    """A leaf of one kind."""

    kind: Literal["adamw"] = "adamw"
    lr: float = 1.0
    beta: float = 0.9
    deep: "dict[str, Choice]" = {}


class Other(Config):
    """A leaf of another kind."""

    kind: Literal["muon"] = "muon"
    lr: float = 1.0


Choice = Annotated[Union[Inner, Other], Field(discriminator="kind")]  # noqa: UP007 (as a Registry makes it)
Inner.model_rebuild()


class Root(Config):
    """One field of each sort."""

    one: Choice
    maybe: Choice | None = None
    named: dict[str, Choice] = {}
    several: tuple[Choice, ...] = ()
    pair: tuple[int, Inner] = (1, Inner())
    plain: Inner = Inner()
    either: int | str = 1
    steps: int = 1

    @model_validator(mode="after")
    def _positive(self) -> "Root":
        if self.steps < 0:
            raise ValueError("steps must not\nbe negative")
        return self


MUON = {"kind": "muon"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "missing key 'one'"),
        ({"one": {}}, "missing key 'one.kind': one of adamw, muon"),
        ({"one": {"kind": "adamv"}}, "unknown kind 'adamv' at 'one.kind'; did you mean 'adamw'?"),
        ({"one": {"kind": "zzz"}}, "unknown kind 'zzz' at 'one.kind'; allowed: adamw, muon"),
        ({"one": {**MUON, "lrr": 1}}, "unknown key 'one.lrr'; did you mean 'lr'?"),
        ({"one": {**MUON, "lr": "x"}}, "'one.lr' = 'x': input should be a valid number"),
        ({"one": MUON, "maybe": {"kind": "adamw", "bta": 1}}, "unknown key 'maybe.bta'; did you mean 'beta'?"),
        ({"one": MUON, "named": {"x": {"kind": "adamw", "bta": 1}}}, "unknown key 'named.x.bta'; did you mean 'beta'?"),
        # A name that equals a kind must not be mistaken for the tag.
        ({"one": MUON, "named": {"muon": {**MUON, "lrr": 1}}}, "unknown key 'named.muon.lrr'; did you mean 'lr'?"),
        ({"one": MUON, "named": {"x": {"lr": 1}}}, "missing key 'named.x.kind': one of adamw, muon"),
        ({"one": MUON, "named": {"x": {"kind": "mon"}}}, "unknown kind 'mon' at 'named.x.kind'; did you mean 'muon'?"),
        (
            {"one": MUON, "several": [MUON, {"kind": "adamw", "deep": {"y": {**MUON, "lr": True}}}]},
            "'several.1.deep.y.lr' = True: input should be a valid number",
        ),
        (
            {"one": MUON, "several": [MUON, {"kind": "adamw", "deep": {"y": {"kind": "x"}}}]},
            "unknown kind 'x' at 'several.1.deep.y.kind'; allowed: adamw, muon",
        ),
        ({"one": MUON, "pair": [1, {"bta": 2}]}, "unknown key 'pair.1.bta'; did you mean 'beta'?"),
        ({"one": MUON, "plain": {"bta": 1}}, "unknown key 'plain.bta'; did you mean 'beta'?"),
        ({"one": MUON, "steps": "10"}, "'steps' = '10': input should be a valid integer"),
        ({"one": MUON, "steps": 1e3}, "'steps' = 1000.0: input should be a valid integer"),
        ({"one": MUON, "steps": -1}, "the configuration: steps must not be negative"),
        ({"onee": MUON}, "unknown key 'onee'; did you mean 'one'? (and 1 more)"),
        ({"one": {**MUON, "lr": float("inf")}}, "'one.lr' = inf: input should be a finite number"),
        ({"one": 3}, "'one' = 3: input should be an object"),
    ],
)
def test_message(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Root, data)
    assert str(caught.value) == message


def test_the_origin_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^unknown key 'one\.lrr' \(run/config\.yaml\); did you mean 'lr'\?$"):
        validate(Root, {"one": {**MUON, "lrr": 1}}, where="run/config.yaml")


def test_a_long_value_is_shortened() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Root, {"one": MUON, "steps": "x" * 500})
    assert len(str(caught.value)) < 160


keys = st.text("abkindlrmuowx", min_size=1, max_size=5)
values = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(["muon", "adamw", "x"]) | st.floats(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys | st.sampled_from(["kind", "lr", "deep"]), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Root.model_fields, "bad"]), values))
def test_anything_is_a_root_or_one_line_about_a_path_of_the_data(data: dict[str, Any]) -> None:
    try:
        root = validate(Root, data)
    except ConfigError as error:
        message = str(error)
        assert message
        assert "\n" not in message
        if message.startswith(("missing key ", "the configuration")):
            return
        path = message.split("'")[3 if message.startswith("unknown kind") else 1].removesuffix(".kind")
        current: Any = data
        for key in path.split("."):
            assert key in current if isinstance(current, dict) else int(key) < len(current), (message, data)
            current = current[key] if isinstance(current, dict) else current[int(key)]
    else:
        assert validate(Root, root.to_dict()) == root


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Other().lr = 2.0  # type: ignore[misc]


def test_nearest() -> None:
    assert nearest("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert nearest("zzz", ["b", "a"]) == "; allowed: a, b"
    assert nearest("x", []) == ""
