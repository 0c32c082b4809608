import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from inlay.config import BadInput, validate
from inlay.evaluate.marks import mark
from inlay.evaluate.task import Place
from inlay.evaluate.tasks import marked
from inlay.evaluate.tasks.marked import SHIPPED, MarkedConfig

SHIPPED_FOLDER = Path(marked.__file__).parents[1] / "samples" / "marked"


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


def test_the_shipped_files_are_ten_gaps_in_python_that_compiles() -> None:
    found = MarkedConfig().examples(Place())
    assert (found.of, found.source, found.sample) == (10, SHIPPED, False)
    assert len({one.id for one in found.items}) == 10
    assert len({one.category for one in found.items}) >= 6
    # Categories take turns, so that a part of the list is as mixed as the whole.
    assert len({one.category for one in found.items[:6]}) == 6
    for one in found.items:
        compile(one.document, one.path, "exec")
        assert one.language == "python"
        assert one.prefix.startswith('"""')
        assert one.path.endswith(".py")
        assert 40 <= one.document.count("\n") <= 150
        json.dumps(asdict(one))
        # Without the gold the file is not what it was: nothing else of it says the same at that place.
        assert one.middle.strip()
        assert not one.suffix.startswith(one.middle)
    assert MarkedConfig().examples(Place(), 3).items == found.items[:3]
    assert MarkedConfig().examples(Place(), 3).of == 10


def test_shipped_files_are_written_as_mark_writes_them() -> None:
    for one in MarkedConfig().examples(Place()).items:
        file = SHIPPED_FOLDER / one.id
        start = len(one.prefix)
        assert mark(one.document, start, start + len(one.middle)) == file.read_text(encoding="utf-8")


def test_folders_are_categories_and_names_tell_the_language(tmp_path: Path) -> None:
    text = "int f(void) {\n  return 1;\n}\n"
    write(tmp_path, "returns/a.c", mark(text, 16, 25))
    write(tmp_path, "returns/b.c.fim", mark(text, 0, 3, "starcoder2"))
    write(tmp_path, "calls/inner/c.unknown", mark(text, 4, 5, "deepseek-coder"))
    write(tmp_path, "top.py", mark("a = 1\n", 4, 5))
    write(tmp_path, "README.md", "no marks here")
    write(tmp_path, "calls/readme.txt", "nor here")
    write(tmp_path, ".git/config", "nor here")
    write(tmp_path, "calls/.hidden", "nor here")
    found = MarkedConfig().examples(Place(data=str(tmp_path)))
    assert found.source == str(tmp_path)
    said = {one.id: (one.category, one.path, one.language, one.middle) for one in found.items}
    assert said == {
        "returns/a.c": ("returns", "returns/a.c", "c", "return 1;"),
        "returns/b.c.fim": ("returns", "returns/b.c", "c", "int"),
        "calls/inner/c.unknown": ("calls/inner", "calls/inner/c.unknown", None, "f"),
        "top.py": (tmp_path.name, "top.py", "python", "1"),
    }
    # Two gaps of one file are not independent.
    assert len({one.group for one in found.items}) == 2
    alone = MarkedConfig().examples(Place(data=str(tmp_path / "returns" / "a.c")))
    assert [(one.id, one.category) for one in alone.items] == [("a.c", "returns")]


def test_the_hash_follows_the_files(tmp_path: Path) -> None:
    write(tmp_path, "types/a.py", mark("a = 1\n", 4, 5))
    place = Place(data=str(tmp_path))
    first = MarkedConfig().examples(place).hash
    assert MarkedConfig().examples(place).hash == first
    write(tmp_path, "types/a.py", mark("a = 2\n", 4, 5))
    second = MarkedConfig().examples(place).hash
    (tmp_path / "types" / "a.py").rename(tmp_path / "types" / "b.py")
    assert len({first, second, MarkedConfig().examples(place).hash}) == 3


def test_bad_folders_and_files_are_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder of marked files"):
        MarkedConfig().examples(Place(data=str(tmp_path / "none")))
    with pytest.raises(BadInput, match="no file in"):
        MarkedConfig().examples(Place(data=str(tmp_path)))
    with pytest.raises(BadInput, match="marked files are a folder or a file"):
        MarkedConfig().examples(Place(data="hf:a/b"))
    write(tmp_path, "types/good.py", mark("a = 1\n", 4, 5))
    forgotten = write(tmp_path, "types/forgotten.py", "a = 1\n")
    with pytest.raises(BadInput, match=f"{forgotten}: no gap is marked"):
        MarkedConfig().examples(Place(data=str(tmp_path)))
    forgotten.unlink()
    write(tmp_path, "types/crlf.py", mark("a = 1\n", 4, 5).replace("\n", "\r\n"))
    with pytest.raises(BadInput, match=r"types/crlf\.py, line 1: has a carriage return"):
        MarkedConfig().examples(Place(data=str(tmp_path)))
    write(tmp_path, "types/crlf.py", mark("a" * 1_000_001, 4, 5))
    with pytest.raises(BadInput, match="has more than 1000000 bytes"):
        MarkedConfig().examples(Place(data=str(tmp_path)))


def test_the_shipped_options_are_the_defaults() -> None:
    file = Path(marked.__file__).parents[2] / "conf" / "evaluate" / "marked.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert validate(MarkedConfig, data) == MarkedConfig()
    assert set(data) == set(MarkedConfig.model_fields)
