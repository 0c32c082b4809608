"""Every task that ships examples: they load, are distinct and plain, and their gold survives the task's own rules."""

import dataclasses
import gzip
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluate.tasks.data_files import place

import inlay.conf
from inlay.config import BadInput, InlayError, validate
from inlay.evaluate.sandbox import Sandbox, open_sandbox
from inlay.evaluate.task import Examples, Place, TaskConfig, tasks

SAMPLES = Path(str(resources.files("inlay.evaluate.samples")))
KINDS = [kind for kind in tasks.members() if kind != "held_out"]
"""`held_out` takes its examples from a store, and ships none."""
IN_LINES = [kind for kind in KINDS if (SAMPLES / f"{kind}.jsonl").is_file()]
POST_CHANGES_GOLD: dict[str, str] = {}
"""Tasks whose post-processing changes gold answers, and why that is right."""
QUICK = ("python", "javascript", "bash")
"""Languages that start without a compiler."""


def task(kind: str) -> TaskConfig:
    made = tasks.get(kind)()
    assert isinstance(made, TaskConfig)
    return made


def shipped(kind: str, limit: int | None = None) -> Examples:
    return task(kind).examples(Place(), limit)


def lines(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / f"{kind}.jsonl").read_text("utf-8").splitlines()]


def test_the_registry_has_the_benchmarks_of_this_room() -> None:
    assert {"humaneval_infilling", "safim", "santacoder_fim"} <= set(IN_LINES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_loads_and_its_ids_are_unique(kind: str) -> None:
    found = shipped(kind)
    assert found.items
    assert found.of == len(found.items)
    assert len({one.id for one in found.items}) == len(found.items)
    assert all(one.id and one.group and one.category for one in found.items)
    assert all(one.prefix or one.suffix for one in found.items)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_list_every_time_and_its_beginning(kind: str) -> None:
    whole = shipped(kind)
    assert shipped(kind) == whole
    for limit in (1, 2, whole.of, whole.of + 5):
        part = shipped(kind, limit)
        assert list(part.items) == list(whole.items)[:limit]
        assert (part.of, part.hash, part.source) == (whole.of, whole.hash, whole.source)


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_plain_json(kind: str) -> None:
    for one in shipped(kind).items:
        plain = {**dataclasses.asdict(one), "details": dict(one.details)}
        assert json.loads(json.dumps(plain))["middle"] == one.middle


@pytest.mark.parametrize("kind", KINDS)
def test_the_yaml_names_every_option_with_its_default(kind: str) -> None:
    made = task(kind)
    read = yaml.safe_load((Path(inlay.conf.__path__[0]) / "evaluate" / f"{kind}.yaml").read_text("utf-8"))
    assert set(read) == set(type(made).model_fields)
    assert validate(type(made), read) == made


@pytest.mark.parametrize("kind", KINDS)
def test_post_processing_keeps_gold_and_scores_it_full(kind: str) -> None:
    made = task(kind)
    names = {metric.name for metric in made.METRICS}
    fixed = {metric.name: metric.gold for metric in made.METRICS if metric.gold is not None}
    assert made.POST
    for one in made.examples(Place()).items:
        if kind not in POST_CHANGES_GOLD:
            assert made.postprocess(one, one.middle) == one.middle, one.id
        measured = made.measures(one, one.middle)
        assert set(measured) <= names
        for name, gold in fixed.items():
            measure = measured.get(name)
            assert measure is None or measure[0] == gold * measure[1], (one.id, name)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_have_short_titles_and_a_meaning(kind: str) -> None:
    for metric in task(kind).METRICS:
        assert 0 < len(metric.title) <= 14
        assert metric.meaning


@pytest.mark.parametrize("kind", KINDS)
def test_programs_are_there_where_the_task_says_so(kind: str) -> None:
    made = task(kind)
    programs = [made.program(one, one.middle) for one in made.examples(Place()).items]
    assert any(programs) == made.EXECUTES


@pytest.fixture(scope="module")
def sandbox() -> Any:
    try:
        opened = open_sandbox(workers=2)
    except InlayError as error:
        pytest.skip(f"no sandbox here: {error}")
    with opened:
        yield opened


def run_gold(kind: str, sandbox: Sandbox, quick: bool) -> int:
    """Runs the sample's gold; how many programs ran."""
    made, ran = task(kind), 0
    for one in made.examples(Place()).items:
        program = made.program(one, one.middle)
        if program is None or (program.language in QUICK) is not quick:
            continue
        if not sandbox.available(program.language):
            continue
        outcome = sandbox.run(dataclasses.replace(program, limits=dataclasses.replace(program.limits, seconds=60.0)))
        assert outcome.passed, (one.id, outcome)
        ran += 1
    return ran


@pytest.mark.parametrize("kind", KINDS)
def test_gold_passes_its_tests(kind: str, sandbox: Sandbox) -> None:
    if task(kind).EXECUTES:
        assert run_gold(kind, sandbox, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gold_of_compiled_languages_passes_its_tests(kind: str, sandbox: Sandbox) -> None:
    run_gold(kind, sandbox, quick=False)


@pytest.mark.parametrize("kind", IN_LINES)
def test_the_hash_follows_the_data(kind: str, tmp_path: Path) -> None:
    rows = lines(kind)
    sample = shipped(kind)
    same = task(kind).examples(place(tmp_path, *rows))
    assert (same.hash, same.items) == (sample.hash, sample.items)
    assert (sample.sample, same.sample) == (True, False)
    assert task(kind).examples(place(tmp_path, *rows[:-1])).hash != sample.hash
    assert task(kind).examples(place(tmp_path, *rows[:-1], rows[-1] | {"note": "x"})).hash != sample.hash


@pytest.mark.parametrize("kind", IN_LINES)
def test_one_line_for_what_is_wrong_with_the_data(kind: str, tmp_path: Path) -> None:
    rows = lines(kind)
    made = task(kind)

    def refused(place: Place) -> str:
        with pytest.raises(BadInput) as error:
            made.examples(place)
        assert "\n" not in str(error.value)
        return str(error.value)

    try:
        # Data without ids of its own may hold a row twice, as two examples.
        twice = made.examples(place(tmp_path, *rows, rows[0])).items
        assert len({one.id for one in twice}) == len(twice) == len(rows) + 1
    except BadInput as error:
        assert "comes twice" in str(error)
    without = 0
    for key in rows[0]:
        broken = [{name: value for name, value in rows[0].items() if name != key}, *rows[1:]]
        try:
            made.examples(place(tmp_path, *broken))
        except BadInput as error:
            assert "rows.jsonl, line 1" in str(error)
            assert f"'{key}'" in str(error)
            without += 1
    assert without >= 3, "hardly any field is needed"
    content = (SAMPLES / f"{kind}.jsonl").read_bytes()
    for name, data, expected in (
        ("cut.jsonl.gz", gzip.compress(content)[:-20], "cut off"),
        ("utf16.jsonl", content.decode().encode("utf-16"), "UTF-16"),
        ("latin.jsonl", content + '{"a": "ö"}'.encode("latin-1"), "not UTF-8"),
        ("empty.jsonl", b"", "no rows"),
        ("list.jsonl", b"[1]\n", "not an object"),
    ):
        (tmp_path / name).write_bytes(data)
        assert expected in refused(Place(data=str(tmp_path / name)))
