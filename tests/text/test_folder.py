"""The folder source: what it takes, what it leaves out and why, and git's ignore rules with git as the witness."""

import os
import shutil
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from inlay.config import BadInput, ConfigError, validate
from inlay.config.files import open_regular
from inlay.text import source as source_module
from inlay.text.source import Drops, left_out_line
from inlay.text.sources import folder as folder_module
from inlay.text.sources.folder import FolderSource


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, **options: object) -> tuple[dict[str, str], Drops]:
    dropped = Drops()
    found = {item.path: item.repo for item in validate(FolderSource, {"path": str(root), **options}).documents(dropped)}
    return found, dropped


def test_files_are_taken_in_a_fixed_order_with_their_language(tmp_path: Path) -> None:
    write(tmp_path, {"b/y.sql": "select 1;", "a/x.py": "x = 1", "a/Makefile": "all:\n", "c.unknown": "?"})
    dropped = Drops()
    documents = list(FolderSource(path=str(tmp_path)).documents(dropped))
    assert [(item.path, item.language, item.text) for item in documents] == [
        ("a/Makefile", "makefile", "all:\n"),
        ("a/x.py", "python", "x = 1"),
        ("b/y.sql", "sql", "select 1;"),
    ]
    assert dropped.to_dict() == {"unknown language": {"count": 1, "paths": ["c.unknown"]}}


def test_languages_choose(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x", "b.sql": "y", "c.md": "z"})
    found, dropped = read(tmp_path, languages=["sql"])
    assert list(found) == ["b.sql"]
    assert dropped.count("other language") == 2
    with pytest.raises(ConfigError, match="unknown language 'pyton'; did you mean 'python'"):
        validate(FolderSource, {"languages": ["pyton"]})


def test_what_is_no_text_is_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ok.py": "é = 1\r\n".encode(),
            "bom.py": b"\xef\xbb\xbfx = 1\n",
            "nul.py": b"x\0y",
            "latin.py": "é".encode("latin-1"),
            "big.py": "x" * 2000,
        },
    )
    dropped = Drops()
    texts = {item.path: item.text for item in FolderSource(path=str(tmp_path), max_bytes=1000).documents(dropped)}
    assert texts == {"ok.py": "é = 1\r\n", "bom.py": "x = 1\n"}
    assert {reason: entry["paths"] for reason, entry in dropped.to_dict().items()} == {
        "binary": ["nul.py"],
        "not UTF-8": ["latin.py"],
        "too large": ["big.py"],
    }


def test_unreadable_files_and_folders_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, so the system calls refuse instead.
    write(tmp_path, {"a.py": "x", "b.py": "y", "locked/c.py": "z"})
    scan = os.scandir

    def refuse_file(path: Path) -> BinaryIO:
        if Path(path).name == "b.py":
            raise PermissionError(13, "Permission denied")
        return open_regular(path)

    def refuse_folder(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(source_module, "open_regular", refuse_file)
    monkeypatch.setattr(folder_module.os, "scandir", refuse_folder)
    found, dropped = read(tmp_path)
    assert list(found) == ["a.py"]
    assert dropped.to_dict() == {
        "unreadable": {"count": 1, "paths": ["b.py"]},
        "unreadable folder": {"count": 1, "paths": ["locked/"]},
    }


def test_installed_cached_and_built_folders_are_not_entered(tmp_path: Path) -> None:
    names = [
        "node_modules/a.js",
        ".venv/lib/b.py",
        "__pycache__/c.py",
        "odd-env/pyvenv.cfg",
        "odd-env/d.py",
        "build/e.py",
        "dist/f.py",
    ]
    write(tmp_path, dict.fromkeys([*names, "pyproject.toml", "src/build/kept.py", "src/app.py"], "x"))
    found, dropped = read(tmp_path, languages=["python", "javascript"])
    assert list(found) == ["src/app.py", "src/build/kept.py"]
    assert dropped.count("installed or cached") == 4
    assert dropped.count("build output") == 2


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.py": "s"})
    root = write(tmp_path / "root", {"a.py": "x"})
    (root / "folder").symlink_to(outside)
    (root / "file.py").symlink_to(outside / "secret.py")
    (root / "loop").symlink_to(root)
    found, dropped = read(root)
    assert list(found) == ["a.py"]
    assert dropped.count("symbolic link") == 3


def test_repositories(tmp_path: Path) -> None:
    root = write(
        tmp_path / "code",
        {
            "one/.git/HEAD": "ref",
            "one/a.py": "x",
            "one/deep/b.py": "x",
            "group/two/.git/HEAD": "ref",
            "group/two/c.py": "x",
            "group/loose.py": "x",
            "top.py": "x",
        },
    )
    found, _ = read(root)
    assert found == {
        "group/loose.py": "group",
        "group/two/c.py": "group/two",
        "one/a.py": "one",
        "one/deep/b.py": "one",
        "top.py": "code",
    }
    assert set(read(root / "one")[0].values()) == {"one"}
    assert set(read(root / "one" / "deep")[0].values()) == {"one"}
    assert read(root / "one" / "a.py")[0] == {"a.py": "one"}


def test_a_folder_that_its_repository_ignores_is_read_when_it_is_named(tmp_path: Path) -> None:
    files = {".git/HEAD": "ref", ".gitignore": "data/\n", "data/one/a.py": "x", "data/two/b.py": "x", "src/c.py": "x"}
    root = write(tmp_path / "repo", files)
    assert read(root)[0] == {"src/c.py": "repo"}
    assert read(root / "data")[0] == {"one/a.py": "one", "two/b.py": "two"}
    assert read(root / "data" / "one")[0] == {"a.py": "one"}


def test_reading_goes_on_from_a_position(tmp_path: Path) -> None:
    write(tmp_path, {f"{index}.py": b"\0" if index % 3 == 1 else f"x = {index}" for index in range(10)})
    source = FolderSource(path=str(tmp_path))
    whole, total = list(source.documents(every := Drops())), every.total
    assert total == 3
    for start in range(len(whole) + 2):
        first, rest = Drops(), Drops()
        taken = list(islice(source.documents(first), start))
        assert taken + list(source.documents(rest, start)) == whole
        assert start > len(whole) or first.total + rest.total == total


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'source.path': no such folder: .*nowhere"):
        read(tmp_path / "nowhere")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the witness")
def test_ignore_rules_agree_with_git(tmp_path: Path) -> None:
    root = write(
        tmp_path / "repo",
        {
            ".gitignore": "*.log.py\n/only_top.py\nskipped/\n!keep.log.py\nnested/**/gen_*.py\n# comment\n\\#odd.py\n",
            "a.py": "",
            "x.log.py": "",
            "keep.log.py": "",
            "only_top.py": "",
            "sub/only_top.py": "",
            "skipped/a.py": "",
            "sub/skipped/a.py": "",
            "nested/gen_1.py": "",
            "nested/deep/er/gen_2.py": "",
            "nested/deep/other.py": "",
            "#odd.py": "",
            "sub/.gitignore": "*.py\n!again.py\n!x.log.py\n",
            "sub/again.py": "",
            "sub/x.log.py": "",
            "sub/gone.py": "",
            "sub/deeper/gone.py": "",
            "sub/deeper/.gitignore": "!gone.py\n",
            "all/.gitignore": "*\n!.gitignore\n",
            "all/in/a.py": "",
        },
    )
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", str(root)], check=True, env=environment)
    command = ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, env=environment).stdout.decode().split("\0")
    found, dropped = read(root)
    assert sorted(found) == sorted(name for name in listed if name.endswith(".py"))
    assert dropped.count("ignored by .gitignore") > 5
    inside, _ = read(root / "sub")
    assert sorted(inside) == sorted(name[4:] for name in listed if name.startswith("sub/") and name.endswith(".py"))


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Files and folders: taken, and shown with the odd bytes as `\\xe9`; what is left out too."""
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    for name, content in ((b"\xff.py", b"x = 1"), (b"b.py", b"y = 1"), (b"\xff.bin", b"\0"), (b"\xfe.py", b"\0")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    found, dropped = read(tmp_path)
    assert found == {"caf\\xe9/b.py": "caf\\xe9", "caf\\xe9/\\xff.py": "caf\\xe9"}
    assert dropped.to_dict() == {
        "binary": {"count": 1, "paths": ["caf\\xe9/\\xfe.py"]},
        "unknown language": {"count": 1, "paths": ["caf\\xe9/\\xff.bin"]},
    }


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1", "z.py": "x = 2"})
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        for depth in range(1, 2501):  # deeper than Python's stack, and longer than the system's longest path
            os.mkdir("d")
            os.chdir("d")
            if depth in (1, 1201):
                Path("b.py").write_text("y = 1")
    finally:
        os.chdir(before)
    found, dropped = read(tmp_path)
    assert list(found) == ["a.py", "d/b.py", "d/" * 1201 + "b.py", "z.py"]
    assert dropped.total == 1
    # pytest's own cleaning is recursive.
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


LINES = ["!", "[", "[z-a]", "\\", "a\\", "[[:foo:]]", "***", "!!x", "/", "//", "[!]", "[]", "a[", "\ufeff", "{", "(?P<"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the witness")
def test_lines_that_are_no_pattern_match_nothing(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(("a.py", "b.py", "x.py", "a[.py", "sub/a.py", "sub/c.py"), "x"))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for line in [*LINES, "\n".join(LINES)]:
        (tmp_path / ".gitignore").write_text(f"{line}\nb.py\n", encoding="utf-8")
        listed = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8").stdout.split(
            "\0"
        )
        assert set(read(tmp_path)[0]) == {name for name in names if name.endswith(".py")}, line
        assert "b.py" not in names


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_gitignore_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/a.py": "x" for name in ("folder", "pipe", "latin", "marked")})
    (tmp_path / "folder/.gitignore").mkdir()
    os.mkfifo(tmp_path / "pipe/.gitignore")
    (tmp_path / "latin/.gitignore").write_bytes(b"caf\xe9\n*.py\n")
    (tmp_path / "marked/.gitignore").write_bytes(b"\xef\xbb\xbfa.py\n")
    assert list(read(tmp_path)[0]) == ["folder/a.py", "pipe/a.py"]


def test_what_was_left_out_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x", "b.py": "é".encode("latin-1"), "c.py": "é".encode("latin-1"), "rows.jsonl": "{}"})
    found, dropped = read(tmp_path)
    assert list(found) == ["a.py"]  # a table of rows is no code
    line = "left out 3 of 4 files and folders: 2 not UTF-8, 1 unknown language"
    assert left_out_line(dropped.to_dict(), len(found)) == line
    assert left_out_line({}, 4) is None


def test_an_endless_run_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\n", "b.py": "x = 1" + " " * 600_000 + "\n"})
    found, dropped = read(tmp_path)
    assert list(found) == ["a.py"]
    assert dropped.to_dict() == {"endless run of one kind": {"count": 1, "paths": ["b.py"]}}


NOT_CODE: dict[str, tuple[str, dict[str, str | bytes]]] = {
    "manifest.json": ("a token store", {"tokenizer/tokenizer.json": "{}", "train/documents.parquet": b"PAR1"}),
    "config.yaml": ("a run", {"tokenizer/tokenizer.json": "{}", "metrics.jsonl": "{}", "samples.jsonl": "{}"}),
    "checkpoint.json": ("a checkpoint", {"weights.safetensors": b"0", "optimizer.safetensors": b"0"}),
    "config.json": ("a model", {"model.safetensors": b"0", "tokenizer.json": "{}"}),
}


@pytest.mark.parametrize("file", NOT_CODE)
def test_a_store_run_or_model_is_no_code_also_where_it_is_damaged(tmp_path: Path, file: str) -> None:
    what, files = NOT_CODE[file]
    place = write(tmp_path / "tree" / "place", files)
    write(tmp_path / "tree", {"code.py": "x = 1"})
    for content, said in ((None, f"without its {file}"), ("{", f"{place / file} cannot be read"), ("{}", f"is {what}")):
        if content is not None:
            (place / file).write_text(content)
        with pytest.raises(BadInput) as caught:
            read(place)
        assert said in str(caught.value)
        assert what in str(caught.value)
        assert "\n" not in str(caught.value)
        # Inside a tree of code it is left out, and counted; a model may have code beside it.
        found, dropped = read(tmp_path / "tree")
        assert "code.py" in found
        if what != "a model":
            assert list(found) == ["code.py"]
            assert dropped.count(what.removeprefix("a ")) == 1


def test_names_alone_make_no_store(tmp_path: Path) -> None:
    for name in ("manifest.json", "config.yaml", "config.json", "tokenizer.json"):
        write(tmp_path / name, {name: "{}", "train/a.py": "x = 1", "checkpoints/a.py": "x = 2"})
        assert "train/a.py" in read(tmp_path / name)[0]
