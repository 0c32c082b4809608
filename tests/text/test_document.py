"""Documents: content ids and languages by file name."""

import pytest
import xxhash

from inlay.text.document import LANGUAGES, content_id, document, language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("B.PYI", "python"),
        ("x.js", "javascript"),
        ("x.ts", "typescript"),
        ("x.tsx", "tsx"),
        ("x.java", "java"),
        ("x.go", "go"),
        ("x.rs", "rust"),
        ("x.h", "c"),
        ("x.hpp", "cpp"),
        ("x.cs", "csharp"),
        ("x.rb", "ruby"),
        ("x.php", "php"),
        ("x.sh", "bash"),
        ("x.sql", "sql"),
        ("x.yml", "yaml"),
        ("x.json", "json"),
        ("x.html", "html"),
        ("x.css", "css"),
        ("README.md", "markdown"),
        ("x.toml", "toml"),
        ("notes.txt", "text"),
        ("Makefile", "makefile"),
        ("sub/Dockerfile", "dockerfile"),
        ("Dockerfile.gpu", "dockerfile"),
        ("CMakeLists.txt", "cmake"),
        ("LICENSE", None),
        ("picture.png", None),
        ("py", None),
    ],
)
def test_language_comes_from_the_file_name(path: str, language: str | None) -> None:
    assert language_of(path) == language
    assert language is None or language in LANGUAGES


def test_the_id_depends_on_the_text_alone() -> None:
    first = document("x = 1\n", language="python", path="a.py", repo="r", licence=None, source="folder")
    second = document("x = 1\n", language="text", path="b.txt", repo="s", licence="MIT", source="python")
    assert first.id == second.id == content_id("x = 1\n") == xxhash.xxh3_128(b"x = 1\n").hexdigest()
    assert content_id("x = 2\n") != first.id
