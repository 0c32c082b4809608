"""The English source: READMEs out of package metadata, pages that packages and folders hold, and what is left out."""

import importlib.metadata
from pathlib import Path

import pytest

from inlay.config import BadInput
from inlay.text.document import Document
from inlay.text.source import Drops
from inlay.text.sources.english import EnglishSource, description

PAGE = "A page about the thing, which says at some length what it is for and how it is used.\n" * 6
HEAD = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n"


def install(site: Path, name: str, headers: str, body: str, files: dict[str, str]) -> None:
    """A made-up installed package."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(HEAD.format(name=name) + headers + ("\n" + body if body else ""), encoding="utf-8")
    listed = [f"{info.name}/METADATA"]
    for path, text in files.items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        listed.append(path)
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in listed), encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site-packages"
    markdown = "Description-Content-Type: text/markdown; charset=UTF-8\n"
    install(
        site,
        "Alpha_One",
        markdown,
        f"# Alpha\n\nGrößer.\n{PAGE}",
        {
            "alpha/__init__.py": PAGE,
            "alpha/guide.rst": PAGE + "guide\n",
            "alpha/data.json": PAGE,
            "alpha/LICENSE.txt": PAGE,
            "alpha/short.md": "Short.\n",
            "Alpha_One-1.0.dist-info/top_level.txt": PAGE,
            "Alpha_One-1.0.dist-info/licenses/vendor/mit.txt": PAGE,
            "alpha/requirements-dev.txt": PAGE,
        },
    )
    install(site, "beta", "", PAGE + "beta\n", {"beta/notes.txt": PAGE + "\0"})
    install(site, "gamma", "", "", {})
    monkeypatch.syspath_prepend(str(site))
    real = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, "distributions", lambda path: real(path=[str(site)]))
    return site


def read(**options: object) -> tuple[list[Document], Drops]:
    dropped = Drops()
    return list(EnglishSource.model_validate(options).documents(dropped)), dropped


def test_what_packages_say_about_themselves(site: Path) -> None:
    found, dropped = read()
    assert [(item.repo, item.path, item.language) for item in found] == [
        ("alpha-one", "alpha-one/README.md", "markdown"),
        ("alpha-one", "alpha/guide.rst", "rst"),
        ("beta", "beta/README.rst", "rst"),
    ]
    assert found[0].text == f"# Alpha\n\nGrößer.\n{PAGE}"
    assert {item.licence for item in found} == {"MIT"}
    assert {item.source for item in found} == {"english"}
    assert {reason: dropped.count(reason) for reason in dropped.to_dict()} == {
        "licence": 2,
        "list for programs": 2,
        "too short": 1,
        "binary": 1,
    }


def test_going_on_from_a_position(site: Path) -> None:
    whole = read()[0]
    assert list(EnglishSource().documents(Drops(), start=2)) == whole[2:]


def test_a_folder_with_it_or_alone(site: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, text in {"a.md": PAGE, "b.py": PAGE, "COPYING.txt": PAGE, "c.txt": PAGE + "c\n"}.items():
        (docs / name).write_text(text, encoding="utf-8")
    alone, dropped = read(packages=False, path=str(docs))
    assert [item.path for item in alone] == ["a.md", "c.txt"]
    assert {item.source for item in alone} == {"english"}
    assert dropped.count("licence") == 1
    both, _ = read(path=str(docs), min_bytes=0)
    assert [item.path for item in both[-2:]] == ["a.md", "c.txt"]
    assert len(both) == 6  # short.md as well


def test_it_refuses_nothing_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'source\.packages' is false"):
        read(packages=False)
    with pytest.raises(BadInput, match=r"'source\.path': no such folder"):
        read(packages=False, path=str(tmp_path / "none"))


def test_a_readme_in_an_old_header(tmp_path: Path) -> None:
    """Before metadata had a body, the description was a header whose lines are indented."""
    folder = tmp_path / "old.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text(
        "Metadata-Version: 1.1\nName: old\nVersion: 1\nDescription: First line.\n        \n        Second.\n"
    )
    found = description(importlib.metadata.PathDistribution(folder))
    assert found is not None
    assert found[0].split() == ["First", "line.", "Second."]
    assert found[1] == ".rst"
