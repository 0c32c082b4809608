import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.evaluate.evaluation_results import item, items_of, result_of

from inlay.config import BadInput, InlayError
from inlay.evaluate.answer import Answer
from inlay.evaluate.evaluation_items import item_of, write
from inlay.evaluate.sandbox.program import Outcome
from inlay.evaluate.scored import Answered, Scored
from inlay.evaluate.task import Example


def scored(text: str = "b + 1", **more: Any) -> Scored:
    example = Example("e1", "g1", "line", "x" * 2000 + "a = ", "b + é", "\n" + "y" * 2000, "p.py", "python")
    answered = Answered(example, Answer(text, "eot", tokens=3), 2, **{"post": text, **more})
    return Scored(answered, {"exact": (0.0, 1.0), "middle_bpb": (3.0, 6.0), "passed": None, "empty": (1.0, 0.0)})


def test_an_item_has_all_that_the_page_and_others_need() -> None:
    outcome = Outcome("failed", "wrong", True, 0.1, "AssertionError")
    found = item_of(scored(post="b", raw_outcome=outcome), "spm", "spm", None)
    assert found == {
        "id": "e1", "order": "spm", "row": "spm", "sample": 2, "chosen": None, "doc": "g1", "path": "p.py",
        "language": "python", "category": "line", "length": 6, "gold": "b + é", "middle": "b + 1", "post": "b",
        "stopped": "eot", "tokens": 3, "outcome": outcome.to_dict(), "post_outcome": None,
        "prefix": "x" * 1196 + "a = ", "suffix": "\n" + "y" * 799,
        "measures": {"exact": 0.0, "middle_bpb": 0.5, "passed": None, "empty": None},
    }  # fmt: skip
    assert item_of(scored(), "spm", "spm", True)["post"] is None, "equal to the raw text"
    hand_made = item(1, ("line", "python", "a", "b", "eot"))
    assert found.keys() == hand_made.keys(), "items made by hand in tests look like those of an evaluation"


def test_the_three_files(tmp_path: Path) -> None:
    items = items_of(4)
    result = result_of(items)
    files = write(tmp_path / "new", result, items)
    names = [f"humaneval_infilling.{end}" for end in ("items.jsonl", "html", "json")]
    assert [file.name for file in files] == names
    assert [json.loads(line) for line in files[0].read_text().splitlines()] == items
    assert json.loads(files[2].read_text()) == result
    assert "<title>humaneval_infilling" in files[1].read_text()
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(names), "nothing else is left"
    assert write(tmp_path, result, items, "other")[0].name == "other.items.jsonl"


def test_a_result_never_stands_with_the_items_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = items_of(4), items_of(6)
    write(tmp_path, result_of(first), first)
    honest = os.replace
    for failing in (0, 1, 2):
        taken: list[object] = []

        def killed(one: object, other: object, at: int = failing, taken: list[object] = taken) -> None:
            if len(taken) == at:
                raise KeyboardInterrupt
            taken.append(other)
            honest(one, other)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, result_of(second), second)
        assert not (tmp_path / "humaneval_infilling.json").exists()
        monkeypatch.setattr(os, "replace", honest)
        write(tmp_path, result_of(first), first)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_full_disk_leaves_the_old_result_whole(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = items_of(4), items_of(6)
    files = write(tmp_path, result_of(old), old)
    before = {file: file.read_bytes() for file in files}
    honest, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InlayError, match=f"cannot write '{re.escape(str(files[at]))}': the disk is full"):
        write(tmp_path, result_of(new), new)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_cannot_be_made_leaves_the_old_result(tmp_path: Path) -> None:
    items = items_of(4)
    write(tmp_path, result_of(items), items)
    before = (tmp_path / "humaneval_infilling.json").read_bytes()
    with pytest.raises(TypeError):
        write(tmp_path, result_of(items), [items[0] | {"id": object()}])
    assert (tmp_path / "humaneval_infilling.json").read_bytes() == before


def test_numbers_that_json_has_not_are_named(tmp_path: Path) -> None:
    items = items_of(4)
    result = result_of(items)
    result["metrics"]["spm"]["middle_bpb"]["value"] = math.nan
    items[0]["measures"]["middle_bpb"] = math.inf
    files = write(tmp_path, result, items)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads(files[2].read_text(), parse_constant=refuse)
    assert read["metrics"]["spm"]["middle_bpb"]["value"] is None
    assert read["not_finite"] == ["metrics.spm.middle_bpb.value"]
    line = json.loads(files[0].read_text().splitlines()[0], parse_constant=refuse)
    assert line["measures"]["middle_bpb"] is None
    assert line["not_finite"] == ["measures.middle_bpb"]
    assert "Not a finite number" in files[1].read_text()
    assert math.isnan(result["metrics"]["spm"]["middle_bpb"]["value"]), "the caller's own is left as it was"


def test_half_a_surrogate_pair_is_written_and_read_back(tmp_path: Path) -> None:
    items = [item(0, ("line", "python", "a", "\ud83d \u2028 é", "eot"), path="\udcff.py")]
    files = write(tmp_path, result_of(items), items)
    assert json.loads(files[0].read_text()) == items[0]
    assert len(files[0].read_text(encoding="utf-8").split("\n")) == 2, "one line an item"
    assert files[1].read_bytes().decode("utf-8")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write") as caught:
        write(tmp_path / "file", result_of(items_of(2)), [])
    assert "\n" not in str(caught.value)
