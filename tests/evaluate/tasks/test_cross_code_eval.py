import gzip
import json
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from inlay.config import BadInput, validate
from inlay.evaluate.cross_file_rules import (
    f1_of_sets,
    first_statement,
    identifiers,
    indel_similarity,
    same_lines,
    without_comments,
)
from inlay.evaluate.task import ContextFile, Place
from inlay.evaluate.tasks import cross_code_eval
from inlay.evaluate.tasks.cross_code_eval import CrossCodeEvalConfig


def row(number: int = 0, file: str = "lib/a.py", **changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "prompt": "from lib.b import call\n\nvalue = ",
        "groundtruth": "call(1)",
        "right_context": "\nprint(value)\n",
        "crossfile_context": {
            "text": "",
            "list": [
                {"retrieved_chunk": "def call(x): ...\n", "filename": "lib/b.py", "score": 0.9},
                {"retrieved_chunk": "X = 1\n", "filename": "lib/c.py", "score": 0.1},
            ],
        },
        "metadata": {"task_id": f"project_cc_python/{number}", "repository": "lib", "file": file},
    }
    return data | changes


def write(path: Path, *rows: dict[str, Any]) -> Place:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return Place(data=str(path))


def common_subsequence(left: str, right: str) -> int:
    for size in range(min(len(left), len(right)), 0, -1):
        found = {"".join(part) for part in combinations(left, size)}
        if found & {"".join(part) for part in combinations(right, size)}:
            return size
    return 0


@given(st.text("ab(,é", max_size=8), st.text("ab(,é", max_size=8))
def test_similarity_by_insertions_and_deletions(left: str, right: str) -> None:
    total = len(left) + len(right)
    expected = 2 * common_subsequence(left, right) / total if total else 1.0
    assert indel_similarity(left, right) == pytest.approx(expected)
    assert indel_similarity(left, right) == indel_similarity(right, left)


def test_similarity_of_long_texts_is_near_what_difflib_says() -> None:
    left = "return self.tokenizer.encode(text[start:end])" * 5
    right = left.replace("encode", "decode").replace("start", "begin")
    ratio = SequenceMatcher(None, left, right, autojunk=False).ratio()
    assert ratio <= indel_similarity(left, right) < 1.0
    assert (indel_similarity("", "a"), indel_similarity("", ""), indel_similarity("a", "b")) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("prefix", "text", "cut"),
    [
        ("x = ", "call(1)\nprint(x)\n", "call(1)"),
        ("x = ", "call(1)   \nprint(x)\n", "call(1)"),
        ("x = ", "call(\n    1,\n)\nprint(x)\n", "call(\n    1,\n)"),
        ("x = ", "call(1)", "call(1)"),
        ("x = ", "call(\n    1,\n", "call(\n    1,\n"),
        ("def f():\n    return ", "[\n        1,\n    ]\n\n\ndef g():\n", "[\n        1,\n    ]"),
        ("x = ", "", ""),
        # A line end first is behind nothing; the next one counts.
        ("x = 1", "\ny = 2\nz = 3\n", "\ny = 2"),
    ],
)
def test_python_is_cut_where_it_parses(prefix: str, text: str, cut: str) -> None:
    assert first_statement(prefix, text, "python") == cut


@pytest.mark.parametrize("language", ["java", "csharp", "typescript"])
def test_other_languages_are_cut_at_brackets_and_semicolons(language: str) -> None:
    assert first_statement("", "call(a);\nmore();", language) == "call(a);"
    assert first_statement("", "if (a) {\n  b();", language) == "if (a) {"
    assert first_statement("", "a }", language) == "a }"
    assert first_statement("", "call(a", language) == "call(a"
    # As their code has it: a bracket that is the first character does not cut.
    assert first_statement("", "} else;", language) == "} else;"


def test_comments_identifiers_and_their_f1() -> None:
    assert without_comments('a = 1  # one\nb = "http://x"') == 'a = 1  \nb = "http:'
    assert same_lines(" a\n\n  b ", "a\nb\n")
    assert not same_lines("a b", "ab")
    assert identifiers('self.names["key"] = call(x2, None, True)', "python") == ["self", "names", "call", "x2", "True"]
    assert identifiers("return new Foo(true, 2x, größe);", "java") == ["Foo", "true", "größe"]
    assert f1_of_sets(["a", "b", "b"], ["b", "c"]) == pytest.approx(0.5)
    assert f1_of_sets([], []) == 0.0


def test_measures_of_answers(tmp_path: Path) -> None:
    config = CrossCodeEvalConfig()
    (example,) = config.examples(write(tmp_path / "a.jsonl", row())).items
    assert {metric.name for metric in config.METRICS} == set(config.measures(example, ""))
    assert all(measure == (1.0, 1.0) for measure in config.measures(example, "call(1)\nnext line").values())
    assert all(measure == (1.0, 1.0) for measure in config.measures(example, "call(1)  # note").values())
    other = config.measures(example, "call(2)")
    assert other["cce_exact"] == (0.0, 1.0)
    assert other["cce_edit"] == (pytest.approx(12 / 14), 1.0)
    assert other["cce_id_exact"] == other["cce_id_f1"] == (1.0, 1.0)
    assert config.measures(example, "make(call)")["cce_id_f1"] == (pytest.approx(2 / 3), 1.0)
    assert config.postprocess(example, "call(1)\nprint(2)\n") == "call(1)"


def test_rows_become_examples(tmp_path: Path) -> None:
    place = write(tmp_path / "a.jsonl", row(), row(1, "src/b.tsx", groundtruth="x;"))
    found = CrossCodeEvalConfig().examples(place)
    first, second = found.items
    assert (first.id, first.group, first.repo, first.path) == ("project_cc_python/0", "lib", "lib", "lib/a.py")
    assert (first.prefix, first.middle, first.suffix) == (
        "from lib.b import call\n\nvalue = ",
        "call(1)",
        "\nprint(value)\n",
    )
    assert first.context == (ContextFile("lib/b.py", "def call(x): ...\n"), ContextFile("lib/c.py", "X = 1\n"))
    assert (second.language, CrossCodeEvalConfig().postprocess(second, "x; y;")) == ("tsx", "x;")
    assert not any(one.context for one in CrossCodeEvalConfig(context="none").examples(place).items)
    assert CrossCodeEvalConfig().examples(place, 1).items == [first]
    assert CrossCodeEvalConfig().examples(place, 1).of == 2
    # The baseline's file has no context at all, and some rows no text behind the gap.
    bare = row()
    del bare["crossfile_context"], bare["right_context"]
    (only,) = CrossCodeEvalConfig().examples(write(tmp_path / "b.jsonl", bare)).items
    assert (only.context, only.suffix) == ((), "")


def test_a_folder_is_read_by_the_way_of_retrieval(tmp_path: Path) -> None:
    write(tmp_path / "python" / "line_completion_rg1_bm25.jsonl", row())
    write(tmp_path / "python" / "line_completion.jsonl", row())
    (tmp_path / "java").mkdir()
    java = json.dumps(row(2, "src/A.java", groundtruth="x;")).encode()
    (tmp_path / "java" / "line_completion_rg1_bm25.jsonl.gz").write_bytes(gzip.compress(java))
    found = CrossCodeEvalConfig().examples(Place(data=str(tmp_path)))
    assert [one.language for one in found.items] == ["java", "python"]
    assert CrossCodeEvalConfig(retrieval="line_completion").examples(Place(data=str(tmp_path))).of == 1
    with pytest.raises(BadInput, match="no data file with a name like 'oracle"):
        CrossCodeEvalConfig(retrieval="oracle").examples(Place(data=str(tmp_path)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": None}, r"a\.jsonl, line 2: field 'prompt' is null"),
        ({"groundtruth": " "}, r"a\.jsonl, line 2: field 'groundtruth' is empty"),
        ({"metadata": {"file": "a.py", "repository": "r"}}, r"line 2, 'metadata': field 'task_id' is missing"),
        ({"metadata": {"file": "a.go", "repository": "r", "task_id": "1"}}, r"'a\.go' is in go; the benchmark has"),
        ({"metadata": {"file": "a.what", "repository": "r", "task_id": "1"}}, r"is in an unknown language"),
        ({"crossfile_context": {"text": ""}}, r"'crossfile_context': field 'list' is missing"),
        ({"crossfile_context": {"list": [{"filename": 3, "retrieved_chunk": ""}]}}, r"field 'filename' is a number"),
        ({"metadata": row()["metadata"]}, r"the id 'project_cc_python/0' comes twice"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        CrossCodeEvalConfig().examples(write(tmp_path / "a.jsonl", row(), row(1, **bad)))
    assert "\n" not in str(caught.value)


def test_the_shipped_sample_and_options() -> None:
    found = CrossCodeEvalConfig().examples(Place())
    assert found.sample
    assert {one.language for one in found.items} == {"python", "java", "csharp", "typescript"}
    for one in found.items:
        assert one.context
        assert CrossCodeEvalConfig().postprocess(one, one.middle) == one.middle
        assert all(measure == (1.0, 1.0) for measure in CrossCodeEvalConfig().measures(one, one.middle).values())
    file = Path(cross_code_eval.__file__).parents[2] / "conf" / "evaluate" / "cross_code_eval.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert validate(CrossCodeEvalConfig, data) == CrossCodeEvalConfig()
    assert set(data) == set(CrossCodeEvalConfig.model_fields)
