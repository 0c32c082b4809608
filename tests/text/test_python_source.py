"""The python source: repositories, licences from metadata, and names that do not exist."""

from email.message import Message
from pathlib import Path

import pytest

from inlay.config import BadInput
from inlay.text.source import Drops
from inlay.text.sources.python import PythonSource, licence_of


def metadata(**fields: str | list[str]) -> Message:
    message = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT OR Apache-2.0", "License": "ignored"}, "MIT OR Apache-2.0"),
        ({"License": "MIT"}, "MIT"),
        ({"License": "Apache 2.0 License"}, "Apache-2.0"),
        ({"License": "MIT License\n\nCopyright (c) 2022"}, "MIT"),
        (
            {
                "License": "License agreement\n" * 50,
                "Classifier": ["License :: OSI Approved :: Python Software Foundation License"],
            },
            "PSF-2.0",
        ),
        (
            {
                "Classifier": [
                    "License :: OSI Approved",
                    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
                ]
            },
            "MPL-2.0",
        ),
        (
            {
                "Classifier": [
                    "License :: OSI Approved :: MIT License",
                    "License :: OSI Approved :: Apache Software License",
                ]
            },
            "Apache-2.0 OR MIT",
        ),
        ({"License": "UNKNOWN"}, None),
        ({"License": "My Own Terms"}, "My Own Terms"),
        ({"Classifier": ["Programming Language :: Python"]}, None),
    ],
)
def test_licences(fields: dict[str, str | list[str]], licence: str | None) -> None:
    assert licence_of(metadata(**fields)) == licence  # pyrefly: ignore (a Message is what metadata is)


def test_packages_are_repositories_with_their_licence() -> None:
    documents = list(
        PythonSource(packages=("numpy", "Pydantic_Core", "stdlib/json"), exclude=("nothing",)).documents(Drops())
    )
    by_repo = {item.repo: item for item in documents}
    assert set(by_repo) == {"numpy", "pydantic-core", "stdlib/json"}
    assert by_repo["pydantic-core"].licence == "MIT"
    assert "BSD-3-Clause" in (by_repo["numpy"].licence or "")
    assert {item.path for item in documents if item.repo == "stdlib/json"} >= {
        "stdlib/json/decoder.py",
        "stdlib/json/__init__.py",
    }
    assert by_repo["stdlib/json"].licence == "PSF-2.0"
    assert {item.language for item in documents} == {"python"}
    assert {item.source for item in documents} == {"python"}
    assert all(item.path.endswith(".py") for item in documents)
    assert [(item.repo, item.path) for item in documents] == sorted((item.repo, item.path) for item in documents)


def test_the_standard_library_is_one_name_and_many_repositories() -> None:
    documents = list(PythonSource(packages=("stdlib",), exclude=("stdlib/test*", "stdlib/idlelib")).documents(Drops()))
    repos = {item.repo for item in documents}
    assert {"stdlib/asyncio", "stdlib/argparse", "stdlib/json"} <= repos
    assert not {"stdlib/test", "stdlib/idlelib"} & repos
    assert all(repo.startswith("stdlib/") for repo in repos)
    text = next(item.text for item in documents if item.path == "stdlib/argparse.py")
    import argparse

    assert text == Path(argparse.__file__).read_bytes().decode()


def test_vendored_copies_are_left_out() -> None:
    dropped = Drops()
    documents = list(PythonSource(packages=("setuptools",)).documents(dropped))
    assert dropped.count("vendored copy") > 10
    assert documents
    assert not any("/_vendor/" in item.path for item in documents)


def test_an_unknown_package_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="no package 'nunpy'; did you mean 'numpy'"):
        list(PythonSource(packages=("nunpy",)).documents(Drops()))


def test_reading_goes_on_from_a_position() -> None:
    source = PythonSource(packages=("stdlib/json", "stdlib/asyncio"))
    whole = list(source.documents(Drops()))
    for start in (0, 1, len(whole) // 2, len(whole), len(whole) + 1):
        assert list(source.documents(Drops(), start)) == whole[start:]
