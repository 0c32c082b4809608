import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from inlay.config import BadInput, validate
from inlay.evaluate.answer import Losses
from inlay.evaluate.task import Place
from inlay.evaluate.tasks import real_fim_eval
from inlay.evaluate.tasks.real_fim_eval import RealFimEvalConfig


def row(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "repo": "one/two",
        "ref": "abc",
        "path": "two/a.py",
        "prompt": "def f():\n",
        "suffix": "    return 2\n",
        "canonical_solution": "    größe = 1\n",
        "lang": "python",
        "timestamp": "2025-01-20",
    }
    return data | changes


def write(path: Path, *rows: dict[str, Any]) -> Place:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return Place(data=str(path))


def test_added_text_is_a_gap_as_it_stands(tmp_path: Path) -> None:
    found = RealFimEvalConfig().examples(write(tmp_path / "a.jsonl", row(), row(path="x/b.unknown", lang="C++")))
    first, second = found.items
    assert (first.prefix, first.middle, first.suffix) == ("def f():\n", "    größe = 1\n", "    return 2\n")
    assert (first.id, first.category, first.group, first.language) == ("add/0", "add", "one/two", "python")
    assert (second.id, second.language) == ("add/1", "cpp")
    assert (
        RealFimEvalConfig().examples(write(tmp_path / "b.jsonl", row(path="b", lang="Klingon"))).items[0].language
        is None
    )


def test_replaced_text_is_shown_as_a_conflict(tmp_path: Path) -> None:
    place = write(
        tmp_path / "a.jsonl", row(to_remove="    size = 1\n"), row(), row(to_remove="    x", canonical_solution="  y")
    )
    first, _, third = RealFimEvalConfig().examples(place).items
    assert first.document == (
        "def f():\n<<<<<<< before\n    size = 1\n=======\n    größe = 1\n>>>>>>> after\n    return 2\n"
    )
    # Marks stand on lines of their own, whatever the two texts end in.
    assert third.document == "def f():\n<<<<<<< before\n    x\n=======\n  y\n>>>>>>> after\n    return 2\n"
    assert (third.middle, third.id) == ("  y", "edit/1")
    hidden = RealFimEvalConfig(removed="hidden").examples(place).items[0]
    assert hidden.document == "def f():\n    größe = 1\n    return 2\n"
    assert [one.id for one in RealFimEvalConfig(split="edit").examples(place).items] == ["edit/0", "edit/1"]
    assert [one.id for one in RealFimEvalConfig(split="add").examples(place).items] == ["add/0"]


def test_perplexities_are_those_of_the_card(tmp_path: Path) -> None:
    config = RealFimEvalConfig()
    (one,) = config.examples(write(tmp_path / "a.jsonl", row())).items
    probabilities = [0.5, 0.25, 0.9]
    losses = Losses(-sum(map(math.log, probabilities)), len(probabilities), 1.0)
    found = config.loss_measures(one, losses)
    assert set(found) == {metric.name for metric in config.METRICS}
    product = math.prod(probabilities)
    # The middle has 14 characters, two of them of two bytes.
    assert len("    größe = 1\n") == 14
    expected = {
        "char_perplexity": product ** (-1 / 14),
        "byte_perplexity": product ** (-1 / 16),
        "token_perplexity": product ** (-1 / 3),
    }
    assert found == {name: (pytest.approx(value), 1.0) for name, value in expected.items()}
    worst = config.loss_measures(one, Losses(1e9, 3, 1.0))["char_perplexity"]
    assert worst is not None
    assert math.isfinite(worst[0])
    assert config.measures(one, "any text") == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"canonical_solution": ""}, r"a\.jsonl, line 2: field 'canonical_solution' is empty: there is no middle"),
        ({"suffix": None}, r"line 2: field 'suffix' is null"),
        ({"path": ""}, r"line 2: field 'path' is empty"),
        ({"to_remove": 3}, r"line 2: field 'to_remove' is a number, not a text"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RealFimEvalConfig().examples(write(tmp_path / "a.jsonl", row(), row(**bad)))


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="decides the split, and no row is one of 'edit'"):
        RealFimEvalConfig(split="edit").examples(write(tmp_path / "a.jsonl", row()))


def test_the_shipped_sample_and_options() -> None:
    found = RealFimEvalConfig().examples(Place())
    assert found.sample
    assert {one.category for one in found.items} == {"add", "edit"}
    assert len({one.language for one in found.items}) == 4
    for one in RealFimEvalConfig(removed="hidden").examples(Place()).items:
        if one.language == "python":
            compile(one.document, one.path, "exec")
    file = Path(real_fim_eval.__file__).parents[2] / "conf" / "evaluate" / "real_fim_eval.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert validate(RealFimEvalConfig, data) == RealFimEvalConfig()
    assert set(data) == set(RealFimEvalConfig.model_fields)
