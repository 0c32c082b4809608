"""Composition: what an override does, and the one line that a wrong one gets."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inlay.config import Config, ConfigError, validate
from inlay.config.compose import apply_overrides, compose, compose_choice, list_groups, places, quoted
from inlay.config.yaml_file import load_yaml

BASE: dict[str, Any] = {
    "source": {"kind": "python", "exclude": None},
    "model": {"width": 3, "blocks": {"a": {"heads": 2}}},
    "seed": 1,
    "named": {},
    "list": [{"a": 1}],
    "data": {"path": "unset", "double": 1},
}


def test_composes_groups_and_interpolations(conf: str) -> None:
    assert compose("train", module=conf) == BASE
    assert list_groups(conf) == {"model": ["nano", "small"], "source": ["folder", "python"]}
    assert compose_choice("model", "small", module=conf) == {"width": 4, "blocks": {"b": {"heads": 4}}}


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["seed=1_000"], ("seed",), 1000),
        (["seed=1e-3"], ("seed",), 0.001),
        (["seed=null"], ("seed",), None),
        (["model=small"], ("model",), {"width": 4, "blocks": {"b": {"heads": 4}}}),
        (["model=small", "model.width=9"], ("model", "width"), 9),
        (["model.width=9", "model=small"], ("model", "width"), 9),
        (["model.blocks={a: {heads: 8}}"], ("model", "blocks"), {"a": {"heads": 8}}),
        (["+named.x=[1,b]"], ("named",), {"x": [1, "b"]}),
        (["~model.blocks"], ("model",), {"width": 3}),
        (["~seed=1", "+seed=2"], ("seed",), 2),
        (["+model.blocks={b: {heads: 8}}"], ("model", "blocks"), {"a": {"heads": 2}, "b": {"heads": 8}}),
        (["source.exclude={a: 1}", "source.exclude.a={b: 2}"], ("source", "exclude"), {"a": {"b": 2}}),
        (["source.exclude={a: 1}", "source.exclude=null", "source.exclude={b: 2}"], ("source", "exclude"), {"b": 2}),
        (["list.0={b: {c: 1}}", "list.0.b.c={d: 2}"], ("list",), [{"b": {"c": {"d": 2}}}]),
        (["list.0.a=5"], ("list",), [{"a": 5}]),
        (["source.kind=folder", "source.path=/code"], ("source",), {"kind": "folder", "path": "/code"}),
        (["source=folder", "source.path=x"], ("source",), {"kind": "folder", "path": "x"}),
        (["data.path=a=b (c) #d"], ("data", "path"), "a=b (c) #d"),
        (["data.path=/home/josé/ü"], ("data", "path"), "/home/josé/ü"),
        (["data.path=~/code"], ("data", "path"), str(Path.home() / "code")),
        (["data.path='a,b'"], ("data", "path"), "a,b"),
        (["data.path="], ("data", "path"), ""),
    ],
)
def test_an_override_means_the_same_on_groups_and_on_a_file(
    conf: str, overrides: list[str], path: tuple[str, ...], value: Any
) -> None:
    # On a file the group's name swaps all of it, so a key given before it is gone; Hydra applies groups first.
    file_too = overrides != ["model.width=9", "model=small"]
    results = [compose("train", overrides, module=conf)]
    if file_too:
        results.append(apply_overrides(BASE, overrides, module=conf))
    for result in results:
        for key in path:
            result = result[key]
        assert result == value


VALUES: dict[str, Any] = {
    "nothing": None,
    "outer": {"inner": None, "full": {"a": 1, "b": {"c": 2}}, "items": [{"a": 1}, None, 3]},
}
plain = st.recursive(
    st.none() | st.integers(0, 9) | st.booleans() | st.sampled_from(["x", "~/y"]),
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "inner"]), inner, max_size=2) | st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)


def _grammar(value: Any) -> str:
    """`value` as a user of the command line writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_grammar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_grammar, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _reach(data: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in `data`, of mappings and lists too."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, inner in entries:
        yield (*prefix, key)
        yield from _reach(inner, (*prefix, key))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the tree never changes
@given(data=st.data())
def test_any_value_replaces_any_other_wherever_it_stands(conf: str, data: st.DataObject) -> None:
    """A mapping for null, for a number, for another mapping, in a list, inside one just given: all the same."""
    expected, overrides = copy.deepcopy(VALUES), []
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(list(_reach(expected))))
        value = data.draw(plain)
        overrides.append(f"{'.'.join(map(str, path))}={_grammar(value)}")
        holder: Any = expected
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = copy.deepcopy(value)
    assert compose("values", overrides, module=conf) == expected
    assert apply_overrides(VALUES, overrides, module=conf) == expected


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.widht=3", ["unknown key 'model.widht'", "did you mean 'model.width'?"]),
        ("mdoel=nano", ["unknown key 'mdoel'", "did you mean 'model'?"]),
        ("modle.width=3", ["unknown key 'modle.width'", "did you mean 'model.width'?"]),
        ("width=3", ["unknown key 'width'", "did you mean 'model.width'?"]),
        ("zzz.qqq=1", ["unknown key 'zzz.qqq'", "allowed here: data, list, model, named, seed, source"]),
        ("model=nanoo", ["unknown choice 'nanoo' for 'model'", "did you mean 'nano'?"]),
        ("model=5", ["unknown choice '5' for 'model'", "allowed: nano, small"]),
        ("model=null", ["'model=null'", "leave it out with ~model"]),
        ("source.kind=foldr", []),
        ("named.x=1", ["'named' has no entry 'x'", "write +named.x=1 to add it"]),
        ("seed.x=1", ["'seed' = 1 has no keys inside"]),
        ("list.7.a=1", ["unknown key 'list.7.a'", "allowed here: 0"]),
        ("+list.7=1", ["'list' is a list of 1"]),
        ("+seed=2", ["'seed' is there already", "leave out the +"]),
        ("~seed=5", ["'seed' is 1", "write ~seed"]),
        ("~model.foo", ["unknown key 'model.foo'", "allowed here: blocks, width"]),
        ("seed", ["cannot read 'seed'", "key=value or group=choice"]),
        ("", ["cannot read ''"]),
        ("=3", ["cannot read '=3'"]),
        ("a b=3", ["cannot read 'a b=3'", "'a b' is no configuration key"]),
        ("seed=[1", ["cannot read the value of 'seed=[1'", "brackets and quotes"]),
        ("seed=1,2", ["'seed=1,2' lists several values", "seed=[a,b]"]),
        ("seed=range(1,3)", ["lists several values"]),
        ("hydra.run.dir=x", ["unknown key 'hydra.run.dir'"]),
        ("seed=${nowhere}", ["nowhere"]),
        ("seed=${data.path}", []),
    ],
)
def test_a_wrong_override_is_one_line(conf: str, override: str, parts: list[str]) -> None:
    outcomes = []
    for attempt in (
        lambda: compose("train", [override], module=conf),
        lambda: apply_overrides(BASE, [override], module=conf),
    ):
        try:
            outcomes.append(attempt())
        except ConfigError as error:
            outcomes.append(str(error))
    # Two are no mistake when composing: a kind that the schema will refuse, and an interpolation.
    if override in ("source.kind=foldr", "seed=${data.path}"):
        assert isinstance(outcomes[0], dict)
        return
    for message in outcomes:
        assert isinstance(message, str), message
        assert "\n" not in message
    assert all(part in outcomes[0] for part in parts), outcomes[0]
    if "${" not in override:
        assert all(part in outcomes[1] for part in parts), outcomes[1]
    else:
        assert "refers to another key" in outcomes[1]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("model=nano", ("run", "model", "width"), 3),
        ("run.model=nano", ("run", "model", "width"), 3),
        ("model@run.model=nano", ("run", "model", "width"), 3),
        ("run.source.kind=folder", ("run", "source"), {"kind": "folder", "path": "unset"}),
        ("run.model.width=7", ("run", "model", "width"), 7),
    ],
)
def test_a_group_that_stands_deeper(conf: str, override: str, path: tuple[str, ...], value: Any) -> None:
    assert places("whole", module=conf) == {"run.source": "source", "run.model": "model"}
    result: Any = compose("whole", [override], module=conf)
    for key in path:
        result = result[key]
    assert result == value


def test_a_wrong_choice_deeper_is_named(conf: str) -> None:
    for override in ("model=nanoo", "run.model=nanoo"):
        with pytest.raises(ConfigError, match=r"unknown choice 'nanoo' for 'model' .*did you mean 'nano'\?"):
            compose("whole", [override], module=conf)
    with pytest.raises(ConfigError, match=r"unknown key 'model\.width' .*did you mean 'run\.model\.width'\?"):
        compose("whole", ["model.width=3"], module=conf)


@settings(max_examples=25)  # each composes once
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).filter(lambda text: "${" not in text))
def test_quoted_is_text_whatever_it_holds(text: str) -> None:
    data = {"path": "unset"}
    assert apply_overrides(data, [f"path={quoted(text)}"]) == {"path": text}


def test_names_a_mandatory_value(conf: str) -> None:
    with pytest.raises(ConfigError, match=r"^'data\.path' has no default: give it as data\.path=\.\.\.$"):
        compose("needy", ["seed=3"], module=conf)
    assert compose("needy", ["data.path=x"], module=conf) == {"data": {"path": "x"}, "seed": 1}


def test_apply_overrides_leaves_its_argument(conf: str) -> None:
    before = yaml.safe_dump(BASE)
    apply_overrides(BASE, ["model.blocks.a.heads=9", "list.0.a=2", "~seed", "+named.x=1"], module=conf)
    assert yaml.safe_dump(BASE) == before


def test_compose_choice_names_the_nearest(conf: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown choice 'smal' for 'model'; did you mean 'small'\?"):
        compose_choice("model", "smal", module=conf)


@settings(max_examples=25)
@given(st.text("abc ~/\\'\"é#=(){}[],:$1.-", max_size=10).filter(lambda text: "${" not in text))
def test_any_value_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        result = apply_overrides({"key": "unset"}, [f"key={text}"])
    except ConfigError as error:
        assert "\n" not in str(error)
        assert f"key={text}" in str(error)
    else:
        assert list(result) == ["key"]


def test_load_yaml_reads_what_people_write(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lr: 1e-3\nsteps: 1_000\nday: 2026-01-01\ntext: ${seed}\nsmall: 1.0e-05\nname: 1e\n")
    assert load_yaml(file) == {
        "lr": 1e-3, "steps": 1000, "day": "2026-01-01", "text": "${seed}", "small": 1e-5, "name": "1e",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no configuration file at"),
        (b"a: 1\nb: 2\na: 3\n", "in line 3: duplicate key 'a'"),
        (b"x:\n  a: 1\n  a: 2\n", "in line 3: duplicate key 'a'"),
        (b"a: [1\nb: 2\n", "is not valid YAML in line"),
        (b"- 1\n", "is not a configuration"),
        (b"", "is not a configuration"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a: \x00", "is not valid YAML"),
        (b"a: !!python/object:os.system {}\n", "is not valid YAML"),
    ],
)
def test_load_yaml_refuses_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        load_yaml(tmp_path)


def test_a_mapping_given_whole_replaces_what_is_there() -> None:
    """Hydra joins the two, so that `fim.orders={spm_v2: 1}` would leave PSM and SPM in the mixture."""
    overrides = ["train.steps=1", "data.path=store", "fim.orders={spm_v2: 1.0}"]
    composed = compose("train", overrides)
    assert composed["fim"]["orders"] == {"spm_v2": 1.0}
    assert apply_overrides(composed, ["fim.orders={psm: 1.0}"])["fim"]["orders"] == {"psm": 1.0}


@pytest.mark.parametrize("name", ["2024", "1_000", "1e3", "1.10", "true", "null", "0x10", "2024-01-02", "-3", "nan"])
def test_a_name_that_reads_as_a_number_is_text_where_text_is_wanted(name: str) -> None:
    class Place(Config):
        path: str
        maybe: str | None = None
        size: int | None = None

    class Both(Config):
        first: Place

    data = apply_overrides({"first": {"path": "", "maybe": "x", "size": 1}}, [f"first.path={name}"])
    assert validate(Both, data).first.path == name
    composed = compose("prepare", ["source=folder", f"source.path={name}", f"out={name}"])
    from inlay.text.prepare import PrepareConfig

    config: Any = validate(PrepareConfig, composed)
    assert (config.source.path, config.out) == (name, name)
    # null still is nothing where nothing may be, and a number a number.
    other = apply_overrides({"first": {"path": "", "maybe": "x", "size": 1}}, ["first.maybe=null", "first.size=3"])
    assert validate(Both, other).first == Place(path="", maybe=None, size=3)
    with pytest.raises(ConfigError, match=r"first\.size"):
        validate(Both, apply_overrides({"first": {"path": "", "size": 1}}, ["first.size=true"]))
