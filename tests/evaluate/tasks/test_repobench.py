import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from inlay.config import BadInput, validate
from inlay.evaluate.cross_file_rules import first_code_line
from inlay.evaluate.task import ContextFile, Place
from inlay.evaluate.tasks import repobench
from inlay.evaluate.tasks.repobench import RepoBenchConfig

CODE = "def f(names):\n    found = []"


def row(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "repo_name": "one/two",
        "file_path": "two/a.py",
        "context": [{"identifier": "call", "path": "two/b.py", "snippet": "def call(): ...\n"}],
        "import_statement": "from two.b import call",
        "token_num": 700,
        "cropped_code": CODE + "\n\n",
        "all_code": f"{CODE}\n\n    found.append(call(names))\n    return found\n",
        "next_line": "    found.append(call(names))",
        "gold_snippet_index": 0,
        "created_at": "2023-11-05",
        "level": "2k",
    }
    return data | changes


def write(path: Path, *rows: dict[str, Any]) -> Place:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return Place(data=str(path))


@pytest.mark.parametrize(
    ("text", "language", "line"),
    [
        ("    a = 1\n    b = 2\n", "python", "    a = 1"),
        ("\n\n  # note\n\n  a = 1", "python", "  a = 1"),
        ('"""Doc\nmore\n"""\na = 1\n', "python", "a = 1"),
        # A docstring on one line opens a comment that the next one closes, as their code has it.
        ('"""Doc."""\na = 1\n', "python", '"""Doc."""'),
        ("# only\n# notes", "python", "# only"),
        ("", "python", ""),
        ("// note\n/* more\n */\nint a;\n", "java", "int a;"),
        ("# no comment here\nint a;", "java", "# no comment here"),
    ],
)
def test_the_first_line_of_code(text: str, language: str, line: str) -> None:
    assert first_code_line(text, language) == line


def test_rows_ask_left_to_right_as_published(tmp_path: Path) -> None:
    (one,) = RepoBenchConfig().examples(write(tmp_path / "cross_file_first.jsonl", row())).items
    assert one.prefix == f"from two.b import call\n{CODE}\n"
    assert (one.middle, one.suffix) == ("    found.append(call(names))", "")
    assert (one.id, one.category, one.group, one.repo) == (
        "cross_file_first/0",
        "cross_file_first",
        "one/two",
        "one/two",
    )
    assert (one.path, one.language) == ("two/a.py", "python")
    assert one.context == (ContextFile("two/b.py", "def call(): ...\n"),)


def test_the_rest_of_the_file_is_what_follows_the_line(tmp_path: Path) -> None:
    decoy = f"{CODE}\n    other()\n\n{CODE}\n\n    found.append(call(names))\n    return found"
    rows = [
        row(),
        row(all_code=decoy),
        row(next_line="found.append(call(names))"),
        row(all_code="nothing of it"),
        row(all_code=f"{CODE}\n    found.append(call(names))", cropped_code=CODE),
    ]
    found = RepoBenchConfig(suffix="rest").examples(write(tmp_path / "a.jsonl", *rows))
    assert [one.suffix for one in found.items] == [
        "\n    return found\n",
        "\n    return found",
        "\n    return found\n",
        "",
    ]
    assert {one.middle for one in found.items} == {"    found.append(call(names))"}
    assert found.source.endswith("a.jsonl (1 rows left out: all_code does not show their place)")
    # Numbers are those of the rows, so that a row keeps its id under every option.
    assert [one.id for one in found.items] == ["line/0", "line/1", "line/2", "line/4"]
    with pytest.raises(BadInput, match="none of 1 rows is one whose all_code shows the place"):
        RepoBenchConfig(suffix="rest").examples(write(tmp_path / "b.jsonl", row(all_code="")))


def test_settings_and_levels_of_a_folder_of_parquet(tmp_path: Path) -> None:
    for setting in ("in_file", "cross_file_random"):
        table = pa.Table.from_pylist([row(), row(level="4k")])
        parquet.write_table(table, tmp_path / f"{setting}-00000-of-00001.parquet")
    found = RepoBenchConfig().examples(Place(data=str(tmp_path)))
    assert [one.id for one in found.items] == ["cross_file_random/0", "cross_file_random/1", "in_file/0", "in_file/1"]
    short = RepoBenchConfig(levels=("4k",)).examples(Place(data=str(tmp_path)))
    assert [one.id for one in short.items] == ["cross_file_random/1", "in_file/1"]
    with pytest.raises(BadInput, match="none of 4 rows is one of level 64k"):
        RepoBenchConfig(levels=("64k",)).examples(Place(data=str(tmp_path)))


def test_measures_of_answers(tmp_path: Path) -> None:
    config = RepoBenchConfig()
    (one,) = config.examples(write(tmp_path / "a.jsonl", row())).items
    assert config.measures(one, one.middle + "\n    return 1") == {"rb_exact": (1.0, 1.0), "rb_edit": (1.0, 1.0)}
    # Words are compared, characters measured.
    loose = config.measures(one, "# why\nfound.append(call(names))\n")
    assert loose["rb_exact"] == (1.0, 1.0)
    assert loose["rb_edit"] == (pytest.approx(2 * 25 / 54), 1.0)
    assert config.measures(one, "")["rb_exact"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"next_line": None}, r"a\.jsonl, line 2: field 'next_line' is null"),
        ({"next_line": "  "}, r"line 2: field 'next_line' is empty"),
        ({"file_path": "a.go"}, r"line 2: 'a\.go' is neither Python nor Java"),
        ({"context": "text"}, r"line 2: field 'context' is a text, not a list"),
        ({"context": [{"path": "a"}]}, r"line 2, 'context\[0\]': field 'snippet' is missing"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RepoBenchConfig().examples(write(tmp_path / "a.jsonl", row(), row(**bad)))


def test_the_shipped_sample_and_options() -> None:
    for config in (RepoBenchConfig(), RepoBenchConfig(suffix="rest")):
        found = config.examples(Place())
        assert found.sample
        assert {one.language for one in found.items} == {"python", "java"}
        for one in found.items:
            assert one.middle.startswith(" ")
            assert config.measures(one, one.middle) == {"rb_exact": (1.0, 1.0), "rb_edit": (1.0, 1.0)}
    for one in found.items:
        if one.language == "python":
            compile(one.document, one.path, "exec")
    file = Path(repobench.__file__).parents[2] / "conf" / "evaluate" / "repobench.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert validate(RepoBenchConfig, data) == RepoBenchConfig()
    assert set(data) == set(RepoBenchConfig.model_fields)
